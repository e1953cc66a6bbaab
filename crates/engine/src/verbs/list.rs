//! `ps`: the containers and what they do.

use coracle_oci::ContainerId;

use crate::Engine;
use crate::answer::{ContainerSummary, Status};
use crate::error::{Error, Result};
use crate::request::{ListFilter, MountKind, NetworkMode};
use crate::state::{self, LastRun, Record};
use crate::status::Observed;

impl Engine {
    /// All records, in no order. A record that cannot be read is passed over: it is `rm -f`'s to deal with.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for name in state::names_in(&self.paths.containers())? {
            let Ok(id) = name.parse::<ContainerId>() else {
                continue;
            };
            match self.record(&id) {
                Ok(record) => records.extend(record),
                Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// The containers that the filter lets through, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] for a filter that does not exist.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerSummary>> {
        check(&filter.filters)?;
        self.sweep()?;
        let all = filter.all
            || filter.last.is_some()
            || filter
                .filters
                .iter()
                .any(|(key, _)| key == "status" || key == "exited");
        let records = if all {
            self.records()?
        } else {
            self.running_records()?
        };
        let mut found = Vec::with_capacity(records.len());
        for record in records {
            let observed = self.observe(&record)?;
            if !all && matches!(observed.status, Status::Created | Status::Exited) {
                continue;
            }
            // A container that removed itself while it was looked at is gone.
            if observed.run.is_none() && !self.paths.config(&record.id).exists() {
                continue;
            }
            found.push(self.summary(record, observed, filter.size)?);
        }
        found.sort_by_key(|summary| std::cmp::Reverse(summary.created));
        let anchors = self.anchors(&filter.filters)?;
        found.retain(|summary| matches(summary, &filter.filters, &anchors));
        if let Some(last) = filter.last {
            found.truncate(last);
        }
        Ok(found)
    }

    /// Only those with a run need be looked at: they have a directory among the runs.
    fn running_records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for name in state::names_in(&self.paths.runs())? {
            let Ok(id) = name.parse::<ContainerId>() else {
                continue;
            };
            match self.record(&id) {
                Ok(record) => records.extend(record),
                Err(Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    fn summary(&self, record: Record, observed: Observed, size: bool) -> Result<ContainerSummary> {
        let last: Option<LastRun> = match observed.status {
            Status::Created => None,
            _ => state::load(&self.paths.last(&record.id))?,
        };
        let health = match (observed.running(), &record.process.health) {
            (Some(_), Some(_)) => self
                .health_of(&record)?
                .map(|health| health.status.as_str().to_owned()),
            _ => None,
        };
        let size = match size {
            true => Some(self.size_of(&record)?),
            false => None,
        };
        let mounts = mounts(&record);
        let networks = vec![network(&record.spec.network).to_owned()];
        Ok(ContainerSummary {
            name: record.name,
            image: record.spec.image,
            command: record.process.args,
            created: record.created,
            exit_code: last
                .as_ref()
                .filter(|_| observed.running().is_none())
                .map(|last| last.exit_code),
            started: observed
                .run
                .as_ref()
                .map(|run| run.started)
                .or(last.as_ref().map(|last| last.started)),
            finished: last
                .as_ref()
                .map(|last| last.finished)
                .filter(|time| *time != 0),
            health,
            ports: record.process.exposed.join(", "),
            labels: record.process.labels,
            mounts,
            networks,
            size,
            status: observed.status,
            id: record.id,
        })
    }

    /// (writable layer, all with the image) in bytes.
    pub(crate) fn size_of(&self, record: &Record) -> Result<(u64, u64)> {
        let upper = crate::root::disk_use(&self.paths.upper(&record.id))?;
        let mut image = 0;
        if let Some(facts) = &record.image {
            let store = self.images()?.store();
            for digest in &facts.layers {
                image += store.layer(digest)?.map_or(0, |layer| layer.content_size);
            }
        }
        Ok((upper, upper + image))
    }

    /// Times of creation that `before` and `since` refer to.
    fn anchors(&self, filters: &[(String, String)]) -> Result<Vec<(String, i128)>> {
        let refer = |(key, value): &(String, String)| -> Result<(String, i128)> {
            Ok((key.clone(), self.existing(&self.find(value)?)?.created))
        };
        filters
            .iter()
            .filter(|(key, _)| key == "before" || key == "since")
            .map(refer)
            .collect()
    }
}

/// What `ps` and `inspect` call the network.
pub(crate) fn network(mode: &NetworkMode) -> &str {
    match mode {
        NetworkMode::Default | NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Container(name) | NetworkMode::Named(name) => name,
    }
}

fn mounts(record: &Record) -> Vec<String> {
    let binds = record
        .spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => Some(source.to_string_lossy().into_owned()),
            _ => None,
        });
    binds
        .chain(record.volumes.iter().map(|volume| volume.name.clone()))
        .collect()
}

const KEYS: [&str; 12] = [
    "id", "name", "label", "status", "ancestor", "exited", "before", "since", "volume", "network",
    "health", "is-task",
];

fn check(filters: &[(String, String)]) -> Result<()> {
    match filters
        .iter()
        .find(|(key, _)| !KEYS.contains(&key.as_str()))
    {
        Some((key, _)) => Err(Error::refused_with(
            format!("unknown filter {key:?}"),
            format!("filters are {}", KEYS.join(", ")),
        )),
        None => Ok(()),
    }
}

/// Values of one key are alternatives, keys add up; labels add up among themselves, as in Docker.
fn matches(
    summary: &ContainerSummary,
    filters: &[(String, String)],
    anchors: &[(String, i128)],
) -> bool {
    let one = |key: &str, value: &str| match key {
        "id" => summary.id.as_str().starts_with(value),
        "name" => summary.name.contains(value.trim_start_matches('/')),
        "label" => match value.split_once('=') {
            Some((label, value)) => summary
                .labels
                .get(label)
                .is_some_and(|found| found == value),
            None => summary.labels.contains_key(value),
        },
        "status" => summary.status.as_str() == value,
        "ancestor" => {
            let tagged = format!("{value}:latest");
            summary.image == value
                || summary.image == tagged
                || summary.image.split(':').next() == Some(value)
        }
        "exited" => {
            summary.status == Status::Exited
                && summary
                    .exit_code
                    .is_some_and(|code| code.to_string() == value)
        }
        "volume" => summary.mounts.iter().any(|mount| mount == value),
        "network" => summary.networks.iter().any(|network| network == value),
        "health" => summary.health.as_deref().unwrap_or("none") == value,
        _ => true,
    };
    let keys = filters
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| *key != "label");
    let each_key = keys.into_iter().all(|key| {
        let mut values = filters.iter().filter(|(other, _)| other == key);
        values.any(|(_, value)| one(key, value))
    });
    let labels = filters
        .iter()
        .filter(|(key, _)| key == "label")
        .all(|(_, value)| one("label", value));
    let order = anchors.iter().all(|(key, time)| match key.as_str() {
        "before" => summary.created < *time,
        _ => summary.created > *time,
    });
    each_key && labels && order
}
