//! Reading a log while it is written and rotated: docs/format/log.md, "What a reader must bear".
//!
//! [`LogReader::next_entry`] never waits: `None` is the end for now. A follower calls [`LogReader::wait`] between.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;

use super::numbered;
use super::record::{self, LINE_LIMIT, Stream};
use crate::error::{Result, file, system};

const CHUNK: usize = 64 * 1024;

/// Which entries are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Also those that come later.
    pub follow: bool,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Not after this time; the first later entry is the end.
    pub until: Option<Timestamp>,
    /// Of what is there at the beginning, only so many lines from the end (counted before the other conditions).
    pub tail: Option<u64>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Default for LogQuery {
    /// Everything that is there.
    fn default() -> Self {
        LogQuery {
            follow: false,
            since: None,
            until: None,
            tail: None,
            stdout: true,
            stderr: true,
        }
    }
}

/// A line, or part of a line (no newline at its end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When the monitor read it.
    pub time: Timestamp,
    /// Where it came from.
    pub stream: Stream,
    /// The text.
    pub text: String,
}

/// Why [`LogReader::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The log may have changed.
    Changed,
    /// Nothing more will come: what `ended` stands for has happened, or `until` has passed. Read to the end and stop.
    Ended,
}

/// A position in a log and its rotated files.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    current: Option<Source>,
    /// Newer files that were there at the beginning, oldest first.
    newer: VecDeque<Source>,
    watch: Option<OwnedFd>,
    done: bool,
}

/// One open file and what was read ahead of it.
#[derive(Debug)]
struct Source {
    file: OwnedFd,
    identity: (u64, u64),
    /// Where the next read begins.
    offset: u64,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already consumed, and already searched for an end of line.
    consumed: usize,
    searched: usize,
    /// Inside a line too long to be one.
    skipping: bool,
}

impl LogReader {
    /// Opens the log at `path`; one that does not exist yet is empty.
    pub fn open(path: &Path, query: LogQuery) -> Result<LogReader> {
        // The watch comes first: what changes after the files are opened is then never missed.
        let watch = match query.follow {
            true => Some(watch(path)?),
            false => None,
        };
        let mut newest_first = files(path)?;
        if let Some(mut wanted) = query.tail {
            for source in &mut newest_first {
                wanted -= source
                    .seek_tail(wanted)
                    .map_err(file("reading the log", path))?;
            }
        }
        let mut newer: VecDeque<Source> = newest_first.into_iter().rev().collect();
        Ok(LogReader {
            path: path.to_path_buf(),
            query,
            current: newer.pop_front(),
            newer,
            watch,
            done: false,
        })
    }

