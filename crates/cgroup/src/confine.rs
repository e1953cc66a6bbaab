//! Putting device rules into force: lines for v1, a program for v2.

use std::os::fd::AsFd;
use std::path::Path;

use coracle_linux::bpf;

use crate::control;
use crate::device_program;
use crate::devices::DeviceRules;
use crate::error::{Error, Result};

/// v1: the default, then the exceptions. What was allowed before and stays so is never taken away in between.
pub(crate) fn set_devices_legacy(path: &Path, rules: &DeviceRules) -> Result<()> {
    let legacy = rules.legacy()?;
    let (allow, deny) = (path.join("devices.allow"), path.join("devices.deny"));
    if legacy.allow_by_default {
        control::write(&allow, "a")?;
        return control::write_each(&deny, &legacy.exceptions);
    }
    let list = control::read(&path.join("devices.list"))?;
    let listed: Vec<&str> = list.lines().collect();
    if listed.iter().any(|line| line.starts_with('a')) {
        control::write(&deny, "a")?;
        return control::write_each(&allow, &legacy.exceptions);
    }
    for line in legacy
        .exceptions
        .iter()
        .filter(|line| !listed.contains(&line.as_str()))
    {
        control::write(&allow, line)?;
    }
    // Denying takes letters off the very line, so what a new line shares with an old one is given again.
    for line in listed
        .iter()
        .filter(|line| !legacy.exceptions.iter().any(|exception| exception == *line))
    {
        control::write(&deny, line)?;
        let device = |line: &str| line.rsplit_once(' ').map(|(device, _)| device.to_owned());
        if let Some(kept) = legacy
            .exceptions
            .iter()
            .find(|exception| device(exception) == device(line))
        {
            control::write(&allow, kept)?;
        }
    }
    Ok(())
}

/// v2: a program in place of the one before, which goes on until the moment of the exchange.
pub(crate) fn set_devices_unified(path: &Path, rules: &DeviceRules) -> Result<()> {
    let failed = |source| Error::DeviceProgram {
        path: path.to_owned(),
        source,
    };
    let cgroup = control::open_directory(path)?;
    let program = bpf::load_device_program(&device_program::compile(rules)).map_err(failed)?;
    let attached = bpf::attached_device_programs(cgroup.as_fd()).map_err(failed)?;
    let (replaced, others) = match attached.split_last() {
        Some((last, others)) => (Some(last.as_fd()), others),
        None => (None, &[][..]),
    };
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), replaced).map_err(failed)?;
    // All programs of a cgroup must allow an access; an older one (systemd's, say) would keep its word.
    others
        .iter()
        .try_for_each(|other| bpf::detach_device_program(cgroup.as_fd(), other.as_fd()))
        .map_err(failed)
}
