//! Three threads for one archive: reading (and decompressing), understanding, storing (and hashing).
//!
//! ```text
//! source ──read──▶ [full buffers] ──▶ Feed: the parser's BufRead ──▶ [parsed buffers] ──▶ Sink: hash, write
//!    ▲                                                                                        │
//!    └───────────────────────────────── [empty buffers] ◀─────────────────────────────────────┘
//! ```
//!
//! A fixed number of buffers goes round, so memory is bounded and the slowest of the three sets the pace.
//! An error anywhere ends all three: whoever waits finds its channel closed. A source that blocks for ever is waited for.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::{Error, Result};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 10;

/// Takes the archive's bytes in order.
pub(crate) trait Sink: Send {
    /// The next bytes.
    fn take(&mut self, data: &[u8]) -> Result<()>;
}

/// The parser's end of the pipeline.
pub(crate) struct Feed {
    full: Receiver<io::Result<Vec<u8>>>,
    parsed: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            let stopped = || io::Error::other("the archive is no longer being stored");
            let parsed = std::mem::take(&mut self.current);
            self.at = 0;
            if !parsed.is_empty() {
                self.parsed.send(parsed).map_err(|_| stopped())?;
            }
            match self.full.recv() {
                Ok(Ok(piece)) => {
                    self.ended = piece.is_empty();
                    self.current = piece;
                }
                Ok(Err(error)) => return Err(error),
                // The reading thread ends only after an empty piece or an error, or when the storing one has gone.
                Err(_) => return Err(stopped()),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

/// Runs `parse` on the source while `sink` gets every byte that it has gone past.
/// The sink has them all when `parse` has read up to the end.
pub(crate) fn run<T, S: Sink>(
    mut source: impl Read + Send,
    sink: &mut S,
    parse: impl FnOnce(&mut Feed) -> Result<T>,
) -> Result<T> {
    let (full_in, full) = channel();
    let (parsed, parsed_out) = channel::<Vec<u8>>();
    let (empty_in, empty) = channel();
    for _ in 0..BUFFERS {
        // The receiver is alive: it is this function's own.
        let _ = empty_in.send(Vec::new());
    }
    thread::scope(|scope| {
        thread::Builder::new()
            .name("layer-read".into())
            .spawn_scoped(scope, move || {
                while let Ok(mut buffer) = empty.recv() {
                    buffer.resize(BUFFER, 0);
                    let result = fill(&mut source, &mut buffer);
                    let last = !matches!(result, Ok(length) if length > 0);
                    let piece = result.map(|length| {
                        buffer.truncate(length);
                        buffer
                    });
                    if full_in.send(piece).is_err() || last {
                        return;
                    }
                }
            })
            .map_err(Error::Thread)?;
        let storing = thread::Builder::new()
            .name("layer-store".into())
            .spawn_scoped(scope, move || -> Result<()> {
                while let Ok(buffer) = parsed_out.recv() {
                    sink.take(&buffer)?;
                    // Nobody reads any more when the source has ended.
                    let _ = empty_in.send(buffer);
                }
                Ok(())
            })
            .map_err(Error::Thread)?;
        let mut feed = Feed {
            full,
            parsed,
            current: Vec::new(),
            at: 0,
            ended: false,
        };
        let parsed = parse(&mut feed);
        drop(feed);
        let stored = match storing.join() {
            Ok(stored) => stored,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // If storing failed, the parser's error is only its echo.
        stored?;
        parsed
    })
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
