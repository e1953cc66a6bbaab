//! `cp`'s two ends on the host: a tree of the caller's packed as tar, and a container's tar unpacked beside the caller's
//! files.
//!
//! What comes out of a container is hostile. It is unpacked below one directory handle with openat2 (RESOLVE_BENEATH,
//! no links anywhere); what is in the way is replaced, never followed or written through; devices are refused, and set-id
//! bits are dropped, because they would count on the host.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use coracle_store::Limits;
use coracle_store::tar::{Entry, EntryKind, TarReader, TarWriter};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::error::Error;

const SET_ID: u32 = 0o6000;

/// Packs the tree at `source` so that its top entry is called `name`; `follow` follows a link at the top only.
pub(crate) fn pack(source: &Path, name: &Path, follow: bool, out: impl Write) -> Result<(), Error> {
    let mut tar = TarWriter::new(out);
    append(&mut tar, source, name, follow)?;
    tar.finish()
        .map(drop)
        .map_err(Error::file("archive", source))
}

fn append(
    tar: &mut TarWriter<impl Write>,
    source: &Path,
    name: &Path,
    follow: bool,
) -> Result<(), Error> {
    let metadata = if follow {
        std::fs::metadata(source)
    } else {
        std::fs::symlink_metadata(source)
    };
    let metadata = metadata.map_err(Error::file("read", source))?;
    let kind = match metadata.file_type() {
        kind if kind.is_file() => EntryKind::Regular,
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => EntryKind::Symlink,
        kind if kind.is_fifo() => EntryKind::Fifo,
        kind if kind.is_char_device() => EntryKind::Character,
        kind if kind.is_block_device() => EntryKind::Block,
        // An archive has no word for a socket.
        _ => return Ok(()),
    };
    let mut entry = Entry::new(kind, name.as_os_str().as_bytes());
    entry.mode = metadata.mode() & 0o7777;
    entry.uid = metadata.uid();
    entry.gid = metadata.gid();
    entry.mtime = metadata.mtime();
    entry.mtime_nsec = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    let archived = Error::file("archive", source);
    match kind {
        EntryKind::Regular => {
            let mut file = File::open(source).map_err(Error::file("read", source))?;
            entry.size = metadata.size();
            tar.append(&entry, &mut file).map_err(archived)
        }
        EntryKind::Directory => {
            tar.append(&entry, &mut io::empty()).map_err(archived)?;
            let children = std::fs::read_dir(source).map_err(Error::file("read", source))?;
            let names: Result<Vec<_>, _> = children
                .map(|child| child.map(|child| child.file_name()))
                .collect();
            let mut names = names.map_err(Error::file("read", source))?;
            names.sort();
            names
                .iter()
                .try_for_each(|child| append(tar, &source.join(child), &name.join(child), false))
        }
        EntryKind::Symlink => {
            let target = std::fs::read_link(source).map_err(Error::file("read", source))?;
            entry.link = target.into_os_string().into_vec();
            tar.append(&entry, &mut io::empty()).map_err(archived)
        }
        _ => {
            entry.device = (
                rustix::fs::major(metadata.rdev()),
                rustix::fs::minor(metadata.rdev()),
            );
            tar.append(&entry, &mut io::empty()).map_err(archived)
        }
    }
}

/// Where [`unpack`] puts things.
pub(crate) struct Destination {
    /// A directory that is there.
    pub(crate) directory: PathBuf,
    /// What the top entry is called there; `None`: what it holds goes into the directory itself.
    pub(crate) name: Option<PathBuf>,
    /// Keep the owners that the archive names.
    pub(crate) owners: bool,
}

