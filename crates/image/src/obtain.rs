//! From a [`Source`] to an image, loading it only when it is not there yet.
//!
//! A memo remembers which image a file or layout was when it was last loaded: `memos/<sha256 of the source>` holds the file's
//! identity (device, inode, size, modification and change time) and the image's id. The change time cannot be set back by who
//! writes the file, so a memo that fits means the same bytes; one that does not fit, or whose image is gone, is loaded anew.

use std::path::{Path, PathBuf};

use coracle_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::references::entries;
use crate::{Error, Image, ImageId, Images, LoadOptions, Result, Source, document};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memo {
    source: String,
    identity: [i128; 7],
    image: ImageId,
}

impl Images {
    /// The image that a source means. What is not in the store yet is loaded, without a name.
    pub fn obtain(&self, source: &Source, options: &LoadOptions) -> Result<Image> {
        let file = match source {
            Source::Host => return Err(Error::Host("obtained from a store")),
            Source::Local(text) => return self.resolve(text),
            Source::OciLayout { dir, .. } => dir.join("index.json"),
            Source::Archive { path, .. } => path.clone(),
        };
        let (path, text) = self.memo_path(source, options, &file)?;
        // What is not there or cannot be looked at is reported by loading it.
        let before = identity(&file);
        if let Some(identity) = before
            && let Some(memo) = read_memo(&path)
            && (memo.source == text && memo.identity == identity)
            && let Some(record) = self.record(&memo.image)?
            && let Ok(image) = self.image(record, None)
        {
            return Ok(image);
        }
        let image = self.load_source(source, options)?;
        // A file that changed while it was read is loaded again the next time. A pipe has nothing to remember.
        if let Some(identity) = before
            && Some(identity) == self::identity(&file)
        {
            let memo = Memo {
                source: text,
                identity,
                image: image.id,
            };
            let _lock = self.lock()?;
            self.replace(&path, &document::encode(&memo), false)?;
        }
        Ok(image)
    }

    fn memo_path(
        &self,
        source: &Source,
        options: &LoadOptions,
        file: &Path,
    ) -> Result<(PathBuf, String)> {
        let absolute =
            std::path::absolute(file).map_err(Error::io("find the current directory for", file))?;
        let platform = options
            .platform
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        // The debug form says kind and tag without ambiguity.
        let text = format!("{source:?} {} {platform}", absolute.display());
        Ok((
            self.memos_directory()
                .join(Digest::of(text.as_bytes()).hex()),
            text,
        ))
    }

    /// Drops memos of images that are gone. The caller holds the lock.
    pub(crate) fn sweep_memos(&self) -> Result<()> {
        let directory = self.memos_directory();
        for name in entries(&directory)? {
            let path = directory.join(name);
            let stale = match read_memo(&path) {
                Some(memo) => self.record(&memo.image)?.is_none(),
                None => true,
            };
            if stale {
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// What tells a regular file from another and from its own past.
fn identity(file: &Path) -> Option<[i128; 7]> {
    let stat = rustix::fs::stat(file).ok()?;
    let regular =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    regular.then(|| {
        [
            i128::from(stat.st_dev),
            i128::from(stat.st_ino),
            i128::from(stat.st_size),
            i128::from(stat.st_mtime),
            i128::from(stat.st_mtime_nsec),
            i128::from(stat.st_ctime),
            i128::from(stat.st_ctime_nsec),
        ]
    })
}

/// A memo is only ever a shortcut: one that cannot be read is as good as none.
fn read_memo(path: &Path) -> Option<Memo> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
