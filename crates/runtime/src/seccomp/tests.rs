//! What documents mean, case by case; each program is also compared with the naive reading.

use std::collections::HashSet;

use oci_spec::runtime::{
    Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::compile::{BAD_ARCHITECTURE, NOT_IMPLEMENTED};
use super::differential::{agree, condition};
use super::interpreter::{Data, run_checked};
use super::{
    Architecture, Context, Error, KernelVersion, Program, compile, default_profile, load_profile,
    lookup,
};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

fn default_for(capabilities: &[Capability], architecture: Architecture) -> LinuxSeccomp {
    let capabilities = capabilities.iter().copied().collect();
    default_profile(&Context {
        capabilities: &capabilities,
        architecture,
        kernel: KernelVersion { major: 6, minor: 1 },
    })
}

fn answer(program: &Program, architecture: Architecture, name: &str, first: u64) -> u32 {
    let number = lookup(name)
        .and_then(|numbers| numbers.on(architecture))
        .expect("a call of the architecture");
    let arguments = [first, 0, 0, 0, 0, 0];
    let data = Data {
        number,
        architecture: architecture.audit(),
        instruction_pointer: 0,
        arguments,
    };
    run_checked(&program.instructions, &data).expect("runs to a return")
}

fn document(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).expect("OCI form")
}

#[test]
fn default_profile_compiles_to_what_it_says() {
    for native in [
        Architecture::X86_64,
        Architecture::Aarch64,
        Architecture::Riscv64,
    ] {
        agree(&default_for(&[], native), native).expect("compiles");
        agree(
            &default_for(&[Capability::SysAdmin, Capability::SysTime], native),
            native,
        )
        .expect("compiles");
    }
}

#[test]
fn default_profile_keeps_the_facts_of_dockers() {
    let plain = compile(
        &default_for(&[], Architecture::X86_64),
        Architecture::X86_64,
    )
    .expect("compiles");
    let admin = compile(
        &default_for(&[Capability::SysAdmin], Architecture::X86_64),
        Architecture::X86_64,
    )
    .expect("compiles");
    let enosys = NOT_IMPLEMENTED;
    for (name, first, without, with) in [
        ("read", 0, ALLOW, ALLOW),
        ("ptrace", 0, ALLOW, ALLOW),
        ("unshare", 0, EPERM, ALLOW),
        ("mount", 0, EPERM, ALLOW),
        ("clone", 17, ALLOW, ALLOW),
        ("clone", 0x1000_0000, EPERM, ALLOW),
        ("clone", 0x0002_0000, EPERM, ALLOW),
        ("clone3", 0, enosys, ALLOW),
        ("keyctl", 0, EPERM, EPERM),
        ("io_uring_setup", 0, EPERM, EPERM),
        ("userfaultfd", 0, EPERM, EPERM),
        ("kexec_load", 0, EPERM, EPERM),
        ("personality", 0, ALLOW, ALLOW),
        ("personality", 0xffff_ffff, ALLOW, ALLOW),
        ("personality", 0x0004_0000, EPERM, EPERM),
        ("socket", 2, ALLOW, ALLOW),
        ("socket", 16, ALLOW, ALLOW),
        ("socket", 38, EPERM, EPERM),
        ("socket", 40, EPERM, EPERM),
        ("socket", 45, ALLOW, ALLOW),
        ("socket", 46, EPERM, EPERM),
        ("reboot", 0, EPERM, EPERM),
        ("rseq_slice_yield", 0, enosys, enosys),
    ] {
        assert_eq!(
            answer(&plain, Architecture::X86_64, name, first),
            without,
            "{name}({first:#x})"
        );
        assert_eq!(
            answer(&admin, Architecture::X86_64, name, first),
            with,
            "{name}({first:#x}) with CAP_SYS_ADMIN"
        );
    }
    assert_eq!(answer(&plain, Architecture::X32, "execveat", 0), ALLOW);
    assert_eq!(answer(&plain, Architecture::X86, "socketcall", 1), ALLOW);
    assert_eq!(answer(&plain, Architecture::X86, "socket", 38), EPERM);
}

