//! `conform`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::conform::{COLUMNS, Finding, Outcome, Subject};
pub(super) use crate::conform::{INSIDE, inside::main as inside};
use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Conform {
    /// Engine to test: coracle, docker, podman, or a command line that understands the same verbs; may be repeated
    #[arg(long, value_name = "ENGINE", default_value = "coracle")]
    engine: Vec<String>,
    /// json, or table
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Only this column of the table, 1 to 10; may be repeated
    #[arg(long, value_name = "NUMBER")]
    column: Vec<String>,
    /// Test with this image, in place of one that is made
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Directory on the block device whose rates are tested (default: /var/tmp)
    #[arg(long, value_name = "DIR")]
    scratch: Option<String>,
}

impl super::Verb for Conform {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let as_json = match self.format.as_str() {
            "json" => true,
            "table" => false,
            other => {
                return Err(Error::Value {
                    option: "--format".into(),
                    problem: format!("{other:?} is not json or table"),
                });
            }
        };
        let wanted: Vec<u8> = self
            .column
            .iter()
            .map(|text| match text.parse::<u8>() {
                Ok(number @ 1..=10) => Ok(number),
                _ => Err(Error::Value {
                    option: "--column".into(),
                    problem: format!("{text:?} is not a number from 1 to 10"),
                }),
            })
            .collect::<Result<_, _>>()?;
        let scratch = Scratch::make(self.scratch.as_deref())?;
        let mut findings = Vec::new();
        for engine in &self.engine {
            let subject = Subject::new(
                engine,
                command(engine, door)?,
                self.image.clone(),
                scratch.0.clone(),
            )?;
            for column in COLUMNS
                .iter()
                .filter(|column| wanted.is_empty() || wanted.contains(&column.number))
            {
                // Progress; whoever does not want to see it redirects it.
                let _ = writeln!(
                    std::io::stderr(),
                    "{engine}: column {}, {}",
                    column.number,
                    column.feature
                );
                findings.push(column.try_on(&subject));
            }
        }
        if as_json {
            let columns: Vec<_> = findings.iter().map(Finding::document).collect();
            output::line(output::pretty(&json!({"columns": columns})))?;
        } else {
            output::print(&table(&findings))?;
        }
        let failed = findings
            .iter()
            .any(|finding| finding.tested && finding.outcome == Outcome::No);
        Ok(u8::from(failed))
    }
}

/// The command line of an engine; this one's own is this binary, with the same places for its things.
fn command(engine: &str, door: &Door) -> Result<Vec<String>, Error> {
    if engine != "coracle" {
        return Ok(engine.split_whitespace().map(str::to_owned).collect());
    }
    let config = door.config()?;
    let exe = std::env::current_exe().map_err(Error::file("find", "this program"))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(vec![
        text(&exe),
        "--root".into(),
        text(&config.root),
        "--run-root".into(),
        text(&config.run_root),
    ])
}

fn table(findings: &[Finding]) -> String {
    let mut lines = vec!["ENGINE\tCOLUMN\tFEATURE\tANSWER\tEVIDENCE".to_owned()];
    lines.extend(findings.iter().map(|finding| {
        let outcome = finding.outcome.as_str();
        format!(
            "{}\t{}\t{}\t{outcome}\t{}",
            finding.engine,
            finding.column,
            finding.feature,
            finding.summary()
        )
    }));
    output::align(&lines)
}

/// A directory of this run's, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: Option<&str>) -> Result<Self, Error> {
        // The folder for temporary files is often in memory; this one is on a disk.
        let on_disk = Path::new("/var/tmp");
        let parent = match parent {
            Some(parent) => PathBuf::from(parent),
            None if on_disk.is_dir() => on_disk.to_owned(),
            None => std::env::temp_dir(),
        };
        let parent = std::fs::canonicalize(&parent).map_err(Error::file("find", parent))?;
        let path = parent.join(format!("coracle-conform-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(Error::file("make", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "warning: {} is left behind: {error}",
                self.0.display()
            );
        }
    }
}
