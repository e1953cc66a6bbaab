//! Writing a log: lines are made of chunks, a chunk's lines go out in one write, files are rotated.
//!
//! Invariants: nothing here fails the caller, because a container must not stop for its log: what cannot be written
//! is counted and told (docs/format/log.md, "A disk that is full"). Buffers exist only while a line is incomplete.

use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::record::{self, Stream, TEXT_LIMIT};
use super::{JsonFile, numbered};
use crate::error::{Result, file};

/// An open log.
#[derive(Debug)]
pub struct LogWriter {
    options: JsonFile,
    file: OwnedFd,
    size: u64,
    /// Begun lines of standard output and error.
    partial: [Vec<u8>; 2],
    /// Encoded lines not yet written, and the bytes of text in them.
    pending: Vec<u8>,
    pending_text: u64,
    /// Bytes of text lost since the last write that succeeded, and why.
    lost: Option<(u64, Errno)>,
    /// The last write stopped inside a line.
    torn: bool,
    warning: Option<String>,
}

impl LogWriter {
    /// Opens or makes the log; a line that a crash cut off is closed.
    pub fn open(options: &JsonFile) -> Result<LogWriter> {
        let (file, size) =
            open(&options.path, OFlags::empty()).map_err(file("opening the log", &options.path))?;
        let mut last = [b'\n'];
        if size > 0 {
            // A log that can be appended to but not read keeps its half line: readers skip what it damages.
            let _ = rustix::io::pread(&file, &mut last, size - 1);
        }
        Ok(LogWriter {
            options: JsonFile {
                max_files: options.max_files.max(1),
                ..options.clone()
            },
            file,
            size,
            partial: [Vec::new(), Vec::new()],
            pending: Vec::new(),
            pending_text: 0,
            lost: None,
            torn: last != [b'\n'],
            warning: None,
        })
    }

