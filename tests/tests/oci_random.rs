//! Any document either runs or is refused with a message: none makes the runtime panic, hang, or leave anything behind.
//!
//! Documents are made from the base one by random changes, each of them sound, odd or senseless. A failure names its seed;
//! `OCI_SEED=N` runs that one alone, `OCI_CASES=N` as many as are wanted.

use std::fs;

use coracle_tests::oci::Oci;
use serde_json::{Value, json};

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Values that stand in for whatever is there.
fn odd_value(random: &mut Random) -> Value {
    let list = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5),
        json!(""),
        json!("/"),
        json!("x"),
        json!("../../.."),
        json!("/proc/self/exe"),
        json!("\u{0}"),
        json!("a".repeat(5000)),
        json!([]),
        json!({}),
        json!([null]),
        json!(["", "/"]),
        json!({ "a": { "b": [] } }),
    ];
    random.of(&list).clone()
}

/// Where such values are put.
const PLACES: &[&str] = &[
    "/ociVersion",
    "/root",
    "/root/path",
    "/root/readonly",
    "/hostname",
    "/domainname",
    "/process",
    "/process/terminal",
    "/process/user",
    "/process/user/uid",
    "/process/user/gid",
    "/process/user/umask",
    "/process/user/additionalGids",
    "/process/args",
    "/process/args/0",
    "/process/env",
    "/process/cwd",
    "/process/capabilities",
    "/process/capabilities/bounding",
    "/process/rlimits",
    "/process/oomScoreAdj",
    "/process/scheduler",
    "/process/ioPriority",
    "/process/apparmorProfile",
    "/process/selinuxLabel",
    "/process/execCPUAffinity",
    "/mounts",
    "/mounts/0",
    "/mounts/1/destination",
    "/mounts/1/type",
    "/mounts/1/source",
    "/mounts/1/options",
    "/mounts/2/options/0",
    "/hooks",
    "/annotations",
    "/linux",
    "/linux/namespaces",
    "/linux/namespaces/0",
    "/linux/namespaces/1/type",
    "/linux/namespaces/1/path",
    "/linux/uidMappings",
    "/linux/gidMappings",
    "/linux/devices",
    "/linux/cgroupsPath",
    "/linux/resources",
    "/linux/resources/memory",
    "/linux/resources/cpu",
    "/linux/resources/pids",
    "/linux/resources/devices",
    "/linux/resources/unified",
    "/linux/rootfsPropagation",
    "/linux/seccomp",
    "/linux/maskedPaths",
    "/linux/readonlyPaths",
    "/linux/sysctl",
    "/linux/personality",
    "/linux/timeOffsets",
    "/linux/intelRdt",
    "/linux/mountLabel",
    "/linux/memoryPolicy",
    "/linux/netDevices",
    "/vm",
    "/windows",
];

fn put(document: &mut Value, place: &str, value: Value) {
    let (parent, member) = place.rsplit_once('/').expect("a pointer");
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.insert(member.to_owned(), value);
        }
        Some(Value::Array(list)) => {
            let index = member.parse::<usize>().unwrap_or(0);
            if index < list.len() {
                list[index] = value;
            }
        }
        _ => {}
    }
}

