//! The binary under a tracer: every system call by which a command, its monitor or a process on its way into a container
//! changes the world is a *point* with a name, and at each of them the processes can be killed, or the call made to fail.
//!
//! ```text
//! command/rename(ROOT/containers/ID/config.json)#1
//! monitor/unlinkat(RUN/ids/N)#1
//! child/move_mount(/proc)#1        a process between clone and exec
//! ```
//!
//! So the binary that ships is what is tested, and no step of it can be forgotten: a call that somebody adds tomorrow is
//! a point tomorrow. The names hold from run to run: folders, ids and numbers in them are replaced by what they mean. The
//! container's own program is let go of as soon as it is executed. Alternatives: docs/design/0003-crashes-and-faults.md.

mod calls;
mod name;
mod run;

use std::collections::BTreeSet;
use std::fmt;

use rustix::io::Errno;

pub use run::trace;

use crate::Outcome;

/// What a process is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The command that was typed.
    Command,
    /// The supervisor of a detached container.
    Monitor,
    /// Between clone and exec, from either of the two.
    Child,
}

/// One system call of one run.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Point {
    /// Who makes it.
    pub role: Role,
    /// Its name.
    pub call: &'static str,
    /// What it acts on.
    pub on: String,
    /// How many like it this one makes, from 1.
    pub n: u32,
    /// Whether somebody else can see that it was made.
    pub changes: bool,
    /// Which errors can be forced here, as raw numbers.
    pub errors: Vec<i32>,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Command => "command",
            Role::Monitor => "monitor",
            Role::Child => "child",
        };
        write!(f, "{role}/{}({})#{}", self.call, self.on, self.n)
    }
}

/// Before or after the call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// It was not made yet.
    Before,
    /// It was made, and nothing since by the process that made it.
    After,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whom {
    /// Who makes the call.
    Caller,
    /// The monitors, when another makes the call; the command, when a monitor makes it.
    Other,
    /// All of them at once.
    Tree,
}

/// What is done at a point.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Nothing.
    Pass,
    /// SIGKILL.
    Kill(Whom),
    /// The call is not made, and fails so; before it only.
    Fail(Errno),
    /// The call is not made, and says that it was, with this result; before it only.
    Pretend(i64),
    /// Memory is overwritten: that to which an argument points, from an offset on, with these bytes. Before the call only.
    Overwrite(Vec<(usize, u64, Vec<u8>)>),
}

/// What a traced command did.
#[derive(Debug)]
pub struct Traced {
    /// As any command's; [`Traced::HUNG`] for a code when it had to be killed.
    pub outcome: Outcome,
    /// Every call of the table in `calls`, in order.
    pub points: Vec<Point>,
    /// Every id of a container that was seen in a path.
    pub ids: BTreeSet<String>,
    /// How many deeds were done.
    pub struck: usize,
}

impl Traced {
    /// The exit code of a command that did not end.
    pub const HUNG: i32 = -1;
}
