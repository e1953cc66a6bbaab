//! `ps`, `container ls`.

use coracle_engine::answer::{ContainerSummary, Status};
use coracle_engine::request::ListFilter;

use super::filter;
use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short = 'a', long)]
    all: bool,
    /// Only those with KEY=VALUE: id, name, label, status, ancestor, exited, before, since, volume, network, health
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The newest so many, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<String>,
    /// The newest, whether it runs or not
    #[arg(short = 'l', long)]
    latest: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Show sizes
    #[arg(short = 's', long)]
    size: bool,
}

const FILTERS: &[&str] = &[
    "id", "name", "label", "status", "ancestor", "exited", "before", "since", "volume", "network",
    "health",
];

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

impl super::Verb for Ps {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let last = match (&self.last, self.latest) {
            (_, true) => Some(1),
            (Some(text), _) => match text.parse::<i64>() {
                Ok(..=0) => None,
                Ok(count) => Some(count as usize),
                Err(_) => {
                    return Err(Error::Value {
                        option: "--last".into(),
                        problem: format!("{text:?} is not a number"),
                    });
                }
            },
            (None, false) => None,
        };
        let uses_size = self
            .format
            .as_ref()
            .is_some_and(|format| format.contains(".Size"));
        let filter = ListFilter {
            all: self.all || last.is_some(),
            filters: filter::parse(&self.filter, FILTERS)?,
            last,
            size: self.size || uses_size,
        };
        let containers = door.engine()?.list(&filter)?;
        let columns = Columns {
            default: if self.size {
                "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
            } else {
                "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
            },
            headings: HEADINGS,
        };
        let now = units::now();
        let rows: Vec<Row> = containers
            .iter()
            .map(|container| row(container, now, self.no_trunc))
            .collect();
        let format = if self.quiet && self.format.is_none() {
            Some("{{.ID}}")
        } else {
            self.format.as_deref()
        };
        output::print(&output::render(format, &columns, &rows)?)?;
        Ok(0)
    }
}

fn row(container: &ContainerSummary, now: i128, whole: bool) -> Row {
    let line = command_line(&container.command);
    let command = units::quote(&if whole {
        line
    } else {
        units::ellipsis(&line, 20)
    });
    let id = if whole {
        container.id.as_str()
    } else {
        container.id.short()
    };
    let image = if whole {
        container.image.clone()
    } else {
        short_image(&container.image)
    };
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            if whole {
                mount.clone()
            } else {
                units::ellipsis(mount, 15)
            }
        })
        .collect();
    let volumes = container
        .mounts
        .iter()
        .filter(|mount| !mount.starts_with('/'))
        .count();
    let size = container.size.map_or_else(
        || "0B".to_owned(),
        |(layer, all)| {
            format!(
                "{} (virtual {})",
                units::human_size(layer),
                units::human_size(all)
            )
        },
    );
    Row::new([
        ("ID", id.into()),
        ("Names", container.name.as_str().into()),
        ("Image", image.into()),
        ("Command", command.into()),
        ("CreatedAt", units::created_at(container.created).into()),
        (
            "RunningFor",
            format!("{} ago", units::human_duration(now - container.created)).into(),
        ),
        ("Ports", container.ports.as_str().into()),
        ("State", container.status.as_str().into()),
        ("Status", status(container, now).into()),
        ("Size", size.into()),
        ("Mounts", mounts.join(",").into()),
        ("LocalVolumes", volumes.to_string().into()),
        ("Networks", container.networks.join(",").into()),
    ])
    .with_labels(&container.labels)
}

/// The words of a command; those with a space in them between quotes, as Docker shows them.
fn command_line(words: &[String]) -> String {
    let word = |word: &String| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// An image that was named by its digest is shown by the digest's short form.
fn short_image(image: &str) -> String {
    match image.strip_prefix("sha256:") {
        Some(digest) => digest.chars().take(12).collect(),
        None => image.to_owned(),
    }
}

/// `Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`, …
fn status(container: &ContainerSummary, now: i128) -> String {
    let since = |time: Option<i128>| units::human_duration(now - time.unwrap_or(now));
    match container.status {
        Status::Created => "Created".into(),
        Status::Paused => format!("Up {} (Paused)", since(container.started)),
        Status::Running => {
            let health = match container.health.as_deref() {
                Some("starting") => " (health: starting)".to_owned(),
                Some(health @ ("healthy" | "unhealthy")) => format!(" ({health})"),
                _ => String::new(),
            };
            format!("Up {}{health}", since(container.started))
        }
        Status::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                container.exit_code.unwrap_or(0),
                since(container.finished)
            )
        }
        Status::Exited => match container.finished {
            Some(_) => format!(
                "Exited ({}) {} ago",
                container.exit_code.unwrap_or(0),
                since(container.finished)
            ),
            None => format!("Exited ({})", container.exit_code.unwrap_or(0)),
        },
        Status::Removing => "Removal In Progress".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SECOND: i128 = 1_000_000_000;

    fn container() -> ContainerSummary {
        ContainerSummary {
            id: "0123456789ab".repeat(6)[..64].parse().expect("64 digits"),
            name: "web".into(),
            image: "docker.io/library/nginx:1".into(),
            command: vec!["sh".into(), "-c".into(), "sleep 1000000 && true".into()],
            created: 1000 * SECOND,
            status: Status::Running,
            exit_code: None,
            started: Some(1010 * SECOND),
            finished: None,
            health: None,
            ports: "0.0.0.0:80->80/tcp".into(),
            labels: BTreeMap::from([("tier".into(), "front".into())]),
            mounts: vec!["data".into(), "/srv/some/long/path".into()],
            networks: vec!["none".into()],
            size: None,
        }
    }

    #[test]
    fn the_table_reads_as_dockers() {
        let columns = Columns {
            default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
            headings: HEADINGS,
        };
        let now = 1100 * SECOND;
        let text =
            output::render(None, &columns, &[row(&container(), now, false)]).expect("renders");
        let expected = "\
CONTAINER ID   IMAGE                       COMMAND                  CREATED              STATUS              PORTS                NAMES
0123456789ab   docker.io/library/nginx:1   \"sh -c 'sleep 100000…\"   About a minute ago   Up About a minute   0.0.0.0:80->80/tcp   web
";
        assert_eq!(text, expected);
        let format = "{{.Names}} {{.Label \"tier\"}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}} {{.State}} {{.Networks}}";
        let text = output::render(Some(format), &columns, &[row(&container(), now, false)])
            .expect("renders");
        assert_eq!(
            text,
            "web front tier=front data,/srv/some/long… 1 running none\n"
        );
    }

    #[test]
    fn every_status_has_dockers_words() {
        let now = 1100 * SECOND;
        let with = |change: fn(&mut ContainerSummary)| {
            let mut container = container();
            change(&mut container);
            status(&container, now)
        };
        assert_eq!(with(|c| c.status = Status::Created), "Created");
        assert_eq!(
            with(|c| c.status = Status::Paused),
            "Up About a minute (Paused)"
        );
        assert_eq!(
            with(|c| c.health = Some("healthy".into())),
            "Up About a minute (healthy)"
        );
        assert_eq!(
            with(|c| c.health = Some("starting".into())),
            "Up About a minute (health: starting)"
        );
        let exited = with(|c| {
            c.status = Status::Exited;
            c.exit_code = Some(137);
            c.finished = Some(1097 * SECOND);
        });
        assert_eq!(exited, "Exited (137) 3 seconds ago");
        assert_eq!(with(|c| c.status = Status::Removing), "Removal In Progress");
    }
}
