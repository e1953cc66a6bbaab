//! `create`; what `run` does first is here too.

use std::io::Write as _;

use coracle_engine::Created;

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::spec::{Caller, ContainerArguments};

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Print nothing while an image is fetched
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    container: ContainerArguments,
}

impl super::Verb for Create {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let created = create(self.container, door)?;
        output::line(&created.id)?;
        Ok(0)
    }
}

/// Makes sure that a container with the host's ids cannot write to this program, before anything is made: it may
/// execute this program again, from the beginning.
pub(super) fn seal(arguments: &ContainerArguments, door: &Door) -> Result<(), Error> {
    let shares = arguments.privileged || arguments.userns.as_deref() == Some("host");
    if shares && !door.is_confined() {
        coracle_engine::seal().map_err(coracle_engine::Error::from)?;
    }
    Ok(())
}

/// Resolves what was typed and makes the container; writes `--cidfile`; warns on standard error.
pub(super) fn create(arguments: ContainerArguments, door: &Door) -> Result<Created, Error> {
    let pull = arguments.pull()?;
    let cidfile = arguments.cidfile.clone();
    let spec = arguments.resolve(&Caller::this()?)?;
    // The file is made before the container, so that of two commands only one goes on.
    let file = cidfile.as_ref().map(|path| {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path);
        file.map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => Error::usage(
                format!("the file {path} of --cidfile exists"),
                "another container may still use it: remove the file, or name another",
            ),
            _ => Error::File {
                action: "make",
                path: path.into(),
                source,
            },
        })
    });
    let file = file.transpose()?;
    let created = door
        .engine()
        .and_then(|engine| Ok(engine.create(spec, pull)?));
    let created = match (created, &cidfile) {
        (Err(error), Some(path)) => {
            // The error of the creation matters more than an empty file that stays.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        (created, _) => created?,
    };
    if let (Some(mut file), Some(path)) = (file, cidfile) {
        file.write_all(created.id.as_str().as_bytes())
            .map_err(Error::file("write", path))?;
    }
    for warning in &created.warnings {
        // A warning that cannot be shown does not stop the container.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    Ok(created)
}
