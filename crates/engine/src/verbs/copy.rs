//! `cp`: a tree out of a container or into one, as a tar archive.
//!
//! The container is hostile and may be running: every path is opened under a handle to its root (openat2 with
//! RESOLVE_IN_ROOT), the last component never through a link. What is written into a running container must carry
//! ids of its user namespace, so a helper process (this binary again, as [`HELPER`]) joins that namespace and writes,
//! with no right outside of it (CVE-2019-14271 and CVE-2018-15664 are what happens otherwise).

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use coracle_oci::ContainerId;
use coracle_store::tar::{Entry, EntryKind, TarReader, TarWriter};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::Engine;
use crate::error::{Error, Result};
use crate::root::Ids;

/// The name under which this binary is the helper that writes into a running container.
pub const HELPER: &str = "coracle-copy";

const BENEATH: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Unix time in nanoseconds.
    pub modified: i128,
    /// A directory.
    pub is_directory: bool,
    /// Where a symbolic link leads.
    pub link_target: String,
}

impl Engine {
    /// What is at the path, without following a link at its end; `None` if nothing is.
    ///
    /// # Errors
    /// What opening the container's root says.
    pub fn copy_stat(&self, id: &ContainerId, path: &str) -> Result<Option<CopyStat>> {
        let root = self.open_root(&self.existing(id)?)?;
        match open(root.fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => stat(&fd, path).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("opening", path)(error)),
        }
    }

    /// Writes what is at the path as an archive whose entries begin with the path's last component. `follow` follows
    /// a link at the end of the path, inside the container.
    ///
    /// # Errors
    /// When nothing is there, or what reading and writing say.
    pub fn copy_out(
        &self,
        id: &ContainerId,
        path: &str,
        follow: bool,
        out: &mut dyn Write,
    ) -> Result<CopyStat> {
        let root = self.open_root(&self.existing(id)?)?;
        let flags = if follow {
            OFlags::PATH
        } else {
            OFlags::PATH | OFlags::NOFOLLOW
        };
        let fd = open(root.fd(), path, flags).map_err(failed("opening", path))?;
        let stat = stat(&fd, path)?;
        let mut writer = Packer {
            tar: TarWriter::new(out),
            ids: &root.ids,
        };
        // `cp C:/dir/. …` copies what the directory holds.
        let name = if path.ends_with("/.") || stat.name == "/" {
            "."
        } else {
            &stat.name
        };
        writer.append(&fd, Path::new(name))?;
        writer
            .tar
            .finish()
            .map_err(|source| Error::file("archiving", Path::new(path), source))?;
        Ok(stat)
    }

    /// Unpacks an archive into a directory of the container. `archive` keeps the owners that it names; otherwise all
    /// belongs to root inside.
    ///
    /// # Errors
    /// When the directory is not there, or what unpacking says.
    pub fn copy_in(
        &self,
        id: &ContainerId,
        directory: &str,
        tar: &mut dyn Read,
        archive: bool,
    ) -> Result<()> {
        let record = self.existing(id)?;
        let root = self.open_root(&record)?;
        let target = open(root.fd(), directory, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(failed("opening", directory))?;
        drop(target);
        let Some(run) = &root.run else {
            return unpack(root.fd(), directory, tar, archive);
        };
        let executable = Path::new("/proc/self/exe");
        let mut helper = Command::new(executable)
            .arg0(HELPER)
            .args([
                run.pid.to_string(),
                run.start_time.to_string(),
                directory.to_owned(),
                archive.to_string(),
            ])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::file("starting the copy helper", executable, source))?;
        let mut copied = Ok(0);
        if let Some(mut input) = helper.stdin.take() {
            copied = std::io::copy(tar, &mut input);
        }
        let output = helper
            .wait_with_output()
            .map_err(|source| Error::file("waiting for", executable, source))?;
        if !output.status.success() {
            return Err(Error::refused(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        copied
            .map(drop)
            .map_err(|source| Error::file("copying into", Path::new(directory), source))
    }
}

/// The helper's whole life: joins the user namespace of the container's first process and unpacks standard input under
/// its root. `arguments`: pid, its start time, the directory, whether to keep owners.
///
/// # Errors
/// What joining and unpacking say.
pub fn helper(arguments: &[String]) -> Result<()> {
    let [pid, start_time, directory, archive] = arguments else {
        return Err(Error::refused(
            "the copy helper is started by `coracle cp`, not by hand",
        ));
    };
    let gone = || Error::refused("the container ended meanwhile");
    let (pid, start_time) = (
        pid.parse().map_err(|_| gone())?,
        start_time.parse().map_err(|_| gone())?,
    );
    let proc = Path::new("/proc").join(format!("{pid}"));
    let opened = |name: &str, flags: OFlags| {
        let path = proc.join(name);
        rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::file("opening", &path, error))
    };
    let root = opened("root", OFlags::PATH | OFlags::DIRECTORY)?;
    let users = opened("ns/user", OFlags::RDONLY)?;
    let own = rustix::fs::stat("/proc/self/ns/user")
        .map_err(|error| Error::file("reading", &proc, error))?;
    let theirs = rustix::fs::fstat(&users).map_err(|error| Error::file("reading", &proc, error))?;
    // Both were opened by number: only if the process is still the same do they belong to the container.
    if !coracle_runtime::process::is_alive(pid, start_time).unwrap_or(false) {
        return Err(gone());
    }
    if (own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino) {
        coracle_linux::namespace::join(users.as_fd(), coracle_linux::namespace::USER)
            .and_then(|()| coracle_linux::process::become_root())
            .map_err(|error| Error::file("joining the user namespace of", &proc, error))?;
    }
    unpack(
        root.as_fd(),
        directory,
        &mut std::io::stdin().lock(),
        archive == "true",
    )
}

fn failed(doing: &'static str, path: impl AsRef<Path>) -> impl Fn(Errno) -> Error {
    move |error| Error::file(doing, path.as_ref(), error)
}

fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn stat(fd: &OwnedFd, path: &str) -> Result<CopyStat> {
    let stat = rustix::fs::fstat(fd).map_err(failed("reading", path))?;
    let name = Path::new(path).components().next_back();
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(CopyStat {
        name: match name {
            Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
            _ => "/".into(),
        },
        size: stat.st_size.unsigned_abs(),
        mode: stat.st_mode,
        modified: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        is_directory: kind == FileType::Directory,
        link_target: match kind {
            FileType::Symlink => read_link(fd, path)?,
            _ => String::new(),
        },
    })
}

fn read_link(fd: &OwnedFd, path: impl AsRef<Path>) -> Result<String> {
    let target =
        rustix::fs::readlinkat(fd, "", Vec::new()).map_err(failed("reading the link", path))?;
    Ok(target.to_string_lossy().into_owned())
}

/// Walks a tree and archives it, with ids as seen inside.
struct Packer<'a, W: Write> {
    tar: TarWriter<W>,
    ids: &'a Ids,
}

