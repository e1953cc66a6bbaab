//! `events`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Runtime, Verb};
use crate::error::Error;
use crate::output;
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Print what it uses once, and end
    #[arg(long)]
    stats: bool,
    /// How often its use is printed
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Events {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        let bundles = &runtime.bundles;
        if self.stats {
            return output::line(bundles.stats(&self.id)?).map(|()| 0);
        }
        let interval = units::parse_duration(&self.interval).map_err(Error::value("--interval"))?;
        if interval == 0 {
            return Err(Error::Value {
                option: "--interval".into(),
                problem: "it is above 0".into(),
            });
        }
        let timeout = Timespec {
            tv_sec: (interval / 1_000_000_000).cast_signed(),
            tv_nsec: (interval % 1_000_000_000).cast_signed(),
        };
        let failed = |source: Errno| Error::Terminal {
            action: "wait for events",
            source: source.into(),
        };
        let (watch, mut kills) = bundles.oom_watch(&self.id)?;
        loop {
            let mut watched: Vec<PollFd<'_>> = watch
                .iter()
                .map(|fd| PollFd::new(fd, PollFlags::IN))
                .collect();
            let ready = match poll(&mut watched, Some(&timeout)) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error)),
            };
            let Some(now) = bundles.oom_kills(&self.id)? else {
                return Ok(0);
            };
            if ready == 0 {
                output::line(bundles.stats(&self.id)?)?;
            } else if let Some(fd) = &watch {
                // Only that there is something to read counts.
                let mut buffer = [0u8; 4096];
                match rustix::io::read(fd, &mut buffer) {
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            if now > kills {
                kills = now;
                output::line(serde_json::json!({ "type": "oom", "id": self.id }))?;
            }
        }
    }
}