#[test]
fn default_profile_knows_every_name_it_uses() {
    let all = [
        Capability::DacReadSearch,
        Capability::SysAdmin,
        Capability::SysBoot,
        Capability::SysChroot,
        Capability::SysModule,
        Capability::SysPacct,
        Capability::SysPtrace,
        Capability::SysRawio,
        Capability::SysTime,
        Capability::SysTtyConfig,
        Capability::SysNice,
        Capability::Syslog,
        Capability::Bpf,
        Capability::Perfmon,
    ];
    for native in [
        Architecture::X86_64,
        Architecture::Aarch64,
        Architecture::Riscv64,
    ] {
        assert_eq!(
            super::unknown_names(&default_for(&all, native)),
            Vec::<&str>::new()
        );
    }
    let odd = document(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read","raed"],"action":"SCMP_ACT_LOG"}]}"#,
    );
    assert_eq!(super::unknown_names(&odd), ["raed"]);
}

#[test]
fn dockers_form_of_the_default_resolves_to_the_default() {
    let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],
        "syscalls":[
          {"names":["read"],"action":"SCMP_ACT_ALLOW"},
          {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}],
           "excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390","s390x"]}},
          {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}],
           "includes":{"arches":["s390","s390x"]},"excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    let capabilities = HashSet::new();
    let kernel = KernelVersion { major: 6, minor: 1 };
    let context = Context {
        capabilities: &capabilities,
        architecture: Architecture::X86_64,
        kernel,
    };
    let ours = default_profile(&context);
    let loaded = load_profile(json, &context).expect("profile");
    assert_eq!(loaded.architectures(), ours.architectures());
    let program = agree(&loaded, Architecture::X86_64).expect("compiles");
    let default = compile(&ours, Architecture::X86_64).expect("compiles");
    for (name, first) in [
        ("read", 0),
        ("clone", 17),
        ("clone", 0x1000_0000),
        ("clone3", 0),
    ] {
        let both =
            [&program, &default].map(|program| answer(program, Architecture::X86_64, name, first));
        assert_eq!(both[0], both[1], "{name}({first:#x})");
    }
}