impl<W: Write> Packer<'_, W> {
    fn append(&mut self, fd: &OwnedFd, name: &Path) -> Result<()> {
        let failed = failed("reading", name);
        let stat = rustix::fs::fstat(fd).map_err(&failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::Regular,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink,
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::Character,
            FileType::BlockDevice => EntryKind::Block,
            // An archive has no word for a socket; docker cp passes over it too.
            _ => return Ok(()),
        };
        let mut entry = Entry::new(kind, name.as_os_str().as_encoded_bytes());
        entry.mode = stat.st_mode & 0o7777;
        entry.uid = self.ids.uid_inside(stat.st_uid);
        entry.gid = self.ids.gid_inside(stat.st_gid);
        entry.mtime = stat.st_mtime;
        entry.mtime_nsec = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let archived = |source| Error::file("archiving", name, source);
        match kind {
            EntryKind::Regular => {
                // By /proc/self/fd: the descriptor is only a path so far, and what it names cannot change any more.
                let file =
                    coracle_linux::procfs::reopen(fd.as_fd(), OFlags::RDONLY).map_err(&failed)?;
                entry.size = stat.st_size.unsigned_abs();
                self.tar
                    .append(&entry, &mut File::from(file))
                    .map_err(archived)
            }
            EntryKind::Directory => {
                self.tar
                    .append(&entry, &mut std::io::empty())
                    .map_err(archived)?;
                let list = rustix::fs::openat(
                    fd,
                    ".",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(&failed)?;
                let mut names: Vec<_> = rustix::fs::Dir::read_from(&list)
                    .map_err(&failed)?
                    .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_owned()))
                    .filter(|name| name.to_bytes() != b"." && name.to_bytes() != b"..")
                    .collect();
                names.sort();
                for child in names {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match rustix::fs::openat(&list, &child, flags, Mode::empty()) {
                        Ok(opened) => self.append(&opened, &name.join(to_path(&child)))?,
                        // A running container may have removed it since it was listed.
                        Err(Errno::NOENT) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Ok(())
            }
            EntryKind::Symlink => {
                entry.link = read_link(fd, name)?.into_bytes();
                self.tar
                    .append(&entry, &mut std::io::empty())
                    .map_err(archived)
            }
            _ => {
                entry.device = (
                    rustix::fs::major(stat.st_rdev),
                    rustix::fs::minor(stat.st_rdev),
                );
                self.tar
                    .append(&entry, &mut std::io::empty())
                    .map_err(archived)
            }
        }
    }
}

