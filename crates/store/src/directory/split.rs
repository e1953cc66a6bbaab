//! What of an archive is not file data, so that the archive can be made again byte for byte.
//!
//! ```text
//! zstd of records:  'R' u32 length, bytes
//!                   'F' u32 inode, u64 offset, u64 length, u16 path length, path
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::{Description, ROOT, SPLIT, unhex};
use crate::{Error, Result};

/// Raw bytes are collected up to here, then written.
const PIECE: usize = 64 << 10;

/// A BufRead that records what goes through it, except for the data that is kept as files.
pub(super) struct Recorder<R> {
    inner: R,
    /// Bytes that come next and are not to be recorded.
    data: u64,
    raw: Vec<u8>,
    out: zstd::stream::write::Encoder<'static, CountingFile>,
    /// A failure inside consume(), which cannot report it.
    failed: Option<io::Error>,
}

struct CountingFile {
    file: File,
    size: u64,
}

impl Write for CountingFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.file.write(data)?;
        self.size += length as u64;
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<R: BufRead> Recorder<R> {
    pub(super) fn new(inner: R, layer: &Path) -> Result<Recorder<R>> {
        let path = layer.join(SPLIT);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let file = CountingFile { file, size: 0 };
        let out = zstd::stream::write::Encoder::new(file, 1).map_err(Error::io("write", &path))?;
        Ok(Recorder {
            inner,
            data: 0,
            raw: Vec::with_capacity(PIECE),
            out,
            failed: None,
        })
    }

    /// The next `length` bytes of the archive are `offset..` of this file.
    pub(super) fn data(
        &mut self,
        inode: u32,
        path: &[u8],
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.flush_raw()?;
        self.out.write_all(b"F")?;
        self.out.write_all(&inode.to_le_bytes())?;
        self.out.write_all(&offset.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        // A path in the tree is at most PATH_MAX long.
        self.out.write_all(&(path.len() as u16).to_le_bytes())?;
        self.out.write_all(path)?;
        self.data += length;
        Ok(())
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.raw.is_empty() {
            self.out.write_all(b"R")?;
            self.out.write_all(&(self.raw.len() as u32).to_le_bytes())?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }

    /// Ends the records; how many bytes they take.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush_raw()?;
        Ok(self.out.finish()?.size)
    }
}

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        let skipped = self.data.min(amount as u64);
        self.data -= skipped;
        if amount as u64 > skipped {
            // The piece is still buffered: fill_buf was just called by whoever consumes it, so it neither blocks nor fails anew.
            match self.inner.fill_buf() {
                Ok(piece) => self.raw.extend_from_slice(&piece[skipped as usize..amount]),
                Err(error) => self.failed = Some(error),
            }
        }
        self.inner.consume(amount);
        if self.raw.len() >= PIECE
            && let Err(error) = self.flush_raw()
        {
            self.failed = Some(error);
        }
    }
}

/// The archive of a directory layer, made again.
#[derive(Debug)]
pub(crate) struct SplitReader {
    records: BufReader<Decoder>,
    layer: OwnedFd,
    moved: BTreeMap<u32, String>,
    current: Current,
}

/// The decoder has no Debug of its own.
struct Decoder(zstd::stream::read::Decoder<'static, BufReader<File>>);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[derive(Debug)]
enum Current {
    None,
    Raw(u64),
    File { file: File, at: u64, left: u64 },
}

impl SplitReader {
    pub(crate) fn open(layer: &Path) -> Result<SplitReader> {
        let description = Description::load(layer)?;
        let path = layer.join(SPLIT);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Damaged {
                path: path.clone(),
                reason: "it is missing".into(),
            },
            _ => Error::io("open", &path)(error),
        })?;
        let decoder = zstd::stream::read::Decoder::new(file).map_err(Error::io("read", &path))?;
        let directory = rustix::fs::openat(
            CWD,
            layer,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::io("open", layer))?;
        Ok(SplitReader {
            records: BufReader::with_capacity(64 << 10, Decoder(decoder)),
            layer: directory,
            moved: description.moved,
            current: Current::None,
        })
    }

    /// False at the end.
    fn next(&mut self) -> io::Result<bool> {
        let Some(kind) = self.records.fill_buf()?.first().copied() else {
            return Ok(false);
        };
        self.records.consume(1);
        self.current = match kind {
            b'R' => Current::Raw(u64::from(u32::from_le_bytes(self.array()?))),
            b'F' => {
                let inode = u32::from_le_bytes(self.array()?);
                let at = u64::from_le_bytes(self.array()?);
                let left = u64::from_le_bytes(self.array()?);
                let mut path = vec![0; usize::from(u16::from_le_bytes(self.array()?))];
                self.records.read_exact(&mut path)?;
                Current::File {
                    file: self.file(inode, &path)?,
                    at,
                    left,
                }
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the layer's split.zst is damaged",
                ));
            }
        };
        Ok(true)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut raw = [0; N];
        self.records.read_exact(&mut raw)?;
        Ok(raw)
    }

    fn file(&self, inode: u32, path: &[u8]) -> io::Result<File> {
        let moved = match self.moved.get(&inode) {
            Some(moved) => Some(unhex(moved).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the layer's layer.json is damaged",
                )
            })?),
            None => None,
        };
        let path = moved.unwrap_or_else(|| [ROOT.as_bytes(), b"/", path].concat());
        let file = rustix::fs::openat2(
            &self.layer,
            &path[..],
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?;
        Ok(File::from(file))
    }
}

impl Read for SplitReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Current::Raw(left) if *left > 0 => {
                    let length = (buffer.len() as u64).min(*left) as usize;
                    let length = self.records.read(&mut buffer[..length])?;
                    if length == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the layer's split.zst is cut off",
                        ));
                    }
                    *left -= length as u64;
                    return Ok(length);
                }
                Current::File { file, at, left } if *left > 0 => {
                    let length = (buffer.len() as u64).min(*left) as usize;
                    let length = file.read_at(&mut buffer[..length], *at)?;
                    if length == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "a file of the layer is too short",
                        ));
                    }
                    *at += length as u64;
                    *left -= length as u64;
                    return Ok(length);
                }
                _ => {
                    if !self.next()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}
