//! What rustix lacks of the mount API: mount_setattr(2), with id mappings.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw;

/// `MOUNT_ATTR_RDONLY`
pub const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`
pub const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`
pub const NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`
pub const NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the mask of the three below, which are one value.
pub const ATIME: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME` is the value 0.
pub const RELATIME: u64 = 0x0;
/// `MOUNT_ATTR_NOATIME`
pub const NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`
pub const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`
pub const NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP` (Linux 5.12)
pub const IDMAP: u64 = 0x0010_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW` (Linux 5.14)
pub const NOSYMFOLLOW: u64 = 0x0020_0000;

/// What to change of a mount.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before setting.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
}

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Attributes {
    /// Nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Changes the mount that `mount` is the root of (an `open_tree` or `fsmount` descriptor), with `recursive` all below it too; with
/// `idmap` its ids become mapped by that user namespace, for good.
///
/// # Errors
/// As mount_setattr(2): EINVAL when the file system has no id mapping or the mount is not detached, EPERM without rights over
/// the file system's user namespace.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: Attributes,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let attributes = MountAttr {
        set: attributes.set | if idmap.is_some() { IDMAP } else { 0 },
        clear: attributes.clear,
        propagation: attributes.propagation,
        user_namespace: idmap.map_or(0, |namespace| namespace.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH as usize
        | if recursive {
            libc::AT_RECURSIVE as usize
        } else {
            0
        };
    // SAFETY: the path is a C string, the attributes live over the call and their size is given.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_mount_setattr,
            [
                mount.as_raw_fd() as usize,
                c"".as_ptr() as usize,
                flags,
                (&raw const attributes) as usize,
                size_of::<MountAttr>(),
                0,
            ],
        )
    })
    .map(drop)
}