fn to_path(name: &std::ffi::CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Unpacks below a directory of the root. Existing files are replaced, directories kept.
pub(crate) fn unpack(
    root: BorrowedFd<'_>,
    directory: &str,
    tar: &mut dyn Read,
    archive: bool,
) -> Result<()> {
    let refused = |error: coracle_store::tar::TarError| {
        Error::refused(format!("the archive is not sound: {error}"))
    };
    let mut reader = TarReader::new(
        BufReader::with_capacity(128 * 1024, tar),
        coracle_store::Limits::default(),
    );
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        let path = inside(&entry.path)?;
        // `.` itself: the directory is there, and stays as it is.
        let Some(name) = path.file_name() else {
            continue;
        };
        let whole = Path::new(directory).join(&path);
        let failed = failed("writing", &whole);
        let parent = Path::new(directory).join(path.parent().unwrap_or(Path::new("")));
        let parent = open(
            root,
            &parent.to_string_lossy(),
            OFlags::PATH | OFlags::DIRECTORY,
        )
        .map_err(&failed)?;
        make(root, &parent, Path::new(name), &entry, directory).map_err(&failed)?;
        if entry.kind == EntryKind::HardLink {
            continue;
        }
        if entry.kind == EntryKind::Regular {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(&failed)?;
            let mut file = File::from(file);
            loop {
                let piece = reader.data().map_err(refused)?;
                if piece.is_empty() {
                    break;
                }
                file.write_all(piece)
                    .map_err(|source| Error::file("writing", &whole, source))?;
                let count = piece.len();
                reader.consume(count);
            }
        }
        let (uid, gid) = if archive {
            (entry.uid, entry.gid)
        } else {
            (0, 0)
        };
        finish(&parent, Path::new(name), &entry, uid, gid).map_err(&failed)?;
    }
    Ok(())
}

/// Copies a directory of a root into a directory of the host, owners and all; nothing if there is none. `root` carries
/// ids as the layers do, so both sides have the numbers as seen inside.
pub(crate) fn fill(root: BorrowedFd<'_>, from: &str, to: &Path, ids: &Ids) -> Result<()> {
    let source = match open(root, from, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(source) => source,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(failed("opening", from)(error)),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(to, flags, Mode::empty()).map_err(failed("opening", to))?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(failed("making a pipe for", to))?;
    std::thread::scope(|scope| {
        let pack = || -> Result<()> {
            let mut packer = Packer {
                tar: TarWriter::new(std::io::BufWriter::new(File::from(write))),
                ids,
            };
            packer.append(&source, Path::new("."))?;
            packer
                .tar
                .finish()
                .map(drop)
                .map_err(|source| Error::file("copying", to, source))
        };
        let packed = std::thread::Builder::new()
            .spawn_scoped(scope, pack)
            .map_err(|source| Error::file("starting a thread to fill", to, source))?;
        let unpacked = unpack(target.as_fd(), "/", &mut File::from(read), true);
        packed
            .join()
            .map_err(|_| Error::refused("reading the image's files panicked"))??;
        unpacked
    })?;
    // The directory itself: a database's volume must belong to the database's user.
    let failed = failed("changing the owner of", to);
    let stat = rustix::fs::fstat(&source).map_err(&failed)?;
    let owner = rustix::fs::Uid::from_raw(ids.uid_inside(stat.st_uid));
    let group = rustix::fs::Gid::from_raw(ids.gid_inside(stat.st_gid));
    rustix::fs::chown(to, Some(owner), Some(group)).map_err(&failed)?;
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(&failed)
}

/// The entry's path, relative, without a way out.
fn inside(path: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut clean = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::refused(format!(
                    "the archive names {:?}, which leads out",
                    String::from_utf8_lossy(path)
                )));
            }
        }
    }
    Ok(clean)
}

