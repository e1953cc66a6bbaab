//! Limits, capabilities, ids: from the container's root to the command's user.

use coracle_linux::capability;
use rustix::io::Errno;
use rustix::process::setrlimit;
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::Walk;
use crate::plan::{Command, Identity};
use crate::step::Step;

impl Walk<'_> {
    pub(super) fn set_credentials(
        &self,
        command: &Command,
        identity: &Identity,
    ) -> Result<(), Errno> {
        for (index, (resource, limit)) in command.rlimits.iter().enumerate() {
            self.at_index(Step::SettingRlimit, index);
            setrlimit(*resource, *limit)?;
        }
        if command.no_new_privileges {
            self.at(Step::NoNewPrivileges);
            set_no_new_privs(true)?;
        }
        if let Some(sets) = &command.capabilities {
            // While CAP_SETPCAP is still there.
            self.at(Step::DroppingBoundingSet);
            capability::bound(sets.bounding)?;
            set_keep_capabilities(true)?;
        }
        if let Some(groups) = &identity.groups {
            self.at(Step::SettingGroups);
            set_thread_groups(groups)?;
        }
        self.at(Step::SettingGid);
        set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
        self.at(Step::SettingUid);
        set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
        // A change of ids takes the death signal away.
        self.die_with_parent()?;
        if let Some(sets) = &command.capabilities {
            self.at(Step::SettingCapabilities);
            set_keep_capabilities(false)?;
            let (mut effective, mut permitted) = (sets.effective, sets.permitted);
            if command.no_new_privileges && identity.uid.as_raw() != 0 {
                // The exec takes them from an ordinary user anyway; until then the kernel counts them as his, and lets a
                // file's capabilities up to them pass in spite of no_new_privs.
                permitted.0 &= sets.ambient.0;
                effective.0 &= sets.ambient.0;
            }
            capability::set(effective, permitted, sets.inheritable)?;
            self.at(Step::SettingAmbient);
            capability::set_ambient(sets.ambient)?;
        }
        Ok(())
    }
}
