//! `commit`.

use coracle_engine::request::CommitOptions;

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Commit {
    /// Author of the image
    #[arg(short = 'a', long, value_name = "TEXT")]
    author: Option<String>,
    /// Message in the image's history
    #[arg(short = 'm', long, value_name = "TEXT")]
    message: Option<String>,
    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, …
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Do not freeze the container meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Freeze the container meanwhile (the default)
    #[arg(short = 'p', long, conflicts_with = "no_pause")]
    pause: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
}

impl super::Verb for Commit {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let options = CommitOptions {
            reference: self.reference,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: !self.no_pause,
        };
        output::line(
            door.engine()?
                .commit(&door.find(&self.container)?, &options)?,
        )
        .map(|()| 0)
    }
}
