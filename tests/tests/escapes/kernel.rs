//! The kernel's own switches: settings, sysrq, modules, its log, system calls that reach the whole machine, and the
//! files by which a privileged writer makes the kernel run a program on the host.
//!
//! Where an attempt could harm the host if it worked, it is aimed at something harmless: a value is written back to
//! itself, sysrq is asked for its help, a module's name does not exist.

use std::fs;
use std::path::Path;

use coracle_tests::{Engine, compile, host};

use crate::stage::{HOST_USERS, as_user, attack, everywhere, with_own_users};

/// All that flags give away and the user namespace still holds.
const WIDE: &str = "--cap-add ALL --security-opt unmask=ALL --security-opt seccomp=unconfined";

#[test]
fn kernel_settings_cannot_be_written() {
    let files = [
        "core_pattern",
        "modprobe",
        "hotplug",
        "poweroff_cmd",
        "panic",
    ];
    let files = files.map(|file| format!("/proc/sys/kernel/{file}"));
    let read = || {
        files
            .clone()
            .map(|file| fs::read_to_string(file).unwrap_or_default())
    };
    let before = read();
    let write = format!(
        "for f in {} /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run; do \
         [ -e $f ] || continue; v=$(cat $f 2>/dev/null); ( echo \"$v\" > $f ) 2>/dev/null && echo WROTE $f; done; ",
        files.join(" ")
    );
    // Whoever may mount may make the read-only mounts of /proc writable again; the files are still not his.
    let script =
        format!("{write} mount -o remount,rw /proc/sys; mount -o remount,rw /sys; {write} true");
    everywhere(|engine, stance| {
        engine.sh(stance, &script).success().not_out("WROTE");
    });
    with_own_users(|engine, _| {
        for options in ["--cap-add ALL", WIDE] {
            engine.sh(options, &script).success().not_out("WROTE");
        }
    });
    assert_eq!(read(), before);
}

#[test]
fn sysrq_cannot_be_triggered() {
    let script = "( echo h > /proc/sysrq-trigger ) 2>/dev/null && echo WROTE; true";
    everywhere(|engine, stance| {
        engine.sh(stance, script).success().not_out("WROTE");
    });
    with_own_users(|engine, _| {
        for options in ["--cap-add ALL", WIDE] {
            engine.sh(options, script).success().not_out("WROTE");
        }
    });
}

#[test]
fn modules_and_the_kernels_log_are_out_of_reach() {
    with_own_users(|engine, _| {
        let module = engine.make_file("m.ko", b"\x7fELF no module");
        let options = format!("{WIDE} -v {}:/m.ko:noidmap", module.display());
        // The kernel refuses the caller (EPERM) before it reads the file (ENOEXEC).
        engine
            .sh(&options, "insmod /m.ko 2>&1; true")
            .not_out("xec format")
            .not_out("invalid module format");
        let script = "dmesg 2>/dev/null | head -n1 | grep -q . && echo GOT; true";
        for options in ["", "--cap-add SYSLOG --security-opt seccomp=unconfined"] {
            engine.sh(options, script).success().not_out("GOT");
        }
    });
}

