//! The container's tree of mounts, from a detached root to the pivot.
//!
//! First everything that needs no root is made, detached, while the parent puts the root together; then all is attached by
//! descriptor; the host's tree goes last, since the kernel lets a user namespace have a new procfs or sysfs only while it
//! still sees a full one.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::descriptor::{Fd, Slot};
use coracle_linux::mount::{Attributes, RDONLY, set_attributes};
use coracle_linux::root_dir::open_in;
use rustix::fs::{CWD, FileType, Mode, OFlags, fchmod, fstat, makedev, mkdirat, openat};
use rustix::io::{Errno, write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::{Walk, target};
use crate::plan::{Container, FileSystem, Kind, MountStep, Source, word};
use crate::step::Step;

/// Attaches a detached mount onto a target that is held open.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// A detached copy of the mount at a descriptor.
pub(super) fn clone_mount(at: BorrowedFd<'_>, recursive: bool) -> Result<Fd, Errno> {
    open_tree(
        at,
        c"",
        clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH,
    )
    .map(Fd::from)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    }
}

/// A new file system, detached.
fn make(
    kind: &CStr,
    config: &[(std::ffi::CString, Option<std::ffi::CString>)],
    attributes: u64,
) -> Result<Fd, Errno> {
    let context = Fd::from(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
    for (key, value) in config {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(&context, key.as_c_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map(Fd::from)
}

/// Where what goes with the host's tree is attached. Not its root: what lies there when the host's tree is unmounted is
/// unmounted in its place.
fn covered() -> Result<Fd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, c"/proc", flags, Mode::empty()).map(Fd::from)
}

impl Walk<'_> {
    pub(super) fn make_file_system(
        &self,
        container: &Container,
        file_system: &FileSystem,
    ) -> Result<(), Errno> {
        if file_system.detach_propagation {
            self.at(Step::DetachingPropagation);
            // Slave, not private: what the host unmounts also leaves this copy of its tree, and so does not stay busy.
            mount_change(
                c"/",
                MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            )?;
        }
        self.prepare(file_system)?;
        self.set_sysctls(&container.sysctls, Some(file_system))?;
        let null = self.verified_null(file_system)?;
        // From here on the host's /proc is covered.
        self.make_files(file_system)?;
        let root = self.attach_root(file_system)?;
        for (index, mount) in file_system.mounts.iter().enumerate() {
            self.mount(root, mount, index)?;
        }
        self.make_devices(root, file_system)?;
        if let Some(terminal) = self.plan.command.terminal {
            self.make_terminal(root, terminal, file_system.console)?;
        }
        for (index, path) in file_system.read_only.iter().enumerate() {
            self.at_index(Step::MakingReadOnly, index);
            make_read_only(root, path)?;
        }
        self.mask(root, null.as_ref(), file_system)?;
        self.at(Step::MakingWorkingDirectory);
        // A directory that cannot be made because its place is read-only fails at chdir, with a clearer word.
        match target::open_or_make(root, &file_system.working_directory, Kind::Directory, false) {
            Ok(_) | Err(Errno::ROFS | Errno::ACCESS | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
        self.finish_read_only(file_system)?;
        self.wait_for_hooks(container)?;
        if file_system.no_pivot {
            self.at(Step::Pivoting);
            fchdir(root)?;
            chroot(c".")?;
        } else {
            self.pivot(root)?;
        }
        if file_system.root_propagation != 0 {
            self.at(Step::RootPropagation);
            let attributes = Attributes {
                propagation: file_system.root_propagation,
                ..Attributes::default()
            };
            set_attributes(root, false, attributes, None)?;
        }
        if file_system.root_read_only {
            self.at(Step::RootReadOnly);
            let attributes = Attributes {
                set: RDONLY,
                ..Attributes::default()
            };
            set_attributes(root, false, attributes, None)?;
        }
        Ok(())
    }

    /// Everything that needs no root yet.
    fn prepare(&self, file_system: &FileSystem) -> Result<(), Errno> {
        for (index, mount) in file_system.mounts.iter().enumerate() {
            if let Source::New {
                kind,
                config,
                attributes,
                made,
            } = &mount.source
            {
                self.at_index(Step::PreparingMount, index);
                made.put(make(kind, config, *attributes)?);
            }
        }
        Ok(())
    }

    /// The container's own files, into the slots of their mounts. What they are on is attached to the host's tree first:
    /// of a mount that is in no mount namespace nothing can be cloned before Linux 6.15.
    fn make_files(&self, file_system: &FileSystem) -> Result<(), Errno> {
        if file_system.files.is_empty() {
            return Ok(());
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let folder = make(
            c"tmpfs",
            &file_system.files_config,
            u64::from(attributes.bits()),
        )?;
        attach(folder.as_fd(), covered()?.as_fd())?;
        for file in &file_system.files {
            self.at_index(Step::MakingFile, file.mount);
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            let made = Fd::from(openat(&folder, file.name.as_c_str(), flags, mode)?);
            fchmod(&made, mode)?;
            let mut rest = file.content.as_slice();
            while !rest.is_empty() {
                let written = write(&made, rest)?;
                rest = rest.get(written..).unwrap_or_default();
            }
            let Some(Source::Given { mount }) =
                file_system.mounts.get(file.mount).map(|step| &step.source)
            else {
                return Err(Errno::INVAL);
            };
            mount.put(clone_mount(made.as_fd(), false)?);
        }
        Ok(())
    }

    /// The root, attached over the host's, and below it what is to go with the host's tree. The parent may use the root
    /// from here on through its slot.
    fn attach_root<'f>(&self, file_system: &'f FileSystem) -> Result<BorrowedFd<'f>, Errno> {
        self.at(Step::WaitingForRoot);
        let (Source::Given { mount: slot }
        | Source::New { made: slot, .. }
        | Source::Path { made: slot, .. }) = &file_system.root;
        match &file_system.root {
            Source::Given { .. } => self.wait_for(word::ROOT)?,
            Source::New {
                kind,
                config,
                attributes,
                made,
            } => {
                self.at(Step::AttachingRoot);
                self.own_root(made, make(kind, config, *attributes)?)?;
            }
            Source::Path {
                path,
                recursive,
                made,
            } => {
                self.at(Step::AttachingRoot);
                self.own_root(
                    made,
                    Fd::from(open_tree(CWD, path.as_c_str(), clone_flags(*recursive))?),
                )?;
            }
        }
        self.at(Step::AttachingRoot);
        let root = slot.borrow().ok_or(Errno::BADF)?;
        if !file_system.root_attributes.is_empty() {
            set_attributes(root, false, file_system.root_attributes, None)?;
        }
        let over = Fd::from(openat(
            CWD,
            file_system.attach_at.as_c_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        self.put_aside(file_system)?;
        attach(root, over.as_fd())?;
        Ok(root)
    }

    /// Attaches what is spent to the host's tree.
    fn put_aside(&self, file_system: &FileSystem) -> Result<(), Errno> {
        let mut spent = file_system.spent.iter().filter_map(Slot::take).peekable();
        if spent.peek().is_none() {
            return Ok(());
        }
        let place = covered()?;
        spent.try_for_each(|mount| attach(mount.as_fd(), place.as_fd()))
    }

    /// A root that the child had to make itself: shown to the parent, which may want to look into it.
    fn own_root(&self, slot: &Slot, root: Fd) -> Result<(), Errno> {
        slot.put(root);
        coracle_linux::futex::set(self.plan.mailbox.word(word::OWN_ROOT), 1);
        self.at(Step::WaitingForRoot);
        self.wait_for(word::ROOT)
    }

    fn mount(&self, root: BorrowedFd<'_>, mount: &MountStep, index: usize) -> Result<(), Errno> {
        self.at_index(Step::Mounting, index);
        let detached = match &mount.source {
            Source::New { made: slot, .. } | Source::Given { mount: slot } => {
                slot.take().ok_or(Errno::BADF)?
            }
            Source::Path {
                path, recursive, ..
            } => Fd::from(open_tree(CWD, path.as_c_str(), clone_flags(*recursive))?),
        };
        if !mount.recursive_attributes.is_empty() {
            set_attributes(detached.as_fd(), true, mount.recursive_attributes, None)?;
        }
        if !mount.attributes.is_empty() {
            set_attributes(detached.as_fd(), false, mount.attributes, None)?;
        }
        let kind = match mount.kind {
            Kind::AsSource
                if FileType::from_raw_mode(fstat(&detached)?.st_mode) == FileType::Directory =>
            {
                Kind::Directory
            }
            Kind::AsSource => Kind::File,
            kind => kind,
        };
        self.at_index(Step::ResolvingTarget, index);
        let target = target::open_or_make(root, &mount.target, kind, mount.no_links)?;
        if !mount.on_proc && target::is_on_proc(&target)? {
            self.at_index(Step::TargetOnProc, index);
            return Err(Errno::PERM);
        }
        self.at_index(Step::Mounting, index);
        attach(detached.as_fd(), target.as_fd())?;
        if !mount.inner.is_empty() {
            fchdir(&detached)?;
            for inner in &mount.inner {
                mkdirat(CWD, inner.name.as_c_str(), Mode::from_raw_mode(0o755))?;
                let flags = MountFlags::from_bits_retain(inner.flags);
                rustix::mount::mount(
                    inner.kind.as_c_str(),
                    inner.name.as_c_str(),
                    inner.kind.as_c_str(),
                    flags,
                    inner.data.as_c_str(),
                )?;
            }
        }
        if let Some(late) = &mount.late_read_only {
            late.put(detached);
        }
        Ok(())
    }

    /// File systems in which others had to be mounted before they could become read-only.
    fn finish_read_only(&self, file_system: &FileSystem) -> Result<(), Errno> {
        for (index, mount) in file_system.mounts.iter().enumerate() {
            let Some(mounted) = mount.late_read_only.as_ref().and_then(Slot::take) else {
                continue;
            };
            self.at_index(Step::MakingMountReadOnly, index);
            let attributes = Attributes {
                set: RDONLY,
                ..Attributes::default()
            };
            set_attributes(mounted.as_fd(), false, attributes, None)?;
        }
        Ok(())
    }

    /// The null device of the host's tree, proven by its number: whatever it is gets bound over masked files
    /// (CVE-2025-31133).
    fn verified_null(&self, file_system: &FileSystem) -> Result<Option<Fd>, Errno> {
        if file_system.masked.is_empty() {
            return Ok(None);
        }
        self.at(Step::VerifyingNull);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = Fd::from(openat(CWD, c"/dev/null", flags, Mode::empty())?);
        let status = fstat(&null)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice
            || status.st_rdev != makedev(1, 3)
        {
            return Err(Errno::NODEV);
        }
        Ok(Some(null))
    }

    fn mask(
        &self,
        root: BorrowedFd<'_>,
        null: Option<&Fd>,
        file_system: &FileSystem,
    ) -> Result<(), Errno> {
        let mut empty: Option<Fd> = None;
        let mut covered: Option<Fd> = None;
        for (index, path) in file_system.masked.iter().enumerate() {
            self.at_index(Step::Masking, index);
            let Some(target) = existing(root, path)? else {
                continue;
            };
            if FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory {
                // One empty file system stands for all; later ones are copies of the first mount.
                let detached = match &empty {
                    Some(first) => clone_mount(first.as_fd(), false)?,
                    None => {
                        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY
                            | MountAttrFlags::MOUNT_ATTR_NOSUID
                            | MountAttrFlags::MOUNT_ATTR_NODEV
                            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                        make(c"tmpfs", &[], u64::from(read_only.bits()))?
                    }
                };
                attach(detached.as_fd(), target.as_fd())?;
                if empty.is_none() {
                    empty = Some(detached);
                }
            } else if let Some(null) = null {
                let detached = match &covered {
                    Some(first) => clone_mount(first.as_fd(), false)?,
                    None => {
                        // Read-only: the device answers all the same, and its node, which may be the host's for the
                        // container's root as well, keeps its mode and owner.
                        let first = clone_mount(null.as_fd(), false)?;
                        let attributes = Attributes {
                            set: RDONLY,
                            ..Attributes::default()
                        };
                        set_attributes(first.as_fd(), false, attributes, None)?;
                        first
                    }
                };
                attach(detached.as_fd(), target.as_fd())?;
                if covered.is_none() {
                    covered = Some(detached);
                }
            }
        }
        Ok(())
    }

    fn pivot(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        self.at(Step::Pivoting);
        fchdir(root)?;
        // Both the same: the old root ends up mounted over the new one, from where it is taken off.
        pivot_root(c".", c".")?;
        self.at(Step::LeavingOldRoot);
        unmount(c".", UnmountFlags::DETACH)?;
        chdir(c"/")
    }
}

/// A path in the root, or nothing when it is not there.
fn existing(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<Fd>, Errno> {
    match open_in(root, path, OFlags::PATH, Mode::empty()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let Some(target) = existing(root, path)? else {
        return Ok(());
    };
    let copy = clone_mount(target.as_fd(), true)?;
    let attributes = Attributes {
        set: RDONLY,
        ..Attributes::default()
    };
    set_attributes(copy.as_fd(), true, attributes, None)?;
    attach(copy.as_fd(), target.as_fd())
}