/// Unpacks a container's archive.
pub(crate) fn unpack(archive: impl Read, to: &Destination) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&to.directory, flags, Mode::empty())
        .map_err(|e| Error::file("open", &to.directory)(e.into()))?;
    let unsound = |source| Error::Below {
        action: "the archive that came from the container is not sound".into(),
        source: Box::new(source),
        hint: None,
    };
    let mut reader = TarReader::new(
        BufReader::with_capacity(128 << 10, archive),
        Limits::default(),
    );
    // A directory gets its mode and time after all that is written into it.
    let mut directories = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(unsound)? {
        let Some(path) = place(&entry.path, to.name.as_deref())? else {
            continue;
        };
        let shown = to.directory.join(&path);
        let failed = |error: Errno| Error::File {
            action: "write",
            path: shown.clone(),
            source: error.into(),
        };
        let (parent, name) = parent(root.as_fd(), &path).map_err(failed)?;
        match entry.kind {
            EntryKind::Directory => {
                match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
                    Ok(()) => {}
                    Err(Errno::EXIST) if is_directory(&parent, &name) => {}
                    Err(error) => return Err(failed(error)),
                }
                directories.push((path.clone(), entry.clone()));
                continue;
            }
            EntryKind::Regular => {
                clear(&parent, &name).map_err(failed)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(failed)?;
                let mut file = File::from(file);
                loop {
                    let piece = reader.data().map_err(unsound)?;
                    if piece.is_empty() {
                        break;
                    }
                    file.write_all(piece)
                        .map_err(Error::file("write", &shown))?;
                    let count = piece.len();
                    reader.consume(count);
                }
            }
            EntryKind::Symlink => {
                clear(&parent, &name).map_err(failed)?;
                rustix::fs::symlinkat(entry.link.as_slice(), &parent, &name).map_err(failed)?;
            }
            EntryKind::Fifo => {
                clear(&parent, &name).map_err(failed)?;
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mknodat(&parent, &name, rustix::fs::FileType::Fifo, mode, 0)
                    .map_err(failed)?;
            }
            EntryKind::Character | EntryKind::Block | EntryKind::HardLink => {
                return Err(Error::usage(
                    format!(
                        "{} is a device, and devices are not copied out of a container",
                        shown.display()
                    ),
                    "copy the directories beside it one by one",
                ));
            }
        }
        finish(&parent, &name, &entry, to.owners).map_err(failed)?;
    }
    for (path, entry) in directories.iter().rev() {
        let failed = |error: Errno| Error::File {
            action: "write",
            path: to.directory.join(path),
            source: error.into(),
        };
        let (parent, name) = parent(root.as_fd(), path).map_err(failed)?;
        finish(&parent, &name, entry, to.owners).map_err(failed)?;
    }
    Ok(())
}

/// Where an entry goes below the destination: its first component is replaced; `None` is the destination itself.
fn place(path: &[u8], name: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    let entry = Path::new(std::ffi::OsStr::from_bytes(path));
    let mut placed = name.map(Path::to_owned).unwrap_or_default();
    let mut first = true;
    for component in entry.components() {
        match component {
            Component::Normal(part) if !first => placed.push(part),
            // The top entry's own name, or `.` when only what it holds was asked for.
            Component::Normal(_) | Component::CurDir if first => {}
            Component::CurDir => {}
            _ => {
                let problem = format!(
                    "the container's archive names {:?}, which leads out of the destination",
                    entry.display()
                );
                return Err(Error::Usage {
                    problem,
                    hint: None,
                });
            }
        }
        first = false;
    }
    Ok(if placed.as_os_str().is_empty() {
        None
    } else {
        Some(placed)
    })
}

/// The directory that an entry is in, reached without any link, and its last component.
fn parent(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let above = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok((
        rustix::fs::openat2(root, above, flags, Mode::empty(), resolve)?,
        PathBuf::from(name),
    ))
}