/// A registration is a program of root's for every executable of that form on the host. Since 6.7 a user namespace may
/// have a table of its own: what is written there is for that namespace alone.
#[test]
fn binfmt_misc_of_the_host_cannot_be_registered_with() {
    let magic = format!("coracle{}", std::process::id());
    let script = format!(
        "mkdir /tmp/b; mount -t binfmt_misc none /tmp/b 2>/dev/null; for d in /tmp/b /proc/sys/fs/binfmt_misc; do \
         ( echo ':{magic}:M::{magic}::/bin/true:F' > $d/register ) 2>/dev/null && echo registered; done; true"
    );
    with_own_users(|engine, _| {
        let program = engine.make_file("program", format!("{magic}\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).expect("it is ours");
        for options in ["", WIDE] {
            engine.detached(
                &format!("--name c1 {options}"),
                &format!("{script}; echo ready; sleep 100"),
            );
            engine.until_logged("c1", "ready");
            // While the container lives, the host does not know the form.
            let error = std::process::Command::new(&program).status();
            let error = error.expect_err("no program of the host's runs this");
            assert_eq!(error.raw_os_error(), Some(8), "ENOEXEC");
            assert!(!Path::new("/proc/sys/fs/binfmt_misc").join(&magic).exists());
            engine.ok("rm -f c1");
        }
    });
}

/// What the default filter refuses, and what the kernel then still refuses without it.
#[test]
fn system_calls_that_reach_the_machine_are_refused() {
    let filtered = [
        "perf_event_open",
        "bpf",
        "userfaultfd",
        "io_uring_setup",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "settimeofday",
        "swapon",
        "swapoff",
        "syslog",
        "acct",
        "quotactl",
        "open_by_handle_at",
        "unshare user",
        "unshare mount",
        "setns",
        "mount",
        "fsopen",
        "open_tree",
        "pivot_root",
        "fanotify_init",
        "keyctl",
        "add_key",
        "request_key",
        "move_pages",
    ];
    let of_the_host = [
        "perf_event_open",
        "bpf",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "settimeofday",
        "swapon",
        "swapoff",
        "syslog",
        "acct",
    ];
    let check = |lines: &str, names: &[&str]| {
        for name in names {
            let start = format!("{name}: ");
            let line = lines.lines().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_else(|| panic!("{name} was not tried: {lines}"));
            let refused = ["EPERM", "EACCES", "ENOSYS"];
            assert!(refused.contains(&&line[start.len()..]), "{line}");
        }
        assert!(lines.ends_with("done\n"), "{lines}");
    };
    everywhere(|engine, stance| {
        let Some(program) = compile("calls", engine.dir()) else {
            return;
        };
        let seen = attack(engine, &program, stance, &[]).success();
        check(&seen.stdout, &filtered);
        seen.not_out("x32: GOT");
        if stance != HOST_USERS {
            let seen = attack(engine, &program, WIDE, &[]).success();
            check(&seen.stdout, &of_the_host);
            // The program would tell: what the container's own users allow, it does.
            for allowed in ["unshare user: GOT", "unshare mount: GOT", "fsopen: GOT"] {
                assert!(seen.stdout.contains(allowed), "{seen:?}");
            }
        }
    });
}

/// Copy Fail: AF_ALG let a program write into the page cache of files that it may only read, and so into layers that
/// other containers share. AF_VSOCK reaches what manages the host, where that is a virtual machine.
#[test]
fn cve_2026_31431_socket_families_of_the_machine_are_filtered() {
    everywhere(|engine, stance| {
        let Some(program) = compile("sockets", engine.dir()) else {
            return;
        };
        let seen = attack(engine, &program, stance, &[]).success().out("done");
        let seen = seen.out("socket AF_INET: GOT");
        for family in ["AF_ALG", "AF_VSOCK"] {
            for how in ["socket", "socket32"] {
                if seen.stdout.contains(&format!("{how} ")) {
                    let line = format!("{how} {family}: filtered");
                    assert!(seen.stdout.contains(&line), "no {line:?} in {seen:?}");
                }
            }
            // The arguments of the old multiplexer are behind a pointer; SECURITY.md says what that leaves open.
        }
        let open = attack(engine, &program, "--security-opt seccomp=unconfined", &[]);
        open.success().not_out("socket AF_ALG: filtered");
    });
}

/// cr8escape: a value with `+` in it was a second setting for the helper that wrote them; and settings that no
/// namespace has of its own, by every spelling of their name.
#[test]
fn cve_2022_0811_settings_of_the_host_are_refused_by_every_name() {
    let mark = "|/bin/false coracle";
    let names = [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net.ipv4.../kernel.core_pattern",
        "net..kernel.core_pattern",
        "fs.mqueue/../../kernel/core_pattern",
        "/kernel/core_pattern",
        "kernel.shm_rmid_forced=0+kernel.core_pattern",
        "kernel.modprobe",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.yama.ptrace_scope",
        "user.max_user_namespaces",
    ];
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("procfs");
    everywhere(|engine, stance| {
        for name in names {
            let mut line = coracle_tests::words(&format!("run --rm {stance} --sysctl"));
            line.push(format!("{name}={mark}"));
            line.extend(["busybox", "true"].map(str::to_owned));
            let outcome = engine.command(line).run();
            assert_eq!(outcome.code, 125, "{outcome:?}");
        }
        // What does have a namespace is set there.
        let set = format!("{stance} --sysctl kernel.shm_rmid_forced=1");
        assert_eq!(
            engine.sh_ok(&set, "cat /proc/sys/kernel/shm_rmid_forced"),
            "1"
        );
    });
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/core_pattern").expect("procfs"),
        before
    );
}

/// CRI-O set the "safe" settings of a pod that had the host's namespaces, and so the host's.
#[test]
fn cve_2022_0532_settings_of_a_namespace_that_is_the_hosts_are_refused() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let forward = || fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").expect("procfs");
    let shm = || fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("procfs");
    let before = (forward(), shm());
    for options in [
        "--net host --sysctl net.ipv4.ip_default_ttl=77",
        "--ipc host --sysctl kernel.shm_rmid_forced=1",
        "--ipc host --sysctl fs.mqueue.msg_max=77",
        "--uts host --sysctl kernel.hostname=escaped",
        "--uts host --sysctl kernel.domainname=escaped",
    ] {
        engine.refuses(&format!("run --rm {options} busybox true"));
        engine.refuses(&format!("run --rm --userns host {options} busybox true"));
    }
    assert_eq!((forward(), shm()), before);
    let own = "--sysctl net.ipv4.ip_default_ttl=77";
    assert_eq!(
        engine.sh_ok(own, "cat /proc/sys/net/ipv4/ip_default_ttl"),
        "77"
    );
}

