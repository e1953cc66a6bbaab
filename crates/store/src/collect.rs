//! Collecting what nobody uses, and checking what is there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_oci::{Digest, Hasher};

use crate::store::{disk_usage, names};
use crate::temporary::Mode;
use crate::{Error, Limits, Result, Store, directory, erofs};

/// What must stay. Who calls knows; the store does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// Blobs.
    pub blobs: HashSet<Digest>,
    /// Layers, by diff id.
    pub layers: HashSet<Digest>,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Layers; two forms of one count twice.
    pub layers: u64,
    /// Leftovers of processes that died.
    pub temporary: u64,
    /// Bytes on disk of all these.
    pub bytes: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs and layers looked at.
    pub checked: u64,
    /// What is wrong, in the order it was found.
    pub problems: Vec<Problem>,
}

/// Something wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub what: String,
    /// It was removed.
    pub repaired: bool,
}

impl Store {
    /// Removes every blob and layer that is not in use and was not stored within `grace`, and all leftovers.
    /// Waits for those who are storing something. What is mounted meanwhile stays readable for who has it mounted.
    pub fn collect(&self, in_use: &InUse, grace: Duration) -> Result<Collected> {
        let _alone = self.lock(Mode::Exclusive)?;
        let mut collected = Collected::default();
        let (count, bytes) = self.sweep_alone()?;
        collected.temporary = count;
        collected.bytes = bytes;
        for name in names(&self.0.root.join("locks"))? {
            let path = self.0.root.join("locks").join(name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        for name in names(&self.blobs_directory())? {
            let Ok(digest) = Digest::from_hex(&name) else {
                continue;
            };
            let path = self.blobs_directory().join(&name);
            if !in_use.blobs.contains(&digest) && is_older(&path, grace)? {
                collected.bytes += disk_usage(&path);
                collected.blobs += u64::from(self.discard(&path)?);
            }
        }
        for name in names(&self.layers_directory())? {
            let Some(digest) = layer_digest(&name) else {
                continue;
            };
            let path = self.layers_directory().join(&name);
            if !in_use.layers.contains(&digest) && is_older(&path, grace)? {
                collected.bytes += disk_usage(&path);
                collected.layers += u64::from(self.discard(&path)?);
            }
        }
        Ok(collected)
    }

    /// Reads everything and reports what is not as it should be. With `repair`, what is damaged is removed, and so are
    /// strange names: the content can be fetched again, a damaged layer would be served.
    pub fn fsck(&self, repair: bool) -> Result<Report> {
        // Alone even without repair: what is being stored right now is not stray.
        let _alone = self.lock(Mode::Exclusive)?;
        let mut report = Report::default();
        for name in names(&self.temporary())? {
            let path = self.temporary().join(name);
            self.problem(
                &mut report,
                path,
                "a leftover of a process that died",
                repair,
            )?;
        }
        for name in names(&self.blobs_directory())? {
            let path = self.blobs_directory().join(&name);
            let what = match Digest::from_hex(&name) {
                Err(_) => Some("its name is no digest".to_owned()),
                Ok(digest) => {
                    report.checked += 1;
                    let actual = hash(&path)?;
                    (actual != digest).then(|| format!("its content is {actual}"))
                }
            };
            if let Some(what) = what {
                self.problem(&mut report, path, &what, repair)?;
            }
        }
        for name in names(&self.layers_directory())? {
            let path = self.layers_directory().join(&name);
            let what = match layer_digest(&name) {
                None => Some("its name is no layer's".to_owned()),
                Some(digest) => {
                    report.checked += 1;
                    match check_layer(&path, &digest, &self.0.options.limits) {
                        Ok(()) => None,
                        Err(Error::Damaged {
                            path: inner,
                            reason,
                        }) if inner == path => Some(reason),
                        Err(Error::Damaged {
                            path: inner,
                            reason,
                        }) => {
                            let name = inner
                                .strip_prefix(&path)
                                .unwrap_or(&inner)
                                .display()
                                .to_string();
                            Some(format!("{name}: {reason}"))
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            if let Some(what) = what {
                self.problem(&mut report, path, &what, repair)?;
            }
        }
        Ok(report)
    }

    fn problem(&self, report: &mut Report, path: PathBuf, what: &str, repair: bool) -> Result<()> {
        if repair {
            self.discard(&path)?;
        }
        report.problems.push(Problem {
            path,
            what: what.to_owned(),
            repaired: repair,
        });
        Ok(())
    }
}

fn check_layer(path: &Path, digest: &Digest, limits: &Limits) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "dir") {
        return directory::verify(path, digest, limits);
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    erofs::verify(&file, path, digest)
}

fn layer_digest(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_suffix(".erofs").or(name.strip_suffix(".dir"))?).ok()
}

/// A time in the future counts as just now.
fn is_older(path: &Path, grace: Duration) -> Result<bool> {
    let modified = fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(Error::io("inspect", path))?;
    Ok(grace.is_zero()
        || SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age >= grace))
}

fn hash(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length =
            std::io::Read::read(&mut file, &mut buffer).map_err(Error::io("read", path))?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
    }
}