fn is_directory(parent: &OwnedFd, name: &Path) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Removes what is in the way; a directory is not, and is then an error of what follows.
fn clear(parent: &OwnedFd, name: &Path) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Owner, mode and time, in this order: changing the owner would clear bits of the mode.
fn finish(parent: &OwnedFd, name: &Path, entry: &Entry, owners: bool) -> Result<(), Errno> {
    if owners {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    if entry.kind != EntryKind::Symlink {
        // By a handle that cannot be a link: chmodat follows one.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(entry.mode & !SET_ID))?;
    }
    let time = Timespec {
        tv_sec: entry.mtime,
        tv_nsec: entry.mtime_nsec.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn archive(entries: &[(EntryKind, &str, &str, u32)]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (kind, path, data, mode) in entries {
            let mut entry = Entry::new(*kind, path.as_bytes());
            entry.mode = *mode;
            match kind {
                EntryKind::Regular => entry.size = data.len() as u64,
                EntryKind::Symlink => entry.link = data.as_bytes().to_vec(),
                _ => {}
            }
            tar.append(&entry, &mut data.as_bytes()).expect("memory");
        }
        tar.finish().expect("memory")
    }

    fn into(directory: &Path, name: Option<&str>, bytes: &[u8]) -> Result<(), Error> {
        unpack(
            bytes,
            &Destination {
                directory: directory.into(),
                name: name.map(PathBuf::from),
                owners: false,
            },
        )
    }

    #[test]
    fn a_tree_gets_another_name_and_its_modes() {
        let scratch = tempfile::tempdir().expect("scratch");
        let tree = archive(&[
            (EntryKind::Directory, "a", "", 0o500),
            (EntryKind::Regular, "a/f", "text", 0o4755),
            (EntryKind::Symlink, "a/l", "/etc/passwd", 0o777),
        ]);
        into(scratch.path(), Some("b"), &tree).expect("unpacks");
        let b = scratch.path().join("b");
        assert_eq!(std::fs::read_to_string(b.join("f")).expect("there"), "text");
        assert_eq!(
            std::fs::metadata(b.join("f"))
                .expect("there")
                .permissions()
                .mode()
                & 0o7777,
            0o755
        );
        assert_eq!(
            std::fs::metadata(&b).expect("there").permissions().mode() & 0o7777,
            0o500
        );
        assert_eq!(
            std::fs::read_link(b.join("l")).expect("there"),
            Path::new("/etc/passwd")
        );
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let scratch = tempfile::tempdir().expect("scratch");
        let (inside, outside) = (scratch.path().join("in"), scratch.path().join("out"));
        std::fs::create_dir(&inside).expect("made");
        std::fs::create_dir(&outside).expect("made");
        let link = outside.to_str().expect("UTF-8");
        let through = archive(&[
            (EntryKind::Symlink, "t/d", link, 0o777),
            (EntryKind::Regular, "t/d/f", "x", 0o644),
        ]);
        assert!(into(&inside, None, &through).is_err());
        let dotdot = archive(&[(EntryKind::Regular, "t/../../out/f", "x", 0o644)]);
        assert!(into(&inside, None, &dotdot).is_err());
        std::os::unix::fs::symlink(outside.join("f"), inside.join("f")).expect("made");
        into(
            &inside,
            None,
            &archive(&[(EntryKind::Regular, "t/f", "x", 0o644)]),
        )
        .expect("replaces the link");
        assert!(!inside.join("f").is_symlink());
        assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0);
    }

    #[test]
    fn devices_are_refused() {
        let scratch = tempfile::tempdir().expect("scratch");
        assert!(
            into(
                scratch.path(),
                None,
                &archive(&[(EntryKind::Character, "t/null", "", 0o666)])
            )
            .is_err()
        );
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let scratch = tempfile::tempdir().expect("scratch");
        let source = scratch.path().join("source");
        std::fs::create_dir_all(source.join("d")).expect("made");
        std::fs::write(source.join("d/f"), "text").expect("made");
        std::os::unix::fs::symlink("d/f", source.join("l")).expect("made");
        let mut bytes = Vec::new();
        pack(&source, Path::new("."), false, &mut bytes).expect("packs");
        let to = scratch.path().join("to");
        std::fs::create_dir(&to).expect("made");
        into(&to, None, &bytes).expect("unpacks");
        assert_eq!(
            std::fs::read_to_string(to.join("l")).expect("there"),
            "text"
        );
        assert!(to.join("d").is_dir());
    }
}
