//! Events: one JSON document a line, appended to one file by whoever changes something.
//!
//! An append of one line with O_APPEND is whole. A command that finds it longer than 4 MiB renames it to `events.log.1`; a
//! reader that follows notices by the inode. Losing the last lines in a power cut is accepted: no fsync.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Engine;
use crate::answer::Event;
use crate::error::{Error, Result};
use crate::state::{self, Record};

const ROTATE_AT: u64 = 4 << 20;
/// Between two looks of a reader that follows and has no inotify watch to wake it.
const PATIENCE: Duration = Duration::from_millis(50);

/// An event in the making.
pub(crate) struct Happening(Event);

impl Happening {
    pub(crate) fn container(action: &str, record: &Record) -> Self {
        let mut attributes = record.process.labels.clone();
        attributes.insert("name".into(), record.name.clone());
        attributes.insert("image".into(), record.spec.image.clone());
        Self::new("container", action, record.id.as_str(), attributes)
    }

    pub(crate) fn new(
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        let (kind, action, id) = (kind.into(), action.into(), id.into());
        Happening(Event {
            time: state::now(),
            kind,
            action,
            id,
            attributes,
        })
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.attributes.insert(key.into(), value.into());
        self
    }
}

/// Opens the log for appending; the one that has grown too long becomes the old one first.
fn open_log(path: &Path) -> std::io::Result<File> {
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    };
    let file = append()?;
    if file.metadata()?.len() <= ROTATE_AT {
        return Ok(file);
    }
    std::fs::rename(path, path.with_extension("log.1"))?;
    append()
}

impl Engine {
    /// Appends the event.
    pub(crate) fn happened(&self, happening: Happening) -> Result<()> {
        let path = self.paths.events();
        let mut line = serde_json::to_vec(&happening.0).map_err(|source| Error::Damaged {
            path: path.clone(),
            source,
        })?;
        line.push(b'\n');
        let append = || -> std::io::Result<()> {
            let mut file = match self.events.get() {
                Some(file) => file,
                None => {
                    let file = open_log(&path)?;
                    self.events.get_or_init(|| file)
                }
            };
            file.write_all(&line)
        };
        append().map_err(|source| Error::file("appending to", &path, source))
    }

    /// The events from `since` to `until` (Unix time in nanoseconds); with `follow` it goes on, until `until` if that
    /// is given.
    ///
    /// # Errors
    /// [`Error::File`] when the log cannot be read.
    pub fn events(&self, since: Option<i128>, until: Option<i128>, follow: bool) -> Result<Events> {
        let path = self.paths.events();
        let now = state::now();
        // Without --since, docker events shows only what is still to come.
        let since = since.unwrap_or(if follow { now } else { i128::MIN });
        let mut events = Events {
            path: path.clone(),
            reader: None,
            inode: 0,
            since,
            until,
            follow,
            line: Vec::new(),
        };
        let older = path.with_extension("log.1");
        if since < now
            && let Ok(file) = File::open(&older)
        {
            events.reader = Some(BufReader::new(file));
        }
        Ok(events)
    }
}

/// Events in order; ends when there are no more, or never when it follows.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    inode: u64,
    since: i128,
    until: Option<i128>,
    follow: bool,
    line: Vec<u8>,
}

impl Events {
    /// Opens the current log if it is another file than the one read last.
    fn reopen(&mut self) -> Result<bool> {
        match File::open(&self.path) {
            Ok(file) => {
                let inode = file
                    .metadata()
                    .map_err(|source| Error::file("reading", &self.path, source))?
                    .ino();
                if inode == self.inode {
                    return Ok(false);
                }
                self.inode = inode;
                self.reader = Some(BufReader::new(file));
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::file("opening", &self.path, source)),
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(reader) = &mut self.reader {
                reader
                    .read_until(b'\n', &mut self.line)
                    .map_err(|source| Error::file("reading", &self.path, source))?;
                if self.line.last() == Some(&b'\n') {
                    // A line that does not parse was cut by a crash: there is nothing to tell of it.
                    let event = serde_json::from_slice::<Event>(&self.line).ok();
                    self.line.clear();
                    match event {
                        Some(event) if self.until.is_some_and(|until| event.time > until) => {
                            return Ok(None);
                        }
                        Some(event) if event.time >= self.since => return Ok(Some(event)),
                        _ => continue,
                    }
                }
            }
            if self.reopen()? {
                self.line.clear();
                continue;
            }
            if !self.follow || self.until.is_some_and(|until| state::now() > until) {
                return Ok(None);
            }
            std::thread::sleep(PATIENCE);
        }
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}
