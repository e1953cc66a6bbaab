//! `save`.

use coracle_engine::image::SaveFormat;

use crate::archive_output;
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Save {
    /// Write to this file, not to standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<String>,
    /// docker-archive (which OCI tools read too) or oci-archive
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: String,
    /// Name or id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl super::Verb for Save {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let format = match self.format.as_str() {
            "docker-archive" | "docker" => SaveFormat::Docker,
            "oci-archive" | "oci" => SaveFormat::Oci,
            other => {
                let problem = format!("{other:?} is not docker-archive or oci-archive");
                return Err(Error::Value {
                    option: "--format".into(),
                    problem,
                });
            }
        };
        let images = door.engine()?.images()?;
        archive_output::write(self.output.as_deref(), |out| {
            Ok(images
                .save(&self.images, format, out)
                .map_err(coracle_engine::Error::from)?)
        })?;
        Ok(0)
    }
}
