//! Cgroup, namespaces, ids: from the host into what the container is.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_linux::descriptor::Fd;
use coracle_linux::{futex, link, namespace};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, write};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::setrlimit;
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Walk;
use crate::plan::{Container, FileSystem, Join, Source, Sysctl, life, word};
use crate::step::Step;

impl Walk<'_> {
    pub(super) fn join_existing(&self, container: &Container) -> Result<(), Errno> {
        // Cgroups first: the cgroup namespace shows as its root the cgroup that the process is in when it is made.
        self.join_cgroups(&container.tasks)?;
        if let Some(user_namespace) = &container.user_namespace {
            self.at(Step::JoiningUserNamespace);
            namespace::join(user_namespace.as_fd(), namespace::USER)?;
            self.die_with_parent()?;
        }
        for (index, (fd, kind)) in container.join.iter().enumerate() {
            self.at_index(Step::JoiningNamespace, index);
            namespace::join(fd.as_fd(), *kind)?;
        }
        Ok(())
    }

    pub(super) fn enter_namespaces(&self, container: &Container) -> Result<(), Errno> {
        if container.unshare != 0 {
            self.at(Step::CreatingNamespaces);
            namespace::unshare(container.unshare)?;
        }
        if container.loopback {
            self.at(Step::LoopbackUp);
            link::loopback_up()?;
        }
        futex::set(self.plan.mailbox.word(word::LIFE), life::IN_NAMESPACES);
        if container.wait_for_ids {
            self.at(Step::WaitingForIds);
            self.wait_for(word::IDS)?;
        }
        if let Some(ids) = container.root_ids {
            self.become_root(ids)?;
        }
        Ok(())
    }

    pub(super) fn join(&self, join: &Join) -> Result<(), Errno> {
        if let Some((proc, value)) = &join.oom_score_adj {
            self.at(Step::SettingOomScore);
            // `self` is a link of procfs's own text, resolved to our pid in the namespace of that procfs.
            let file = Fd::from(openat2(
                proc,
                c"self/oom_score_adj",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH,
            )?);
            write(&file, value)?;
        }
        if let Some(set) = self
            .plan
            .command
            .affinity
            .and_then(|affinity| affinity.initial)
        {
            self.at(Step::SettingAffinity);
            rustix::thread::sched_setaffinity(None, &set)?;
        }
        for (index, limit) in &join.raise {
            self.at_index(Step::SettingRlimit, *index);
            let (resource, _) = self.plan.command.rlimits.get(*index).ok_or(Errno::INVAL)?;
            setrlimit(*resource, *limit)?;
        }
        self.join_cgroups(&join.tasks)?;
        if join.namespaces != 0 {
            self.at(Step::JoiningNamespace);
            namespace::join(join.pidfd.as_fd(), join.namespaces)?;
        }
        if let Some(ids) = join.root_ids {
            self.become_root(ids)?;
        }
        Ok(())
    }

    fn join_cgroups(&self, tasks: &[OwnedFd]) -> Result<(), Errno> {
        for (index, file) in tasks.iter().enumerate() {
            self.at_index(Step::JoiningCgroup, index);
            // 0 is the writer; a process that moves itself spares the kernel a grace period.
            write(file, b"0")?;
        }
        Ok(())
    }

    fn become_root(&self, (uid, gid, groups): (Uid, Gid, bool)) -> Result<(), Errno> {
        self.at(Step::BecomingRoot);
        if groups {
            set_thread_groups(&[])?;
        }
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        self.die_with_parent()
    }

    pub(super) fn set_names(&self, container: &Container) -> Result<(), Errno> {
        if let Some(name) = &container.host_name {
            self.at(Step::SettingHostName);
            sethostname(name.to_bytes())?;
        }
        if let Some(name) = &container.domain_name {
            self.at(Step::SettingDomainName);
            setdomainname(name.to_bytes())?;
        }
        Ok(())
    }

    /// Writes the sysctls through the procfs that the container will have, or else one for this alone: it is detached,
    /// so nobody can have put anything over it.
    pub(super) fn set_sysctls(
        &self,
        sysctls: &[Sysctl],
        file_system: Option<&FileSystem>,
    ) -> Result<(), Errno> {
        if sysctls.is_empty() {
            return Ok(());
        }
        let ready = file_system.and_then(|tree| match &tree.mounts.get(tree.proc?)?.source {
            Source::New { made, .. } => made.borrow(),
            _ => None,
        });
        if let Some(proc) = ready {
            return self.write_sysctls(sysctls, proc);
        }
        self.at(Step::MountingProcForSysctl);
        let context = Fd::from(fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?);
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = Fd::from(fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?);
        self.write_sysctls(sysctls, proc.as_fd())
    }

    fn write_sysctls(&self, sysctls: &[Sysctl], proc: BorrowedFd<'_>) -> Result<(), Errno> {
        for (index, sysctl) in sysctls.iter().enumerate() {
            self.at_index(Step::SettingSysctl, index);
            let path: &CStr = &sysctl.path;
            let file = Fd::from(openat2(
                proc,
                path,
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
            )?);
            write(&file, &sysctl.value)?;
        }
        Ok(())
    }
}
