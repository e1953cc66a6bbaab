//! Names and documents of the Open Container Initiative's specifications, and the names that Docker's users know.
//!
//! Job: to turn text into values that can only be sound. Nothing here does I/O, and nothing here knows what a
//! container or an image *does*. The documents themselves are the `oci-spec` crate's, exported again as [`runtime`]
//! and [`image`], so that the whole workspace uses one version of them.

mod digest;
mod id;
mod platform;
mod reference;
mod signal;

pub use digest::*;
pub use id::{ContainerId, ContainerName, NAME_MAX, NameError, SHORT_ID_LENGTH};
pub use oci_spec::{image, runtime};
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_TAG, Reference, ReferenceError};
pub use signal::{Signal, SignalError};
