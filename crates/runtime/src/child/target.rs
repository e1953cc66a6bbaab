//! Mount targets: found or made inside the root, and held by a descriptor from then on.
//!
//! The root's content is hostile and, through shared volumes, may change while we look. The kernel resolves every path under the
//! root; what is missing is made component by component, each below a directory that was itself resolved so. A path is never
//! resolved a second time: the mount goes onto the descriptor (CVE-2021-30465).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::descriptor::Fd;
use coracle_linux::root_dir::open_in;
use rustix::fs::{
    FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat, mknodat,
    openat2, readlinkat_raw,
};
use rustix::io::Errno;

use crate::plan::Kind;

/// As PATH_MAX: longer paths cannot be asked for.
const LENGTH: usize = 4096;
/// As the kernel's own limit.
const LINKS: usize = 40;

/// Opens the target, making it when it is missing.
pub(super) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &CStr,
    kind: Kind,
    no_links: bool,
) -> Result<Fd, Errno> {
    match open(root, path, no_links) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    // Mostly it is only the last component that is missing, in a directory just mounted.
    match make_last(root, path, kind, no_links) {
        Err(Errno::NOENT | Errno::EXIST) => make(root, path, kind, no_links),
        result => result,
    }
}

fn open(root: BorrowedFd<'_>, path: &CStr, no_links: bool) -> Result<Fd, Errno> {
    if no_links {
        open_real(root, path, OFlags::empty()).map(Fd::from)
    } else {
        open_in(root, path, OFlags::PATH, Mode::empty()).map(Fd::from)
    }
}

/// Makes the last component below what the others lead to.
fn make_last(root: BorrowedFd<'_>, path: &CStr, kind: Kind, no_links: bool) -> Result<Fd, Errno> {
    let bytes = path.to_bytes_with_nul();
    let split = path
        .to_bytes()
        .iter()
        .rposition(|&byte| byte == b'/')
        .ok_or(Errno::NOENT)?;
    let mut directory = Buffer::new();
    directory.append(bytes.get(..split).ok_or(Errno::NOENT)?)?;
    let name = bytes
        .get(split + 1..)
        .and_then(|name| CStr::from_bytes_with_nul(name).ok());
    let name = name
        .filter(|name| !matches!(name.to_bytes(), b"" | b"." | b".."))
        .ok_or(Errno::NOENT)?;
    let parent = open(root, directory.as_c_str()?, no_links)?;
    make_one(&parent, name, kind)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::empty()).map(Fd::from)
}

fn make_one(parent: &Fd, name: &CStr, kind: Kind) -> Result<(), Errno> {
    if kind == Kind::File {
        mknodat(
            parent,
            name,
            FileType::RegularFile,
            Mode::from_raw_mode(0o644),
            0,
        )
    } else {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}

/// A path being put together, without allocation.
struct Buffer {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: [0; LENGTH],
            length: 0,
        }
    }

    /// The path so far as a C string; the empty path is the root itself.
    fn as_c_str(&self) -> Result<&CStr, Errno> {
        if self.length == 0 {
            return Ok(c".");
        }
        let bytes = self.bytes.get(..=self.length).ok_or(Errno::NAMETOOLONG)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::INVAL)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let end = self.length + bytes.len();
        // One byte always stays for the null.
        if end >= LENGTH {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes
            .get_mut(self.length..end)
            .ok_or(Errno::NAMETOOLONG)?
            .copy_from_slice(bytes);
        self.length = end;
        self.bytes[end] = 0;
        Ok(())
    }

    fn push(&mut self, component: &[u8]) -> Result<(), Errno> {
        if self.length > 0 {
            self.append(b"/")?;
        }
        self.append(component)
    }

    /// Removes the last component; at the root it stays there.
    fn pop(&mut self) {
        let kept = self
            .bytes
            .iter()
            .take(self.length)
            .rposition(|&byte| byte == b'/')
            .unwrap_or(0);
        self.truncate(kept);
    }

    fn truncate(&mut self, length: usize) {
        if length < LENGTH {
            self.length = length;
            self.bytes[length] = 0;
        }
    }

    /// Puts `text` and a slash before what is in it.
    fn prepend(&mut self, text: &[u8]) -> Result<(), Errno> {
        let moved = text.len() + 1;
        if self.length + moved >= LENGTH {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes.copy_within(0..=self.length, moved);
        self.bytes
            .get_mut(..text.len())
            .ok_or(Errno::NAMETOOLONG)?
            .copy_from_slice(text);
        self.bytes[text.len()] = b'/';
        self.length += moved;
        Ok(())
    }

    /// Takes the first component off and copies it to `component`.
    fn take_component(&mut self, component: &mut Buffer) -> Result<bool, Errno> {
        let start = self
            .bytes
            .iter()
            .take(self.length)
            .position(|&byte| byte != b'/');
        let Some(start) = start else { return Ok(false) };
        let length = self
            .bytes
            .iter()
            .take(self.length)
            .skip(start)
            .position(|&byte| byte == b'/');
        let end = length.map_or(self.length, |length| start + length);
        component.truncate(0);
        component.append(self.bytes.get(start..end).ok_or(Errno::NAMETOOLONG)?)?;
        self.bytes.copy_within(end..=self.length, 0);
        self.length -= end;
        Ok(true)
    }

    fn is(&self, text: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(text)
    }
}

