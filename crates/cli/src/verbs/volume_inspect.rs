//! `volume inspect`.

use coracle_engine::answer::Volume;
use serde_json::{Value, json};

use super::inspect;
use crate::door::Door;
use crate::error::Error;
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeInspect {
    /// json, or a Go template
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Name
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl super::Verb for VolumeInspect {
    fn run(self, door: &Door) -> Result<u8, Error> {
        inspect::show_as(&self.names, self.format.as_deref(), |name| {
            Ok(document(&door.engine()?.volume_inspect(name)?))
        })
    }
}

/// A volume in Docker's form.
pub(super) fn document(volume: &Volume) -> Value {
    json!({
        "CreatedAt": units::rfc3339(volume.created),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": null,
        "Scope": "local",
    })
}