fn make(
    root: BorrowedFd<'_>,
    parent: &OwnedFd,
    name: &Path,
    entry: &Entry,
    directory: &str,
) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    if entry.kind == EntryKind::Directory {
        return match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {
                let kept = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(kept.st_mode) {
                    FileType::Directory => Ok(()),
                    _ => Err(Errno::NOTDIR),
                }
            }
            other => other,
        };
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    match entry.kind {
        EntryKind::Regular => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, mode).map(drop)
        }
        EntryKind::Symlink => rustix::fs::symlinkat(&entry.link[..], parent, name),
        EntryKind::HardLink => {
            let target = inside(&entry.link).map_err(|_| Errno::XDEV)?;
            let holder = Path::new(directory).join(target.parent().unwrap_or(Path::new("")));
            let holder = open(
                root,
                &holder.to_string_lossy(),
                OFlags::PATH | OFlags::DIRECTORY,
            )?;
            let link = target.file_name().ok_or(Errno::INVAL)?;
            rustix::fs::linkat(&holder, link, parent, name, AtFlags::empty())
        }
        EntryKind::Fifo => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0),
        // No device of an archive becomes one in a container.
        EntryKind::Character | EntryKind::Block | EntryKind::Directory => Err(Errno::PERM),
    }
}

fn finish(
    parent: &OwnedFd,
    name: &Path,
    entry: &Entry,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<()> {
    let (owner, group) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    rustix::fs::chownat(
        parent,
        name,
        Some(owner),
        Some(group),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if entry.kind != EntryKind::Symlink {
        // Through a descriptor of the thing itself, never through a link that was put in its place meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
    }
    let time = Timespec {
        tv_sec: entry.mtime,
        tv_nsec: i64::from(entry.mtime_nsec) as _,
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

    fn archive(entries: &[(EntryKind, &str, &str)]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (kind, path, content) in entries {
            let mut entry = Entry::new(*kind, path.as_bytes());
            entry.mode = 0o644;
            if *kind == EntryKind::Regular {
                entry.size = content.len() as u64;
            } else {
                entry.link = content.as_bytes().to_vec();
            }
            writer.append(&entry, &mut content.as_bytes()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpack_into(root: &Path, entries: &[(EntryKind, &str, &str)]) -> Result<()> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let own = rustix::process::getuid().is_root();
        unpack(fd.as_fd(), "/", &mut &archive(entries)[..], !own)
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(unpack_into(root.path(), &[(EntryKind::Regular, "../x", "y")]).is_err());
    }

    #[test]
    fn a_link_in_the_way_stays_inside() {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIP: a_link_in_the_way_stays_inside: needs root to chown");
            return;
        }
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let written = unpack_into(root.path(), &[(EntryKind::Regular, "link/x", "y")]);
        assert!(written.is_err(), "the link's target does not exist inside");
        assert!(!outside.path().join("x").exists());
    }

    #[test]
    fn files_links_and_directories_arrive() {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIP: files_links_and_directories_arrive: needs root to chown");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let entries = [
            (EntryKind::Directory, "d", ""),
            (EntryKind::Regular, "d/f", "hello"),
            (EntryKind::Symlink, "d/s", "f"),
            (EntryKind::HardLink, "d/h", "d/f"),
        ];
        unpack_into(root.path(), &entries).unwrap();
        unpack_into(root.path(), &entries).unwrap();
        assert_eq!(std::fs::read(root.path().join("d/s")).unwrap(), b"hello");
        assert_eq!(std::fs::read(root.path().join("d/h")).unwrap(), b"hello");
    }
}
