//! Which security modules with labels this host has.

use std::path::Path;

/// AppArmor confines processes here.
pub(super) fn apparmor_is_active() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// SELinux has a policy here.
pub(super) fn selinux_is_active() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}
