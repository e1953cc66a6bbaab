//! The filter that a container gets when nobody says otherwise.
//!
//! It is an allow list: what is not named returns EPERM. The facts are those of Docker's default profile
//! (github.com/moby/profiles, `seccomp/default_linux.go`, as of 2026), so that what runs there runs here:
//!
//! - Everything ordinary programs need; file, memory, process, signal, timer, IPC and socket calls.
//! - Namespaces (`unshare`, `setns`, `clone` with `CLONE_NEW*`) and mounts only with CAP_SYS_ADMIN. Without it `clone3`
//!   returns ENOSYS, because its flags are behind a pointer that no filter can read; C libraries then use `clone`.
//! - Calls that a capability guards (`ptrace` on old kernels, `reboot`, `bpf`, clock setting, …) only with it.
//! - `socket` for the families that are of use: not AF_ALG (CVE-2026-31431) and AF_VSOCK (reaches the host's virtual machines),
//!   nor families that the kernel no longer has. `socketcall` of 32-bit x86 stays allowed, and its family cannot be
//!   seen; blocking AF_ALG there is for an LSM.
//! - No `io_uring_*` (its operations pass filters by), `keyctl`, `add_key`, `request_key` (keyrings are not
//!   namespaced), `userfaultfd`, `kexec_*`, `swapon`, `open_by_handle_at` without CAP_DAC_READ_SEARCH.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::{Architecture, Context, KernelVersion};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// ptrace goes past a filter before this kernel (a traced call's number could be changed after the filter saw it).
const PTRACE_FILTERED: KernelVersion = KernelVersion { major: 4, minor: 8 };

/// Allowed for everybody.
#[rustfmt::skip]
const ORDINARY: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close",
    "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd",
    "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64",
    "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list",
    "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32",
    "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid",
    "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr",
    "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
    "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl",
    "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listmount",
    "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise",
    "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod",
    "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap",
    "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
    "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "pselect6",
    "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr",
    "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "riscv_hwprobe", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
    "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt",
    "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack",
    "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64",
    "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs",
    "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask",
    "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork",
    "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];

/// Socket families below this one are allowed (AF_UNSPEC, which nobody can create, to AF_ROSE).
const FIRST_FAMILY_NOT_ALLOWED: u64 = 12;

/// The other allowed families: NETBEUI, SECURITY, KEY, NETLINK, PACKET, ASH; RDS, SNA; PPPOX; LLC, IB, MPLS, CAN, TIPC,
/// BLUETOOTH, IUCV, RXRPC; PHONET, IEEE802154; NFC; KCM, QIPCRTR, SMC, XDP, MCTP. The gaps: DECnet (12), ECONET (19),
/// ATMSVC (20), IRDA (23), WANPIPE (25), ISDN (34) and CAIF (37) are gone from the kernel; ALG (38) and VSOCK (40) are blocked.
const FURTHER_FAMILIES: &[u64] = &[
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];

/// PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 | UNAME26, and the question which one it is.
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Allowed where the container may have the capability.
const WITH_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (
        Capability::SysModule,
        &["delete_module", "init_module", "finit_module"],
    ),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &[
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    ),
    (Capability::SysRawio, &["iopl", "ioperm"]),
    (
        Capability::SysTime,
        &["settimeofday", "stime", "clock_settime", "clock_settime64"],
    ),
    (Capability::SysTtyConfig, &["vhangup"]),
    (
        Capability::SysNice,
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// The default profile for a container with `context`'s capabilities on its kernel.
#[must_use]
pub fn default_profile(context: &Context<'_>) -> LinuxSeccomp {
    let mut rules = Vec::with_capacity(64);
    let mut allow = |names: &[&str], argument: Option<LinuxSeccompArg>| {
        rules.push(rule(names, LinuxSeccompAction::ScmpActAllow, argument));
    };
    allow(ORDINARY, None);
    if context.kernel >= PTRACE_FILTERED {
        allow(&["process_vm_readv", "process_vm_writev", "ptrace"], None);
    }
    allow(
        &["socket"],
        Some(argument(
            LinuxSeccompOperator::ScmpCmpLt,
            FIRST_FAMILY_NOT_ALLOWED,
        )),
    );
    for &family in FURTHER_FAMILIES {
        allow(
            &["socket"],
            Some(argument(LinuxSeccompOperator::ScmpCmpEq, family)),
        );
    }
    for &personality in PERSONALITIES {
        allow(
            &["personality"],
            Some(argument(LinuxSeccompOperator::ScmpCmpEq, personality)),
        );
    }
    match context.architecture {
        Architecture::X86_64 | Architecture::X32 => allow(&["arch_prctl", "modify_ldt"], None),
        Architecture::X86 => allow(&["modify_ldt"], None),
        Architecture::Aarch64 | Architecture::Arm => allow(
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ],
            None,
        ),
        Architecture::Riscv64 => allow(&["riscv_flush_icache"], None),
    }
    for (capability, names) in WITH_CAPABILITY {
        if context.capabilities.contains(capability) {
            allow(names, None);
        }
    }
    if !context.capabilities.contains(&Capability::SysAdmin) {
        // (flags & namespaces) == 0: valueTwo is absent and so 0.
        allow(
            &["clone"],
            Some(argument(
                LinuxSeccompOperator::ScmpCmpMaskedEq,
                CLONE_NAMESPACES,
            )),
        );
        let mut absent = rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, None);
        absent.set_errno_ret(Some(ENOSYS));
        rules.push(absent);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(EPERM));
    profile.set_architectures(Some(architectures(context.architecture)));
    profile.set_syscalls(Some(rules));
    profile
}

/// The kernel's own architecture and those of its programs that Docker lets in.
fn architectures(native: Architecture) -> Vec<Arch> {
    match native {
        Architecture::X86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Architecture::Aarch64 => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        other => vec![other.document()],
    }
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    argument: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|&name| name.to_owned()).collect());
    rule.set_action(action);
    rule.set_args(argument.map(|argument| vec![argument]));
    rule
}

/// A condition on the first argument.
fn argument(operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .op(operator)
        .value(value)
        .build();
    argument.expect("every field of a condition has a default")
}
