//! `rmi`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Rmi {
    /// Also when a stopped container was made of it, or several names mean it
    #[arg(short = 'f', long)]
    force: bool,
    /// Name or id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl super::Verb for Rmi {
    fn run(self, door: &Door) -> Result<u8, Error> {
        for_each(&self.images, |image| {
            let lines = door.engine()?.remove_image(image, self.force)?;
            output::print(
                &lines
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            )
        })
    }
}