    /// The next entry that is wanted; `None` at the end of what is there.
    pub fn next_entry(&mut self) -> Result<Option<LogEntry>> {
        while !self.done {
            let Some(source) = &mut self.current else {
                if self.advance()? {
                    continue;
                }
                return Ok(None);
            };
            match source.line().map_err(file("reading the log", &self.path))? {
                Some(line) => {
                    let Some((text, stream, time)) = record::parse(line) else {
                        continue;
                    };
                    if self.query.until.is_some_and(|until| time > until) {
                        self.done = true;
                        break;
                    }
                    let wanted = match stream {
                        Stream::Stdout => self.query.stdout,
                        Stream::Stderr => self.query.stderr,
                    };
                    if wanted && self.query.since.is_none_or(|since| time >= since) {
                        return Ok(Some(LogEntry { time, stream, text }));
                    }
                }
                None => {
                    if !self.advance()? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Waits until the log changes, or until `ended` (the monitor's pidfd) is readable. Without
    /// [`LogQuery::follow`] it is always [`Wake::Ended`].
    pub fn wait(&mut self, ended: Option<BorrowedFd<'_>>) -> Result<Wake> {
        let Some(watch) = &self.watch else {
            return Ok(Wake::Ended);
        };
        if self.done {
            return Ok(Wake::Ended);
        }
        let timeout = match self.query.until {
            None => None,
            Some(until) => {
                let left = until.duration_since(Timestamp::now());
                if left.is_negative() {
                    return Ok(Wake::Ended);
                }
                Some(Timespec {
                    tv_sec: left.as_secs(),
                    tv_nsec: left.subsec_nanos().into(),
                })
            }
        };
        let mut events = vec![PollFd::new(watch, PollFlags::IN)];
        if let Some(ended) = &ended {
            events.push(PollFd::new(ended, PollFlags::IN));
        }
        match poll(&mut events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("waiting for the log")(error)),
        }
        let over = events.get(1).is_some_and(|e| !e.revents().is_empty());
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(watch, &mut space);
        // Which file changed does not matter: all that may have are looked at. An error other than "none left" shows
        // when the files themselves are read.
        while reader.next().is_ok() {}
        Ok(if over { Wake::Ended } else { Wake::Changed })
    }

    /// The descriptor that is readable when the log may have changed, for callers with their own loop. [`Self::wait`]
    /// must still be called then, to consume what it has to say.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// At the end of the current file: on to the file that follows it, if there is one. Returns whether there is
    /// something new to read.
    fn advance(&mut self) -> Result<bool> {
        if let Some(next) = self.newer.pop_front() {
            self.current = Some(next);
            return Ok(true);
        }
        if !self.query.follow {
            return Ok(false);
        }
        let mut newest_first = files(&self.path)?;
        let Some(current) = &mut self.current else {
            self.current = newest_first.pop();
            return Ok(self.current.is_some());
        };
        let failed = || file("reading the log", &self.path);
        let place = newest_first
            .iter()
            .position(|source| source.identity == current.identity);
        if place == Some(0) {
            return current.restart_if_truncated().map_err(failed());
        }
        // Renamed away: all that was appended before is read first, then all that is newer.
        if current.grew().map_err(failed())? {
            return Ok(true);
        }
        newest_first.truncate(place.unwrap_or(newest_first.len()));
        let Some(next) = newest_first.pop() else {
            return Ok(false);
        };
        self.current = Some(next);
        self.newer = newest_first.into_iter().rev().collect();
        Ok(true)
    }
}

impl Source {
    fn open(path: &Path) -> Result<Source, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&file)?;
        Ok(Source {
            file,
            identity: (status.st_dev, status.st_ino),
            offset: 0,
            buffer: Vec::new(),
            consumed: 0,
            searched: 0,
            skipping: false,
        })
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0))
    }

    fn grew(&self) -> Result<bool, Errno> {
        Ok(self.size()? > self.offset)
    }

    fn restart_if_truncated(&mut self) -> Result<bool, Errno> {
        if self.size()? >= self.offset {
            return self.grew();
        }
        self.offset = 0;
        self.buffer = Vec::new();
        (self.consumed, self.searched, self.skipping) = (0, 0, false);
        Ok(true)
    }

