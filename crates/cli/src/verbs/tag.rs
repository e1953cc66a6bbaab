//! `tag`.

use coracle_engine::oci::Reference;

use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Tag {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The name it gets
    #[arg(value_name = "REFERENCE")]
    reference: String,
}

impl super::Verb for Tag {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let reference = reference(&self.reference)?;
        door.engine()?
            .images()?
            .tag(&self.image, &reference)
            .map_err(coracle_engine::Error::from)?;
        Ok(0)
    }
}

/// An image's name as typed.
pub(super) fn reference(text: &str) -> Result<Reference, Error> {
    text.parse()
        .map_err(|source: coracle_engine::oci::ReferenceError| Error::Below {
            action: format!("{text:?} is not the name of an image"),
            source: Box::new(source),
            hint: Some("write for example busybox:1.37 or registry.example/team/app".into()),
        })
}
