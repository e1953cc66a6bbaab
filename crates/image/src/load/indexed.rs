//! An archive that can be read at any position: its headers are read once, its contents where they lie.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use coracle_store::Limits;
use coracle_store::tar::{EntryKind, TarReader};

use super::content::{Content, Names, Origin, Section};
use crate::{Error, Result};

/// Most names in an archive of images: 500 layers of some hundred images, with the three files each that Docker once wrote.
const MAX_NAMES: usize = 200_000;

pub(crate) struct Indexed {
    file: Arc<File>,
    name: String,
    names: Names<(u64, u64)>,
}

impl Indexed {
    pub(crate) fn open(file: File, name: String) -> Result<Indexed> {
        let refused = |reason: String| Error::Archive {
            origin: name.clone(),
            reason,
        };
        let length = file.metadata().map_err(Error::io("look at", &name))?.len();
        let mut names = Names::default();
        let skip_to = Rc::new(Cell::new(0));
        let headers = Headers {
            file: &file,
            position: 0,
            skip_to: skip_to.clone(),
            buffer: Vec::new(),
            used: 0,
        };
        let mut reader = TarReader::new(headers, Limits::default());
        while let Some(entry) = reader
            .next_entry()
            .map_err(|error| refused(described(&error)))?
        {
            let path = String::from_utf8_lossy(&entry.path);
            let link = String::from_utf8_lossy(&entry.link);
            match entry.kind {
                EntryKind::Regular if entry.sparse.is_some() => {
                    return Err(refused(format!("{path:?} is a sparse file")));
                }
                EntryKind::Regular => {
                    let end = entry.data_offset.checked_add(entry.data_size);
                    if end.is_none_or(|end| end > length) {
                        return Err(refused(format!("it ends in the middle of {path:?}")));
                    }
                    names.insert(&path, (entry.data_offset, entry.data_size));
                    skip_to.set(entry.data_offset + entry.data_size);
                }
                EntryKind::Symlink => names.symlink(&path, &link),
                EntryKind::HardLink => names.hard_link(&path, &link),
                _ => {}
            }
            if names.len() > MAX_NAMES {
                return Err(refused(format!("it has more than {MAX_NAMES} files")));
            }
        }
        Ok(Indexed {
            file: Arc::new(file),
            name,
            names,
        })
    }
}

impl Origin for Indexed {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, path: &str) -> Result<Option<Content>> {
        Ok(self.names.get(path).map(|(offset, length)| {
            Content::Section(Section {
                file: self.file.clone(),
                offset: *offset,
                length: *length,
            })
        }))
    }
}

/// An error and its causes in one line.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The file as the header reader sees it. Up to `skip_to` it is handed zeros instead of bytes that nobody looks at, so that the
/// index of a large archive costs a few small reads.
struct Headers<'a> {
    file: &'a File,
    position: u64,
    skip_to: Rc<Cell<u64>>,
    buffer: Vec<u8>,
    used: usize,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const READ: usize = 4 << 10;

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let skip = self.skip_to.get().saturating_sub(self.position);
        if skip > 0 {
            return Ok(&ZEROS[..usize::try_from(skip).unwrap_or(usize::MAX).min(ZEROS.len())]);
        }
        if self.used == self.buffer.len() {
            self.buffer.resize(READ, 0);
            let got = self.file.read_at(&mut self.buffer, self.position)?;
            self.buffer.truncate(got);
            self.used = 0;
        }
        Ok(&self.buffer[self.used..])
    }

    fn consume(&mut self, amount: usize) {
        // What the buffer holds moves on with the position; past its end it is empty and read anew.
        self.used = self.used.saturating_add(amount).min(self.buffer.len());
        self.position += amount as u64;
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}