    /// Takes a chunk of `stream`, read at `now`. Returns a warning, once for each cause and gap.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], now: Timestamp) -> Option<String> {
        let time = now.to_string();
        let slot = stream as usize;
        let mut partial = std::mem::take(&mut self.partial[slot]);
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            if partial.is_empty() {
                self.line(line, stream, &time);
            } else {
                partial.extend_from_slice(line);
                self.line(&partial, stream, &time);
                partial.clear();
            }
            rest = after;
        }
        partial.extend_from_slice(rest);
        let mut from = 0;
        while partial.len() - from > TEXT_LIMIT {
            let cut = from + record::cut(&partial[from..]);
            self.append(&partial[from..cut], stream, &time);
            from = cut;
        }
        partial.drain(..from);
        if !partial.is_empty() {
            self.partial[slot] = partial;
        }
        self.flush();
        self.warning.take()
    }

    /// The streams have ended: begun lines are written as they are.
    pub fn finish(&mut self, now: Timestamp) -> Option<String> {
        let time = now.to_string();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                self.append(&partial, stream, &time);
            }
        }
        self.flush();
        self.warning.take()
    }

    /// A complete line, cut where it is too long.
    fn line(&mut self, mut text: &[u8], stream: Stream, time: &str) {
        while text.len() > TEXT_LIMIT {
            let (head, tail) = text.split_at(record::cut(text));
            self.append(head, stream, time);
            text = tail;
        }
        self.append(text, stream, time);
    }

    fn append(&mut self, text: &[u8], stream: Stream, time: &str) {
        let start = self.pending.len();
        record::append(&mut self.pending, text, stream, time);
        let text_length = text.len() as u64;
        if let Some(limit) = self.options.max_size
            && self.size + self.pending.len() as u64 > limit
            && self.size + start as u64 > 0
        {
            let next = self.pending.split_off(start);
            self.flush();
            self.rotate();
            self.pending = next;
        }
        self.pending_text += text_length;
    }

    fn flush(&mut self) {
        let lines = std::mem::take(&mut self.pending);
        let text = std::mem::take(&mut self.pending_text);
        if lines.is_empty() {
            return;
        }
        let mut bytes = lines;
        if let Some((lost, why)) = self.lost {
            let mut note = Vec::new();
            let text = format!("[coracle: {lost} bytes of output were lost: {}]\n", io(why));
            let time = Timestamp::now().to_string();
            record::append(&mut note, text.as_bytes(), Stream::Stderr, &time);
            note.append(&mut bytes);
            bytes = note;
        }
        if self.torn {
            bytes.insert(0, b'\n');
        }
        let mut written = 0;
        let result = loop {
            if written == bytes.len() {
                break Ok(());
            }
            match rustix::io::write(&self.file, &bytes[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => break Err(error),
            }
        };
        self.size += written as u64;
        if written > 0 {
            self.torn = bytes[written - 1] != b'\n';
        }
        match result {
            Ok(()) => self.lost = None,
            Err(error) => {
                // Which lines of a short write arrived is not worth knowing: the gap is told as at most this long.
                if self.lost.is_none() {
                    self.warn("writing the log", error);
                }
                let before = self.lost.map_or(0, |(bytes, _)| bytes);
                self.lost = Some((before + text, error));
            }
        }
    }

    fn rotate(&mut self) {
        let result = if self.options.max_files == 1 {
            rustix::fs::ftruncate(&self.file, 0).map(|()| None)
        } else {
            self.shift().map(Some)
        };
        // Also after a failure: the next attempt is a whole file later, not at the next line.
        self.size = 0;
        match result {
            Ok(None) => self.torn = false,
            Ok(Some(file)) => {
                self.file = file;
                self.torn = false;
            }
            Err(error) => self.warn("rotating the log", error),
        }
    }

    fn shift(&self) -> Result<OwnedFd, Errno> {
        let path = &self.options.path;
        for number in (1..self.options.max_files).rev() {
            match rustix::fs::rename(numbered(path, number - 1), numbered(path, number)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let opened = open(path, OFlags::EXCL);
        if opened.is_err() {
            // The old file stays the newest, so that readers find what is appended to it.
            let _ = rustix::fs::rename(numbered(path, 1), path);
        }
        opened.map(|(file, _)| file)
    }

    fn warn(&mut self, doing: &str, error: Errno) {
        let path = self.options.path.display();
        self.warning = Some(format!("{doing} {path} failed: {}", io(error)));
    }
}

fn io(error: Errno) -> std::io::Error {
    error.into()
}

fn open(path: &Path, more: OFlags) -> Result<(OwnedFd, u64), Errno> {
    let flags =
        OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    let size = rustix::fs::fstat(&file)?.st_size;
    Ok((file, u64::try_from(size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log {
        directory: tempfile::TempDir,
        options: JsonFile,
    }

    impl Log {
        fn new(max_size: Option<u64>, max_files: u32) -> Log {
            let directory = tempfile::tempdir().expect("a directory");
            let options = JsonFile {
                path: directory.path().join("c.log"),
                max_size,
                max_files,
            };
            Log { directory, options }
        }

        fn texts(&self, number: u32) -> Vec<String> {
            let bytes = std::fs::read(numbered(&self.options.path, number)).expect("a log");
            bytes
                .split(|b| *b == b'\n')
                .filter_map(record::parse)
                .map(|(text, _, _)| text)
                .collect()
        }
    }

    fn now() -> Timestamp {
        Timestamp::now()
    }

    #[test]
    fn lines_are_assembled_from_chunks_of_each_stream() {
        let log = Log::new(None, 1);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        for (stream, chunk) in [
            (Stream::Stdout, &b"one\ntw"[..]),
            (Stream::Stderr, b"err"),
            (Stream::Stdout, b"o\n"),
            (Stream::Stderr, b"or\nrest"),
        ] {
            assert_eq!(writer.write(stream, chunk, now()), None);
        }
        assert_eq!(log.texts(0), ["one\n", "two\n", "error\n"]);
        assert_eq!(writer.finish(now()), None);
        assert_eq!(log.texts(0).last().map(String::as_str), Some("rest"));
    }

    #[test]
    fn long_lines_are_cut_at_16384_bytes() {
        let log = Log::new(None, 1);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        let mut text = vec![b'x'; 40_000];
        text.push(b'\n');
        for chunk in text.chunks(7_000) {
            assert_eq!(writer.write(Stream::Stdout, chunk, now()), None);
        }
        assert_eq!(writer.write(Stream::Stdout, &text, now()), None);
        let lengths: Vec<usize> = log.texts(0).iter().map(String::len).collect();
        assert_eq!(lengths, [16_384, 16_384, 7_233, 16_384, 16_384, 7_233]);
    }

    #[test]
    fn files_are_rotated_at_whole_lines_and_the_oldest_is_dropped() {
        let log = Log::new(Some(300), 3);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        let all: String = (0..20).map(|n| format!("line {n:02}\n")).collect();
        assert_eq!(writer.write(Stream::Stdout, all.as_bytes(), now()), None);
        let mut kept = Vec::new();
        for number in [2, 1, 0] {
            let size = std::fs::metadata(numbered(&log.options.path, number)).expect("a file");
            assert!(size.len() <= 300);
            kept.extend(log.texts(number));
        }
        assert!(!numbered(&log.options.path, 3).exists());
        assert_eq!(kept.last().map(String::as_str), Some("line 19\n"));
        let first = 20 - kept.len();
        let expected: Vec<String> = (first..20).map(|n| format!("line {n:02}\n")).collect();
        assert_eq!(kept, expected);
        assert!(kept.len() >= 6);
    }

    #[test]
    fn single_file_is_truncated() {
        let log = Log::new(Some(300), 1);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        for n in 0..20 {
            writer.write(Stream::Stdout, format!("line {n:02}\n").as_bytes(), now());
        }
        let names: Vec<_> = std::fs::read_dir(log.directory.path())
            .expect("listed")
            .collect();
        assert_eq!(names.len(), 1);
        assert_eq!(log.texts(0).last().map(String::as_str), Some("line 19\n"));
    }

    #[test]
    fn line_longer_than_a_file_still_gets_one_of_its_own() {
        let log = Log::new(Some(100), 2);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        let long = [&[b'y'; 500][..], b"\n"].concat();
        writer.write(Stream::Stdout, b"short\n", now());
        writer.write(Stream::Stdout, &long, now());
        assert_eq!(log.texts(1), ["short\n"]);
        assert_eq!(log.texts(0)[0].len(), 501);
    }

    #[test]
    fn half_line_of_a_crash_is_closed() {
        let log = Log::new(None, 1);
        std::fs::write(&log.options.path, b"{\"log\":\"hal").expect("written");
        let mut writer = LogWriter::open(&log.options).expect("opened");
        writer.write(Stream::Stdout, b"whole\n", now());
        assert_eq!(log.texts(0), ["whole\n"]);
    }

    #[test]
    fn lost_output_is_told_in_the_log_and_once_as_a_warning() {
        let log = Log::new(None, 1);
        let mut writer = LogWriter::open(&log.options).expect("opened");
        let full = rustix::fs::open("/dev/full", OFlags::WRONLY, Mode::empty()).expect("/dev/full");
        let good = std::mem::replace(&mut writer.file, full);
        let first = writer.write(Stream::Stdout, b"gone\n", now());
        assert!(first.is_some_and(|text| text.contains("No space left on device")));
        assert_eq!(writer.write(Stream::Stdout, b"too\n", now()), None);
        writer.file = good;
        assert_eq!(writer.write(Stream::Stdout, b"back\n", now()), None);
        assert_eq!(
            log.texts(0),
            [
                "[coracle: 9 bytes of output were lost: No space left on device (os error 28)]\n",
                "back\n"
            ]
        );
    }
}
