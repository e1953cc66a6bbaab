//! `stats`.

use std::time::Duration;

use coracle_engine::answer::{ContainerSummary, Stats as Usage};
use coracle_engine::request::ListFilter;

use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    /// Also those that do not run
    #[arg(short = 'a', long)]
    all: bool,
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Once, not again and again
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Name or id (default: all that run)
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// A usage needs two readings: a CPU percentage is a difference.
const INTERVAL: Duration = Duration::from_secs(1);

impl super::Verb for Stats {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let mut before = self.readings(door)?;
        let screen = !self.no_stream && rustix::termios::isatty(std::io::stdout());
        loop {
            std::thread::sleep(INTERVAL);
            let after = self.readings(door)?;
            let rows: Vec<Row> = after
                .iter()
                .map(|(container, usage)| {
                    let earlier = before.iter().find(|(other, _)| other.id == container.id);
                    row(
                        container,
                        usage.as_ref(),
                        earlier.and_then(|(_, usage)| usage.as_ref()),
                        self.no_trunc,
                    )
                })
                .collect();
            let text = output::render(self.format.as_deref(), &COLUMNS, &rows)?;
            if screen {
                // Home, each line cleared to its end, and all below cleared: no flicker.
                output::print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
            } else {
                output::print(&text)?;
            }
            if self.no_stream {
                return Ok(0);
            }
            before = after;
        }
    }
}

impl Stats {
    fn readings(&self, door: &Door) -> Result<Vec<(ContainerSummary, Option<Usage>)>, Error> {
        let engine = door.engine()?;
        let mut filter = ListFilter {
            all: self.all,
            ..ListFilter::default()
        };
        if !self.containers.is_empty() {
            filter.all = true;
            for name in &self.containers {
                filter
                    .filters
                    .push(("id".into(), door.find(name)?.as_str().into()));
            }
        }
        let containers = engine.list(&filter)?;
        let mut readings = Vec::with_capacity(containers.len());
        for container in containers {
            use coracle_engine::answer::Status;
            let usage = match container.status {
                Status::Running | Status::Paused => match engine.stats(&container.id) {
                    Ok(usage) => Some(usage),
                    // It may have ended since it was listed; a container that was named is still told of.
                    Err(_) if self.containers.is_empty() => None,
                    Err(error) => return Err(error.into()),
                },
                _ => None,
            };
            readings.push((container, usage));
        }
        Ok(readings)
    }
}

fn row(
    container: &ContainerSummary,
    usage: Option<&Usage>,
    before: Option<&Usage>,
    whole: bool,
) -> Row {
    let id = if whole {
        container.id.as_str()
    } else {
        container.id.short()
    };
    let percent = |part: f64, of: f64| {
        if of > 0.0 {
            format!("{:.2}%", part / of * 100.0)
        } else {
            "0.00%".into()
        }
    };
    let cell = |text: Option<String>, missing: &str| text.unwrap_or_else(|| missing.to_owned());
    let cpu = usage.zip(before).map(|(now, before)| {
        percent(
            now.cpu_nanos.saturating_sub(before.cpu_nanos) as f64,
            now.read_at.saturating_sub(before.read_at) as f64,
        )
    });
    let pair = |a: u64, b: u64| format!("{} / {}", units::human_size(a), units::human_size(b));
    let memory = usage.map(|u| {
        format!(
            "{} / {}",
            units::binary_size(u.memory),
            units::binary_size(u.memory_limit)
        )
    });
    Row::new([
        ("ID", id.into()),
        ("Container", id.into()),
        ("Name", container.name.as_str().into()),
        (
            "CPUPerc",
            cell(cpu.or_else(|| usage.map(|_| "0.00%".into())), "--").into(),
        ),
        ("MemUsage", cell(memory, "-- / --").into()),
        (
            "MemPerc",
            cell(
                usage.map(|u| percent(u.memory as f64, u.memory_limit as f64)),
                "--",
            )
            .into(),
        ),
        (
            "NetIO",
            cell(usage.map(|u| pair(u.net_rx, u.net_tx)), "-- / --").into(),
        ),
        (
            "BlockIO",
            cell(usage.map(|u| pair(u.block_read, u.block_write)), "-- / --").into(),
        ),
        ("PIDs", cell(usage.map(|u| u.pids.to_string()), "--").into()),
    ])
}
