//! `history` and `inspect`, in Docker's shapes.

use coracle_oci::Reference;
use serde_json::{Value, json};

use crate::{ImageId, Images, Result, Summary};

/// One step of an image's making, youngest first in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image's id on the top line; the steps below have none.
    pub id: Option<ImageId>,
    /// RFC 3339, where the image says it.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// Bytes of the files in the step's layer; 0 for a step without one.
    pub size: u64,
    /// The message.
    pub comment: String,
    /// The image's names, on the top line.
    pub names: Vec<Reference>,
}

impl Images {
    /// How an image came to be, the youngest step first.
    pub fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        let image = self.resolve(image)?;
        let configuration = self.configuration(&image.id)?;
        let mut layers = image.layers.iter();
        let mut lines: Vec<HistoryLine> = configuration
            .history
            .into_iter()
            .map(|step| HistoryLine {
                id: None,
                created: step.created,
                created_by: step.created_by,
                size: if step.empty_layer {
                    0
                } else {
                    layers.next().map_or(0, |layer| layer.content_size)
                },
                comment: step.comment,
                names: Vec::new(),
            })
            .collect();
        // Layers that the history does not tell of: it is optional.
        lines.extend(layers.map(|layer| HistoryLine {
            id: None,
            created: None,
            created_by: String::new(),
            size: layer.content_size,
            comment: String::new(),
            names: Vec::new(),
        }));
        lines.reverse();
        if let Some(top) = lines.first_mut() {
            top.id = Some(image.id);
            top.names = self.names(&image.id)?;
        }
        Ok(lines)
    }

    /// An image as `docker inspect` shows it: one object.
    pub fn inspect(&self, image: &str) -> Result<Value> {
        let image = self.resolve(image)?;
        let names = self.names(&image.id)?;
        let configuration = self.configuration(&image.id)?;
        let mut repositories: Vec<String> = names.iter().map(Reference::familiar_name).collect();
        repositories.dedup();
        let mut config = serde_json::to_value(&configuration.config).unwrap_or_default();
        if let Value::Object(config) = &mut config {
            // Docker's clients read these without looking whether they are there.
            for (field, empty) in [
                ("User", json!("")),
                ("Env", json!([])),
                ("Cmd", Value::Null),
                ("Entrypoint", Value::Null),
                ("Volumes", Value::Null),
                ("WorkingDir", json!("")),
                ("Labels", Value::Null),
                ("OnBuild", Value::Null),
            ] {
                config.entry(field).or_insert(empty);
            }
        }
        Ok(json!({
            "Id": image.id.to_string(),
            "RepoTags": names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect::<Vec<_>>(),
            "RepoDigests": repositories.iter().map(|name| format!("{name}@{}", image.manifest)).collect::<Vec<_>>(),
            "Parent": "",
            "Comment": configuration.comment,
            "Created": configuration.created,
            "DockerVersion": configuration.docker_version,
            "Author": configuration.author,
            "Config": config,
            "Architecture": configuration.architecture,
            "Variant": configuration.variant,
            "Os": configuration.os,
            "Size": image.size,
            "VirtualSize": image.size,
            "GraphDriver": {
                "Name": format!("{:?}", self.store().driver()).to_lowercase(),
                "Data": Value::Null,
            },
            "RootFS": {
                "Type": configuration.rootfs.kind,
                "Layers": configuration.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "Metadata": { "LastTagTime": Value::Null },
        }))
    }
}

impl Summary {
    /// An image as `docker images` over the API shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "Id": self.id.to_string(),
            "ParentId": "",
            "RepoTags": self.names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect::<Vec<_>>(),
            "RepoDigests": self.names.iter().map(|name| format!("{}@{}", name.familiar_name(), self.manifest)).collect::<Vec<_>>(),
            "Created": self.created,
            "Size": self.size,
            "SharedSize": -1,
            "Containers": -1,
            "Labels": self.labels,
        })
    }
}
