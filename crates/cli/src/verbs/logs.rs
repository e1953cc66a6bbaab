//! `logs`.

use std::io::{self, Write as _};

use coracle_engine::Stream;
use coracle_engine::request::LogOptions;

use crate::door::Door;
use crate::error::Error;
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only lines since a time (2026-01-31T12:00:00Z) or for so long (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines before a time, or until so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last so many lines (default: all)
    #[arg(short = 'n', long, value_name = "NUMBER")]
    tail: Option<String>,
    /// Begin each line with its time
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl super::Verb for Logs {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let time = |option: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| units::parse_time(text, units::now()))
                .transpose()
                .map_err(Error::value(option))
        };
        let tail = match self.tail.as_deref() {
            None | Some("all" | "-1") => None,
            Some(text) => Some(text.parse().map_err(|_| Error::Value {
                option: "--tail".into(),
                problem: format!("{text:?} is not a number of lines, or all"),
            })?),
        };
        let options = LogOptions {
            follow: self.follow,
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
            tail,
        };
        let lines = door
            .engine()?
            .logs(&door.find(&self.container)?, &options)?;
        // Following shows each line when it comes; otherwise whole blocks are written at once.
        let capacity = if self.follow { 0 } else { 64 << 10 };
        let mut out = io::BufWriter::with_capacity(capacity, io::stdout().lock());
        let mut err = io::stderr().lock();
        for line in lines {
            let line = line?;
            let mut bytes = Vec::with_capacity(line.bytes.len() + 40);
            if self.timestamps {
                bytes.extend_from_slice(units::rfc3339(line.time).as_bytes());
                bytes.push(b' ');
            }
            bytes.extend_from_slice(&line.bytes);
            match line.stream {
                Stream::Stdout => out.write_all(&bytes).map_err(Error::output)?,
                Stream::Stderr => {
                    // The order of the two streams is kept where both go to one place.
                    out.flush().map_err(Error::output)?;
                    err.write_all(&bytes).map_err(|source| Error::Terminal {
                        action: "write to standard error",
                        source,
                    })?;
                }
            }
        }
        out.flush().map_err(Error::output)?;
        Ok(0)
    }
}
