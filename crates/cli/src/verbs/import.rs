//! `import`.

use std::fs::File;
use std::io::{self, Read};

use coracle_engine::image::Import as Request;

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, …
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Message in the image's history
    #[arg(short = 'm', long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the files (default: this host's)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Archive of files, plain or compressed; - is standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Name of the image
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
}

impl super::Verb for Import {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let platform = self.platform.as_deref().map(str::parse).transpose();
        let platform =
            platform.map_err(|problem: coracle_engine::oci::PlatformError| Error::Value {
                option: "--platform".into(),
                problem: problem.to_string(),
            })?;
        let request = Request {
            reference: self
                .reference
                .as_deref()
                .map(super::tag::reference)
                .transpose()?,
            changes: self.change,
            message: self.message,
            platform,
        };
        let (archive, name): (Box<dyn Read + Send>, &str) = match self.file.as_str() {
            "-" => (Box::new(io::stdin()), "standard input"),
            file => (
                Box::new(File::open(file).map_err(Error::file("read", file))?),
                file,
            ),
        };
        let image = door
            .engine()?
            .images()?
            .import(archive, name, &request)
            .map_err(coracle_engine::Error::from)?;
        output::line(image.id)?;
        Ok(0)
    }
}