/// Walks `path` as the kernel would, links inside the root followed, and makes what is missing: directories on the way, and
/// `kind` at the end.
fn make(root: BorrowedFd<'_>, path: &CStr, kind: Kind, no_links: bool) -> Result<Fd, Errno> {
    let mut done = Buffer::new();
    let mut rest = Buffer::new();
    let mut component = Buffer::new();
    rest.append(path.to_bytes())?;
    let mut links = 0;
    while rest.take_component(&mut component)? {
        if component.is(b".") {
            continue;
        }
        if component.is(b"..") {
            done.pop();
            continue;
        }
        let last = rest
            .bytes
            .iter()
            .take(rest.length)
            .all(|&byte| byte == b'/');
        let parent = Fd::from(open_real(root, done.as_c_str()?, OFlags::DIRECTORY)?);
        let before = done.length;
        done.push(
            component
                .bytes
                .get(..component.length)
                .ok_or(Errno::NAMETOOLONG)?,
        )?;
        let name = component.as_c_str()?;
        let made = make_one(&parent, name, if last { kind } else { Kind::Directory });
        match made {
            Ok(()) => continue,
            Err(Errno::EXIST) => {}
            // A read-only place may still have the directory.
            Err(error) => match open_real(root, done.as_c_str()?, OFlags::NOFOLLOW) {
                Ok(fd) => drop(Fd::from(fd)),
                Err(_) => return Err(error),
            },
        }
        let found = Fd::from(rustix::fs::openat(
            &parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink {
            continue;
        }
        links += 1;
        if no_links || links > LINKS {
            return Err(Errno::LOOP);
        }
        let mut text = [0u8; LENGTH];
        let length = readlinkat_raw(&found, c"", &mut text[..])?;
        let text = text.get(..length).ok_or(Errno::NAMETOOLONG)?;
        if text.first() == Some(&b'/') {
            done.truncate(0);
        } else {
            done.truncate(before);
        }
        rest.prepend(text)?;
    }
    Ok(open_real(root, done.as_c_str()?, OFlags::empty())?.into())
}

/// Opens a path in which we have just seen that no component is a link; one that has become a link since is refused.
fn open_real(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> Result<std::os::fd::OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC | flags,
        Mode::empty(),
        resolve,
    )
}

/// Whether the target lies on a procfs, where a mount could fake what later steps and the container's tools rely on.
pub(super) fn is_on_proc(target: &Fd) -> Result<bool, Errno> {
    Ok(fstatfs(target.as_fd())?.f_type as u64 == PROC_SUPER_MAGIC as u64)
}