/// A change that makes sense by itself.
fn sound_change(random: &mut Random, document: &mut Value) {
    let paths = [
        "/tmp",
        "/dev/shm",
        "/a/b/c",
        "/proc/self",
        "/sys/fs/cgroup",
        "/etc/passwd",
        "/bin",
        "/dev",
        "/",
        "/proc",
    ];
    let kinds = [
        "tmpfs", "proc", "sysfs", "mqueue", "devpts", "cgroup", "bind", "none", "overlay",
        "nonsense",
    ];
    let words = [
        "ro",
        "rro",
        "nosuid",
        "bind",
        "rbind",
        "tmpcopyup",
        "rprivate",
        "rslave",
        "shared",
        "idmap",
        "size=1m",
        "mode=700",
        "noatime",
        "remount",
        "nonsense",
    ];
    match random.below(16) {
        0 => {
            let path = *random.of(&paths);
            let options: Vec<&str> = (0..random.below(4)).map(|_| *random.of(&words)).collect();
            let mount = json!({ "destination": path, "type": random.of(&kinds), "source": random.of(&paths), "options": options });
            if let Some(mounts) = document["mounts"].as_array_mut() {
                mounts.push(mount);
            }
        }
        1 => {
            let kind = *random.of(&["user", "cgroup", "time", "pid", "mount", "network"]);
            if let Some(list) = document["linux"]["namespaces"].as_array_mut() {
                match list.iter().position(|entry| entry["type"] == kind) {
                    Some(at) => {
                        list.remove(at);
                    }
                    None => list.push(json!({ "type": kind })),
                }
            }
        }
        2 => {
            let map = json!([{ "containerID": random.below(3), "hostID": random.below(200_000), "size": random.below(70_000) }]);
            document["linux"]["uidMappings"] = map.clone();
            document["linux"]["gidMappings"] = map;
        }
        3 => {
            document["process"]["user"] = json!({ "uid": random.below(70_000), "gid": random.below(70_000), "additionalGids": [random.below(9)] })
        }
        4 => {
            let kind = *random.of(&["c", "b", "p", "u", "a", "z"]);
            let path = *random.of(&["/dev/own", "/dev/null", "/own", "/x/y", "dev/relative"]);
            document["linux"]["devices"] = json!([{ "path": path, "type": kind, "major": random.below(300), "minor": random.below(300) }]);
        }
        5 => {
            let action = *random.of(&[
                "SCMP_ACT_ALLOW",
                "SCMP_ACT_ERRNO",
                "SCMP_ACT_LOG",
                "SCMP_ACT_NOTIFY",
                "SCMP_ACT_TRAP",
            ]);
            let name = *random.of(&["mkdir", "getpid", "no_such_call", "execve", "write"]);
            document["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": [name], "action": action }] });
        }
        6 => {
            let kind = *random.of(&[
                "RLIMIT_NOFILE",
                "RLIMIT_AS",
                "RLIMIT_STACK",
                "RLIMIT_NPROC",
                "RLIMIT_NICE",
            ]);
            // Enough memory for the command: what kills it tells nothing of the runtime.
            let soft = (1 << 28) + random.below(1 << 20);
            document["process"]["rlimits"] =
                json!([{ "type": kind, "soft": soft, "hard": soft + random.below(1000) }]);
        }
        7 => {
            document["linux"]["resources"] = json!({
                "memory": { "limit": random.below(1 << 28) }, "pids": { "limit": random.below(40) },
                "cpu": { "shares": random.below(5000), "quota": random.below(200_000) },
            })
        }
        8 => {
            document["linux"]["resources"] = json!({ "unified": { "memory.high": "max" }, "devices": [{ "allow": true, "access": "rwm" }] })
        }
        9 => {
            let path = random.of(&paths).to_string();
            document["linux"][*random.of(&["maskedPaths", "readonlyPaths"])] =
                json!([path, "/no/such/path"]);
        }
        10 => {
            let key = *random.of(&[
                "net.ipv4.ip_forward",
                "kernel.shmmax",
                "vm.swappiness",
                "kernel.domainname",
                "net..x",
            ]);
            document["linux"]["sysctl"] = json!({ key: "1" });
        }
        11 => {
            let point = *random.of(&[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            ]);
            let path = *random.of(&["/bin/true", "/bin/false", "/no/such/hook", "relative"]);
            document["hooks"][point] = json!([{ "path": path, "timeout": random.below(3) }]);
        }
        12 => {
            document["process"]["cwd"] =
                json!(random.of(&["/", "/tmp", "/no/such", "/proc/self/fd/9", "/etc/passwd"]))
        }
        13 => {
            document["process"]["args"] = json!([*random.of(&[
                "true",
                "false",
                "/etc/passwd",
                "no-such",
                "/proc/self/exe",
                ""
            ])])
        }
        14 => {
            document["linux"]["cgroupsPath"] =
                json!(random.of(&["relative/x", "/", "..", "a:b:c", "/coracle-test/../x"]))
        }
        _ => {
            document["process"]["capabilities"]["bounding"] =
                json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NONSENSE"])
        }
    }
}

fn case(oci: &Oci, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut document = oci.document("true");
    let odd = random.below(3);
    for _ in 0..1 + random.below(4) {
        sound_change(&mut random, &mut document);
    }
    // Last, since they may stand where the others expect an object.
    for _ in 0..odd {
        let place = *random.of(PLACES);
        let value = odd_value(&mut random);
        put(&mut document, place, value);
    }
    let outcome = oci.run(&document);
    let told = || format!("seed {seed}: {outcome:?}\n{document}");
    assert!(!outcome.stderr.contains("panicked"), "{}", told());
    // SIGABRT and SIGSEGV of the runtime itself, and a panic's own code.
    assert!(![101, 134, 139].contains(&outcome.code), "{}", told());
    if outcome.code == 1 && outcome.stdout.is_empty() && document["process"]["args"][0] != "false" {
        assert!(
            !outcome.stderr.trim().is_empty(),
            "refused without a word: {}",
            told()
        );
    }
    let state = oci.dir().join("state");
    let left: Vec<_> = fs::read_dir(&state)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != ",cgroups")
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}: {}", told());
}

#[test]
fn any_document_runs_or_is_refused_with_a_message() {
    let Some(oci) = Oci::new() else { return };
    if !oci.ours {
        return coracle_tests::skip("another runtime is under test");
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("OCI_SEED") {
        return case(&oci, seed);
    }
    for seed in 1..=number("OCI_CASES").unwrap_or(250) {
        case(&oci, seed);
    }
}