    /// The next complete line without its newline; `None` at the end of the file.
    fn line(&mut self) -> Result<Option<&[u8]>, Errno> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            if let Some(found) = unsearched.iter().position(|byte| *byte == b'\n') {
                let start = self.consumed;
                let end = self.searched + found;
                (self.consumed, self.searched) = (end + 1, end + 1);
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                return Ok(Some(&self.buffer[start..end]));
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            if self.buffer.len() > LINE_LIMIT {
                self.skipping = true;
                self.buffer.clear();
            }
            let kept = self.buffer.len();
            self.searched = kept;
            self.buffer.resize(kept + CHUNK, 0);
            let read = loop {
                match rustix::io::pread(&self.file, &mut self.buffer[kept..], self.offset) {
                    Err(Errno::INTR) => {}
                    other => break other,
                }
            };
            self.buffer.truncate(kept + read.unwrap_or(0));
            let read = read?;
            if read == 0 {
                self.buffer.shrink_to_fit();
                return Ok(None);
            }
            self.offset += read as u64;
        }
    }

    /// Goes to the last `wanted` complete lines. Returns how many there are, at most `wanted`.
    fn seek_tail(&mut self, wanted: u64) -> Result<u64, Errno> {
        let size = self.size()?;
        let mut chunk = vec![0; CHUNK];
        let mut position = size;
        // The newline that ends the last line does not begin one: a line counts when the newline before it is found.
        let mut ends = 0;
        while position > 0 {
            let start = position.saturating_sub(CHUNK as u64);
            // At most CHUNK, so that the conversion is exact.
            let chunk = &mut chunk[..(position - start) as usize];
            let mut filled = 0;
            while filled < chunk.len() {
                match rustix::io::pread(&self.file, &mut chunk[filled..], start + filled as u64) {
                    Ok(0) => return Ok(0),
                    Ok(count) => filled += count,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            for index in (0..chunk.len()).rev() {
                if chunk[index] != b'\n' {
                    continue;
                }
                if ends == wanted {
                    self.offset = start + index as u64 + 1;
                    return Ok(wanted);
                }
                ends += 1;
            }
            position = start;
        }
        self.offset = 0;
        Ok(ends)
    }
}

/// Every file of the log, newest first. One number may be missing: while a rotation renames, the gap wanders from the
/// oldest to the newest, and a file may be seen under two numbers.
fn files(path: &Path) -> Result<Vec<Source>> {
    let mut files: Vec<Source> = Vec::new();
    let mut gaps = 0;
    for number in 0.. {
        match Source::open(&numbered(path, number)) {
            Ok(source) if files.iter().any(|s| s.identity == source.identity) => {}
            Ok(source) => files.push(source),
            Err(Errno::NOENT) if gaps == 0 => gaps = 1,
            Err(Errno::NOENT) => break,
            Err(error) => return Err(file("opening the log", &numbered(path, number))(error)),
        }
    }
    Ok(files)
}

fn watch(path: &Path) -> Result<OwnedFd> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(system("making an inotify instance"))?;
    let events = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::ONLYDIR;
    inotify::add_watch(&watch, directory, events).map_err(file("watching", directory))?;
    Ok(watch)
}

#[cfg(test)]
mod tests {
    use super::super::{JsonFile, LogWriter};
    use super::*;

    struct Log {
        _directory: tempfile::TempDir,
        path: PathBuf,
        writer: LogWriter,
    }

    fn log(max_size: Option<u64>, max_files: u32) -> Log {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("c.log");
        let writer = LogWriter::open(&JsonFile {
            path: path.clone(),
            max_size,
            max_files,
        })
        .expect("opened");
        Log {
            _directory: directory,
            path,
            writer,
        }
    }

    impl Log {
        /// Writes lines named by their number, at that many seconds after the epoch.
        fn write(&mut self, numbers: std::ops::Range<i64>) {
            for n in numbers {
                let stream = if n % 5 == 4 {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                let at = Timestamp::from_second(n).expect("in range");
                let warning = self.writer.write(stream, format!("{n}\n").as_bytes(), at);
                assert_eq!(warning, None);
            }
        }

        fn reader(&self, query: LogQuery) -> LogReader {
            LogReader::open(&self.path, query).expect("opened")
        }
    }

    fn rest(reader: &mut LogReader) -> Vec<i64> {
        let mut numbers = Vec::new();
        while let Some(entry) = reader.next_entry().expect("read") {
            numbers.push(entry.text.trim().parse().expect("a number"));
        }
        numbers
    }

    fn following() -> LogQuery {
        LogQuery {
            follow: true,
            ..LogQuery::default()
        }
    }

    #[test]
    fn all_files_are_read_oldest_first() {
        let mut log = log(Some(400), 10);
        log.write(0..30);
        assert!(numbered(&log.path, 3).exists());
        let mut reader = log.reader(LogQuery::default());
        assert_eq!(rest(&mut reader), (0..30).collect::<Vec<_>>());
        assert_eq!(reader.wait(None).expect("waited"), Wake::Ended);
    }

