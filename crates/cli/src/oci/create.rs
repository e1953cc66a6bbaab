//! `create`.

use std::path::PathBuf;

use coracle_engine::bundle::{CreateRequest, Deviations};

use super::{Runtime, Verb, inherited};
use crate::error::Error;

/// What `create` and `run` both take.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The socket that gets the terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// The file that gets the first process's pid
    #[arg(long, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,
    /// Do not pivot into the root (for a host that runs from an initramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass on this many descriptors, from 3 on
    #[arg(long, value_name = "N", default_value = "0")]
    pub preserve_fds: u32,
}

impl CreateArguments {
    /// The request. Executes the program again from where no container can write to it, if need be: so the first thing to do.
    pub(super) fn request(self, detached: bool) -> Result<CreateRequest, Error> {
        let inherited = inherited::take(self.preserve_fds)?;
        Ok(CreateRequest {
            id: self.id,
            bundle: self.bundle,
            console_socket: self.console_socket,
            detached,
            pid_file: self.pid_file,
            deviations: Deviations {
                keep_keyring: self.no_new_keyring,
                no_pivot: self.no_pivot,
            },
            preserved: inherited.preserved,
            extra_env: inherited.extra_env,
            notify_socket: inherited.notify_socket,
        })
    }
}

/// Executes this program again from a mount that is read-only, unless it is one already: a container with the host's ids could
/// write to its file otherwise.
pub(super) fn seal() -> Result<(), Error> {
    match rustix::process::geteuid().is_root() {
        true => Ok(coracle_engine::seal().map_err(coracle_engine::Error::from)?),
        false => Ok(()),
    }
}

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    create: CreateArguments,
}

impl Verb for Create {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        seal()?;
        runtime.bundles.create(self.create.request(true)?)?;
        Ok(0)
    }
}