#[test]
fn x32_is_refused_unless_listed() {
    let with = |architectures: &str| {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":[{architectures}],
                "syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        agree(&document(&json), Architecture::X86_64).expect("compiles")
    };
    assert_eq!(
        answer(&with(""), Architecture::X32, "read", 0),
        BAD_ARCHITECTURE
    );
    assert_eq!(
        answer(&with(r#""SCMP_ARCH_X32""#), Architecture::X32, "read", 0),
        ALLOW
    );
    // An architecture that this kernel cannot run adds nothing.
    assert_eq!(with(r#""SCMP_ARCH_AARCH64","SCMP_ARCH_MIPS""#), with(""));
    assert_eq!(with(r#""SCMP_ARCH_NATIVE""#), with(""));
}

#[test]
fn first_matching_rule_decides() {
    let program = agree(
        &document(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":97,
                 "args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]},
                {"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]},
                {"names":["socket"],"action":"SCMP_ACT_ALLOW"},
                {"names":["socket"],"action":"SCMP_ACT_KILL"}]}"#,
        ),
        Architecture::X86_64,
    )
    .expect("compiles");
    for (family, expected) in [(38, 0x0005_0000 + 97), (40, EPERM), (2, ALLOW)] {
        assert_eq!(
            answer(&program, Architecture::X86_64, "socket", family),
            expected
        );
    }
}

#[test]
fn every_action_has_the_kernels_value() {
    for (action, value) in [
        (r#""SCMP_ACT_KILL""#, 0),
        (r#""SCMP_ACT_KILL_THREAD""#, 0),
        (r#""SCMP_ACT_KILL_PROCESS""#, 0x8000_0000),
        (r#""SCMP_ACT_TRAP""#, 0x0003_0000),
        (r#""SCMP_ACT_ERRNO""#, EPERM),
        (r#""SCMP_ACT_ERRNO","errnoRet":4095"#, 0x0005_0fff),
        (r#""SCMP_ACT_TRACE""#, 0x7ff0_0001),
        (r#""SCMP_ACT_TRACE","errnoRet":65535"#, 0x7ff0_ffff),
        (r#""SCMP_ACT_LOG""#, 0x7ffc_0000),
        (r#""SCMP_ACT_ALLOW""#, ALLOW),
        (r#""SCMP_ACT_NOTIFY""#, 0x7fc0_0000),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[{{"names":["read"],"action":{action}}}]}}"#
        );
        let program = compile(&document(&json), Architecture::X86_64).expect("compiles");
        assert_eq!(
            answer(&program, Architecture::X86_64, "read", 0),
            value,
            "{action}"
        );
        assert_eq!(program.needs_listener(), action.contains("NOTIFY"));
    }
}

#[test]
fn flags_are_those_of_the_document() {
    let mut profile = document(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    let flags = |profile: &LinuxSeccomp| {
        compile(profile, Architecture::X86_64)
            .expect("compiles")
            .flags
    };
    assert_eq!(
        flags(&profile),
        1 << 2,
        "absent: SPEC_ALLOW, as runc has it"
    );
    profile.set_flags(Some(vec![]));
    assert_eq!(flags(&profile), 0);
    let all = vec![
        Flag::SeccompFilterFlagLog,
        Flag::SeccompFilterFlagTsync,
        Flag::SeccompFilterFlagSpecAllow,
        Flag::SeccompFilterFlagWaitKillableRecv,
    ];
    profile.set_flags(Some(all));
    assert_eq!(flags(&profile), 1 << 1 | 1 << 2);
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec!["mount".into()]);
    rule.set_action(Action::ScmpActNotify);
    profile.set_syscalls(Some(vec![rule]));
    assert_eq!(flags(&profile), 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5);
}

#[test]
fn bad_documents_are_refused_with_what_is_wrong() {
    for (json, message) in [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "the default"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
            "takes no errno",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
            "above 4095",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "cannot be used for write",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":1}]}"#,
            "read takes no errno",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]}"#,
            "number 0",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["a",""],"action":"SCMP_ACT_KILL"}]}"#,
            "number 0",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
                "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
    ] {
        let error = compile(&document(json), Architecture::X86_64).expect_err(json);
        assert!(error.to_string().contains(message), "{json}: {error}");
    }
}

/// `count` rules for `read`, each with a mask of its own, so that nothing merges.
fn long_profile(count: u64) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActErrno);
    let rules = (0..count).map(|n| {
        let argument = condition(2, Operator::ScmpCmpMaskedEq, 0xf0_0000_ffff, n | 1 << 36);
        let mut rule = LinuxSyscall::default();
        rule.set_names(vec!["read".into()]);
        rule.set_action(if n % 2 == 0 {
            Action::ScmpActAllow
        } else {
            Action::ScmpActLog
        });
        rule.set_args(Some(vec![argument]));
        rule
    });
    profile.set_syscalls(Some(rules.collect()));
    profile
}

#[test]
fn long_programs_use_long_jumps_and_too_long_ones_are_refused() {
    let program = agree(&long_profile(120), Architecture::X86_64).expect("compiles");
    assert!(program.instructions.len() > 600);
    assert!(
        program
            .instructions
            .iter()
            .any(|instruction| instruction.code == super::emit::JUMP)
    );
    let error = compile(&long_profile(1000), Architecture::X86_64).expect_err("too long");
    assert!(
        matches!(error, Error::TooLong { count } if count > 4096),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn masks_with_bits_outside_never_match() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":240,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
    let program = agree(&document(json), Architecture::X86_64).expect("compiles");
    assert_eq!(answer(&program, Architecture::X86_64, "clone", 1), EPERM);
}

#[test]
fn empty_documents_give_the_default_everywhere() {
    for (action, expected) in [
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ] {
        let profile = document(&format!(r#"{{"defaultAction":"{action}"}}"#));
        let program = agree(&profile, Architecture::Riscv64).expect("compiles");
        assert_eq!(answer(&program, Architecture::Riscv64, "read", 0), expected);
    }
}