    #[test]
    fn conditions_select_entries() {
        let mut log = log(Some(400), 10);
        log.write(0..30);
        let at = |second| Some(Timestamp::from_second(second).expect("in range"));
        let all = LogQuery::default;
        let table = [
            (
                LogQuery {
                    tail: Some(0),
                    ..all()
                },
                vec![],
            ),
            (
                LogQuery {
                    tail: Some(1),
                    ..all()
                },
                vec![29],
            ),
            (
                LogQuery {
                    tail: Some(12),
                    ..all()
                },
                (18..30).collect(),
            ),
            (
                LogQuery {
                    tail: Some(30),
                    ..all()
                },
                (0..30).collect(),
            ),
            (
                LogQuery {
                    tail: Some(99),
                    ..all()
                },
                (0..30).collect(),
            ),
            (
                LogQuery {
                    since: at(27),
                    ..all()
                },
                vec![27, 28, 29],
            ),
            (
                LogQuery {
                    until: at(2),
                    ..all()
                },
                vec![0, 1, 2],
            ),
            (
                LogQuery {
                    since: at(10),
                    until: at(11),
                    ..all()
                },
                vec![10, 11],
            ),
            (
                LogQuery {
                    stdout: false,
                    ..all()
                },
                vec![4, 9, 14, 19, 24, 29],
            ),
            (
                LogQuery {
                    stderr: false,
                    tail: Some(3),
                    ..all()
                },
                vec![27, 28],
            ),
        ];
        for (query, expected) in table {
            assert_eq!(rest(&mut log.reader(query.clone())), expected, "{query:?}");
        }
    }

    #[test]
    fn follower_sees_every_line_through_rotations() {
        let mut log = log(Some(300), 50);
        log.write(0..7);
        let mut reader = log.reader(LogQuery {
            tail: Some(2),
            ..following()
        });
        assert_eq!(rest(&mut reader), [5, 6]);
        let mut next = 7;
        for count in [1, 2, 5, 20, 3, 40] {
            log.write(next..next + count);
            assert_eq!(reader.wait(None).expect("waited"), Wake::Changed);
            assert_eq!(rest(&mut reader), (next..next + count).collect::<Vec<_>>());
            next += count;
        }
        assert!(numbered(&log.path, 5).exists());
    }

    #[test]
    fn follower_starts_over_in_a_truncated_file() {
        let mut log = log(Some(300), 1);
        let mut reader = log.reader(following());
        let mut seen = Vec::new();
        for n in 0..20 {
            log.write(n..n + 1);
            seen.extend(rest(&mut reader));
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn follower_waits_for_a_log_that_is_not_there_yet() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("c.log");
        let mut reader = LogReader::open(&path, following()).expect("opened");
        assert!(rest(&mut reader).is_empty());
        let mut writer = LogWriter::open(&JsonFile {
            path,
            max_size: None,
            max_files: 1,
        })
        .expect("opened");
        writer.write(Stream::Stdout, b"7\n", Timestamp::now());
        assert_eq!(reader.wait(None).expect("waited"), Wake::Changed);
        assert_eq!(rest(&mut reader), [7]);
    }

    #[test]
    fn follower_ends_with_the_monitor_and_at_until() {
        let log = log(None, 1);
        let mut reader = log.reader(following());
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        drop(write);
        assert_eq!(
            reader.wait(Some(read.as_fd())).expect("waited"),
            Wake::Ended
        );
        let mut reader = log.reader(LogQuery {
            until: Some(Timestamp::from_second(1).expect("in range")),
            ..following()
        });
        assert_eq!(reader.wait(None).expect("waited"), Wake::Ended);
    }

    #[test]
    fn half_lines_wait_and_damage_is_skipped() {
        let mut log = log(None, 1);
        log.write(0..1);
        let append = |bytes: &[u8]| {
            use std::io::Write;
            std::fs::OpenOptions::new()
                .append(true)
                .open(&log.path)
                .and_then(|mut file| file.write_all(bytes))
                .expect("appended");
        };
        append(b"\0\0\0garbage\n{\"log\":\"1\\n\",\"stream\":\"stdout\",");
        let mut reader = log.reader(following());
        assert_eq!(rest(&mut reader), [0]);
        append(b"\"time\":\"1970-01-01T00:00:01Z\"}\n");
        assert_eq!(rest(&mut reader), [1]);
        append(&vec![b'z'; LINE_LIMIT * 3]);
        append(b"\n");
        append(b"{\"log\":\"2\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:01Z\"}\n");
        assert_eq!(rest(&mut reader), [2]);
    }
}
