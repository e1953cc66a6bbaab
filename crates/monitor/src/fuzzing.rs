//! Entry points for fuzzing: frames of the attach protocol, and lines of a log. Each panics where what was accepted is
//! not what its own writing says.

pub use crate::attach::frame_for_fuzzing as frame;
pub use crate::log::line_for_fuzzing as line;
