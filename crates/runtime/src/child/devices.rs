//! Device nodes and the links of /dev.

use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::descriptor::Fd;
use coracle_linux::root_dir::open_in;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chownat, fstat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{Gid, Uid};

use super::file_system::{attach, clone_mount};
use super::{Walk, target};
use crate::plan::{Device, FileSystem, Kind, Node};
use crate::step::Step;

impl Walk<'_> {
    pub(super) fn make_devices(
        &self,
        root: BorrowedFd<'_>,
        file_system: &FileSystem,
    ) -> Result<(), Errno> {
        if file_system.devices.is_empty() && file_system.links.is_empty() {
            return Ok(());
        }
        self.at(Step::OpeningDev);
        let dev = target::open_or_make(root, c"dev", Kind::Directory, true)?;
        let mask = umask(Mode::empty());
        for (index, device) in file_system.devices.iter().enumerate() {
            self.at_index(Step::MakingDevice, index);
            make_device(root, dev.as_fd(), device)?;
        }
        umask(mask);
        for (index, link) in file_system.links.iter().enumerate() {
            self.at_index(Step::Linking, index);
            let elsewhere = if link.directory.to_bytes() == b"dev" {
                None
            } else {
                Some(target::open_or_make(
                    root,
                    &link.directory,
                    Kind::Directory,
                    true,
                )?)
            };
            match symlinkat(
                link.text.as_c_str(),
                elsewhere.as_ref().unwrap_or(&dev),
                link.name.as_c_str(),
            ) {
                // What the image or a mount has put there stays.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn make_device(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, device: &Device) -> Result<(), Errno> {
    match &device.node {
        Node::Make {
            mode,
            device: number,
            uid,
            gid,
        } => {
            let kind = FileType::from_raw_mode(*mode);
            let permissions = Mode::from_raw_mode(*mode & 0o7777);
            let (directory, name) = match &device.name {
                Some(name) => (dev, name),
                // Deeper ones are made by the walk; a node that is there already is left alone.
                None => return make_deep(root, device, kind, permissions, *number, (*uid, *gid)),
            };
            match mknodat(directory, name.as_c_str(), kind, permissions, *number) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Ok(()),
                Err(error) => return Err(error),
            }
            let owner = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            if *uid != 0 || *gid != 0 {
                chownat(
                    directory,
                    name.as_c_str(),
                    Some(owner.0),
                    Some(owner.1),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            Ok(())
        }
        Node::Bind { mount } => {
            let mount = mount.take().ok_or(Errno::BADF)?;
            bind(root, dev, device, mount.as_fd())
        }
        Node::BindPath {
            path,
            device: number,
        } => {
            let node = Fd::from(openat(
                CWD,
                path.as_c_str(),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
            if fstat(&node)?.st_rdev != *number {
                return Err(Errno::NODEV);
            }
            bind(root, dev, device, clone_mount(node.as_fd(), false)?.as_fd())
        }
    }
}

/// A node below a directory of /dev: the directory is made, then the node in it.
fn make_deep(
    root: BorrowedFd<'_>,
    device: &Device,
    kind: FileType,
    permissions: Mode,
    number: u64,
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    let path = device.path.to_bytes();
    let split = path
        .iter()
        .rposition(|&byte| byte == b'/')
        .ok_or(Errno::INVAL)?;
    let mut directory = [0u8; 4096];
    directory
        .get_mut(..split)
        .ok_or(Errno::NAMETOOLONG)?
        .copy_from_slice(path.get(..split).ok_or(Errno::INVAL)?);
    let directory =
        std::ffi::CStr::from_bytes_until_nul(&directory).map_err(|_| Errno::NAMETOOLONG)?;
    let name = std::ffi::CStr::from_bytes_with_nul(
        device
            .path
            .to_bytes_with_nul()
            .get(split + 1..)
            .unwrap_or(b"\0"),
    )
    .map_err(|_| Errno::INVAL)?;
    let directory = target::open_or_make(root, directory, Kind::Directory, false)?;
    match mknodat(&directory, name, kind, permissions, number) {
        Ok(()) => chownat(
            &directory,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        ),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Binds a host's node onto a file that is made for it.
fn bind(
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    device: &Device,
    mount: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let target = match &device.name {
        Some(name) => {
            match mknodat(
                dev,
                name.as_c_str(),
                FileType::RegularFile,
                Mode::from_raw_mode(0o644),
                0,
            ) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Fd::from(openat(dev, name.as_c_str(), flags, Mode::empty())?)
        }
        None => target::open_or_make(root, &device.path, Kind::File, false)?,
    };
    match FileType::from_raw_mode(fstat(&target)?.st_mode) {
        FileType::RegularFile
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Fifo => {}
        // A link planted in the image's own /dev.
        _ => return Err(Errno::LOOP),
    }
    attach(mount, target.as_fd())
}

/// Opens a directory of the root by a path that no link may be in.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<Fd, Errno> {
    open_in(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .map(Fd::from)
}
