//! Memory limits as files.

use super::validate::check_swap;
use super::{Files, Previous, Setting};
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::limits::Limits;

const NO_SWAP_ACCOUNTING: &str =
    "boot with swapaccount=1 and a kernel with CONFIG_SWAP, or leave the swap limit away";

pub(super) fn memory_legacy(
    limits: &Limits,
    files: &dyn Files,
    list: &mut Vec<Setting>,
) -> Result<()> {
    let memory =
        |limit, file: &str, value: i64| Setting::new(Controller::Memory, limit, file, value);
    if let Some(bytes) = limits.memory {
        list.push(memory("memory", "memory.limit_in_bytes", bytes));
    }
    if let Some(total) = limits.memory_swap {
        if !files.exists(Controller::Memory, "memory.memsw.limit_in_bytes") {
            return Err(Error::Unsupported {
                wanted: "memory_swap".into(),
                reason: "this kernel does not account for swap by cgroup".into(),
                remedy: Some(NO_SWAP_ACCOUNTING.into()),
            });
        }
        list.push(memory("memory_swap", "memory.memsw.limit_in_bytes", total));
    }
    if let Some(bytes) = limits.memory_reservation {
        list.push(memory(
            "memory_reservation",
            "memory.soft_limit_in_bytes",
            bytes,
        ));
    }
    if let Some(bytes) = limits.memory_kernel_tcp {
        list.push(memory(
            "memory_kernel_tcp",
            "memory.kmem.tcp.limit_in_bytes",
            bytes,
        ));
    }
    if let Some(swappiness) = limits.memory_swappiness {
        list.push(memory(
            "memory_swappiness",
            "memory.swappiness",
            swappiness as i64,
        ));
    }
    if let Some(disable) = limits.oom_kill_disable {
        list.push(
            memory("oom_kill_disable", "memory.oom_control", i64::from(disable))
                .previous(Previous::Flat("oom_kill_disable")),
        );
    }
    Ok(())
}

pub(super) fn unsupported_on_unified(wanted: &str, reason: &str, remedy: &str) -> Error {
    Error::Unsupported {
        wanted: wanted.into(),
        reason: reason.into(),
        remedy: Some(remedy.into()),
    }
}

pub(super) fn max_or(bytes: i64) -> String {
    if bytes < 0 {
        "max".into()
    } else {
        bytes.to_string()
    }
}

pub(super) fn memory_unified(
    limits: &Limits,
    files: &dyn Files,
    list: &mut Vec<Setting>,
) -> Result<()> {
    if limits.memory_swappiness.is_some() {
        return Err(unsupported_on_unified(
            "memory_swappiness",
            "v2 has no swappiness of a cgroup",
            "leave it away, or forbid swap by setting memory_swap to the memory limit",
        ));
    }
    if limits.memory_kernel_tcp.is_some() {
        return Err(unsupported_on_unified(
            "memory_kernel_tcp",
            "v2 counts TCP buffers as memory",
            "use the memory limit",
        ));
    }
    if limits.oom_kill_disable == Some(true) {
        return Err(unsupported_on_unified(
            "oom_kill_disable",
            "v2 always kills when memory runs out",
            "set memory.high below the limit, which slows down instead",
        ));
    }
    if let Some(bytes) = limits.memory {
        list.push(Setting::new(
            Controller::Memory,
            "memory",
            "memory.max",
            max_or(bytes),
        ));
    }
    if let Some(total) = limits.memory_swap {
        if !files.exists(Controller::Memory, "memory.swap.max") {
            return Err(unsupported_on_unified(
                "memory_swap",
                "this kernel does not account for swap by cgroup",
                NO_SWAP_ACCOUNTING,
            ));
        }
        let swap = if total < 0 {
            "max".to_owned()
        } else {
            (total - memory_in_force(limits, files, total)?).to_string()
        };
        list.push(Setting::new(
            Controller::Memory,
            "memory_swap",
            "memory.swap.max",
            swap,
        ));
    }
    if let Some(bytes) = limits.memory_reservation {
        list.push(Setting::new(
            Controller::Memory,
            "memory_reservation",
            "memory.low",
            max_or(bytes),
        ));
    }
    Ok(())
}

/// The memory limit that a total of memory and swap is about: the new one, else the one in force.
fn memory_in_force(limits: &Limits, files: &dyn Files, total: i64) -> Result<i64> {
    if let Some(memory) = limits.memory {
        return Ok(memory);
    }
    let content = files.read(Controller::Memory, "memory.max")?;
    // "max" does not parse, and check_swap refuses a total without a limit.
    let memory = content.trim().parse().unwrap_or(-1);
    check_swap(memory, total).map(|()| memory)
}