/// Docker before 1.6.1 left parts of /proc writable or readable that are the host's; later /proc/acpi
/// (CVE-2018-10892: the host's hardware) and the powercap counters (CVE-2020-8694: a side channel) followed.
#[test]
fn cve_2015_3630_files_of_the_machine_are_masked_or_read_only() {
    let masked = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    let read_only = [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/sys",
    ];
    let script = format!(
        "for p in {}; do [ -d $p ] && [ -n \"$(ls -A $p)\" ] && echo READ $p; \
         [ -f $p ] && [ -n \"$(head -c1 $p 2>/dev/null | tr '\\0' x)\" ] && echo READ $p; done; \
         for p in {}; do find $p -xdev -type f -maxdepth 3 2>/dev/null | while read f; do \
         ( : >> $f ) 2>/dev/null && echo WROTE $f; done; done; true",
        masked.join(" "),
        read_only.join(" ")
    );
    everywhere(|engine, stance| {
        engine
            .sh(stance, &script)
            .success()
            .not_out("READ")
            .not_out("WROTE");
    });
    // The script would tell: without masks it reads what the host has.
    let open = Engine::new()
        .sh("--security-opt systempaths=unconfined", &script)
        .success();
    if fs::read("/proc/interrupts").is_ok() {
        open.out("READ /proc/interrupts");
    }
}

/// A write to memory, ports or the kernel's messages needs a device that no container has.
#[test]
fn memory_of_the_machine_has_no_device_inside() {
    as_user(|engine| no_devices(engine, ""));
    let engine = Engine::new();
    no_devices(&engine, "");
    no_devices(&engine, WIDE);
}

fn no_devices(engine: &Engine, options: &str) {
    let script = "for d in mem kmem port kmsg nvram fuse kvm loop0 loop-control vda sda nvme0n1 mapper/control \
                  net/tun uinput vhost-vsock; do [ -e /dev/$d ] && echo GOT $d; done; true";
    engine.sh(options, script).success().not_out("GOT");
}
