//! The OCI runtime specification, sentence by sentence: each test is one MUST or MUST NOT of it.
//!
//! `RUNTIME=crun cargo test -p coracle-tests --test oci_conformance` runs them against another runtime (of the host by its
//! path, or of the peers by its name); [`KNOWN`] says where those fail, and is checked too: what is in it must fail.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coracle_tests::oci::Oci;
use coracle_tests::{Outcome, Terminal, eventually, host, skip};
use serde_json::{Value, json};

/// Where other runtimes do not do what the sentence says: runtime, test, what they do.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "crun",
        "a_file_in_a_devices_place_is_an_error",
        "the file stays and stands for the device",
    ),
    ("crun", "a_limit_twice_is_an_error", "one of the two counts"),
    (
        "crun",
        "an_unknown_capability_is_a_warning",
        "it is passed over in silence",
    ),
    (
        "crun",
        "an_older_version_is_known",
        "a version that is none, and one to come, are taken",
    ),
    ("crun", "cwd_is_where_it_starts", "a relative path is taken"),
    (
        "crun",
        "values_that_mean_nothing_are_errors",
        "a relative working directory is taken",
    ),
    (
        "crun",
        "root_propagation_is_set",
        "a propagation that does not exist is passed over",
    ),
    (
        "crun",
        "security_labels_are_refused_without_their_module",
        "the profile is passed over",
    ),
    (
        "crun",
        "start_without_a_process_is_an_error",
        "it starts nothing and says that all is well",
    ),
    (
        "runc",
        "a_file_in_a_devices_place_is_an_error",
        "the file stays and stands for the device",
    ),
    ("runc", "a_limit_twice_is_an_error", "one of the two counts"),
    (
        "runc",
        "a_poststop_hook_that_fails_is_a_warning",
        "the hooks behind it do not run",
    ),
    (
        "runc",
        "an_older_version_is_known",
        "a version that is none, and one to come, are taken",
    ),
    (
        "runc",
        "the_memory_policy_is_set",
        "it is passed over in silence",
    ),
];

fn check(name: &str, sentence: &str, test: fn(&Oci)) {
    let Some(oci) = Oci::new() else { return };
    let runtime = std::env::var("RUNTIME").unwrap_or_default();
    let known = KNOWN
        .iter()
        .find(|(whose, which, _)| *whose == runtime && *which == name);
    let Some((_, _, what)) = known else {
        println!("{sentence}");
        return test(&oci);
    };
    let failed = catch_unwind(AssertUnwindSafe(|| test(&oci))).is_err();
    assert!(
        failed,
        "{runtime} is known to fail here ({what}), and does not"
    );
    skip(&format!("{runtime}: {what}"));
}

macro_rules! sentences {
    ($($name:ident: $sentence:literal => $test:expr;)+) => {
        $(#[test] fn $name() { check(stringify!($name), $sentence, $test); })+
    };
}

#[track_caller]
fn refused(outcome: Outcome) {
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert!(!outcome.stderr.trim().is_empty(), "refused without a word");
}

/// The words of a script's output.
#[track_caller]
fn says(oci: &Oci, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let outcome = oci.run_with(script, change).success();
    outcome.stdout.trim().to_owned()
}

fn set(at: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |document| *document.pointer_mut(at).expect("there") = value
}

fn add(at: &'static str, member: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |document| document.pointer_mut(at).expect("there")[member] = value
}

fn mount(value: Value) -> impl FnOnce(&mut Value) {
    move |document| {
        let mounts = document["mounts"].as_array_mut().expect("a list");
        mounts.push(value);
    }
}

fn sleeping(oci: &Oci) -> Value {
    oci.document("trap 'exit 3' TERM; echo up; sleep 100 & wait")
}

fn started(oci: &Oci, name: &str) {
    oci.create(name, &sleeping(oci)).success();
    oci.verb("start", name).success();
    eventually("it is up", Duration::from_secs(10), || {
        oci.said(name).contains("up")
    });
}

fn hook(oci: &Oci, point: &str) -> Value {
    let log = oci.inside().join("hooks.log");
    let script = format!(
        "echo {point} >> {log}; cat > {log}.{point}",
        log = log.display()
    );
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
}

fn hook_log(oci: &Oci) -> String {
    fs::read_to_string(oci.dir().join("hooks.log")).unwrap_or_default()
}

sentences! {
    // runtime.md
    state_has_what_the_specification_lists:
    "The state of a container includes the following properties: ociVersion (REQUIRED), id (REQUIRED), status (REQUIRED), \
     pid (REQUIRED when status is created or running on Linux), bundle (REQUIRED)" => |oci| {
        started(oci, "a");
        let state = oci.state("a");
        assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
        assert_eq!(state["id"], oci.id("a"));
        assert_eq!(state["status"], "running");
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1));
        assert_eq!(state["bundle"], oci.inside().to_str().expect("UTF-8"));
    };
    annotations_are_in_the_state:
    "annotations (map, OPTIONAL) contains the list of annotations associated with the container" => |oci| {
        let mut document = sleeping(oci);
        document["annotations"] = json!({ "org.example.key": "a \" value" });
        oci.create("a", &document).success();
        assert_eq!(oci.state("a")["annotations"]["org.example.key"], "a \" value");
    };
    an_id_is_unique:
    "This operation MUST generate an error if it is not provided a path to the bundle and the container ID … If the ID provided is \
     not unique across all containers within the scope of the runtime … the implementation MUST generate an error and a new \
     container MUST NOT be created" => |oci| {
        started(oci, "a");
        let pid = oci.state("a")["pid"].clone();
        oci.create("a", &sleeping(oci)).refused();
        assert_eq!(oci.state("a")["pid"], pid);
        assert_eq!(oci.state("a")["status"], "running");
    };
    create_needs_an_id:
    "create: This operation MUST generate an error if it is not provided a path to the bundle and the container ID" => |oci| {
        oci.write(&oci.document("true"));
        let bundle = oci.inside().display().to_string();
        refused(oci.command(["create", "--bundle", &bundle]).run());
    };
    state_of_nothing_is_an_error:
    "state: This operation MUST generate an error if it is not provided the ID of a container. Attempting to query a container \
     that does not exist MUST generate an error" => |oci| {
        refused(oci.line("state"));
        refused(oci.verb("state", "nothing"));
    };
    create_runs_no_program:
    "create: … the resources requested in the config.json MUST be created, the user-specified program (from process) MUST NOT be \
     run at this time" => |oci| {
        oci.create("a", &oci.document("echo ran")).success();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(oci.said("a"), "");
        assert_eq!(oci.state("a")["status"], "created");
        assert!(oci.state("a")["pid"].as_i64().is_some_and(|pid| pid > 1));
    };
    what_cannot_be_applied_is_an_error:
    "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new container MUST \
     NOT be created" => |oci| {
        let mut document = sleeping(oci);
        document["linux"]["sysctl"] = json!({ "net.no.such.thing": "1" });
        oci.create("a", &document).refused();
        refused(oci.verb("state", "a"));
    };
    later_changes_of_the_document_have_no_effect:
    "Any changes made to the config.json file after this operation will not have an effect on the container" => |oci| {
        oci.create("a", &oci.document("echo first")).success();
        oci.write(&oci.document("echo second"));
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        assert_eq!(oci.said("a"), "first\n");
    };
    start_of_nothing_is_an_error:
    "start: This operation MUST generate an error if it is not provided the container ID" => |oci| {
        refused(oci.line("start"));
        refused(oci.verb("start", "nothing"));
    };
    start_takes_created_containers_only:
    "Attempting to start a container that is not created MUST have no effect on the container and MUST generate an error" => |oci| {
        started(oci, "a");
        refused(oci.verb("start", "a"));
        assert_eq!(oci.state("a")["status"], "running");
        oci.verb("kill", "a").success();
        oci.until("a", "stopped");
        refused(oci.verb("start", "a"));
        assert_eq!(oci.state("a")["status"], "stopped");
    };
    start_runs_the_program:
    "start: This operation MUST run the user-specified program as specified by process" => |oci| {
        oci.create("a", &oci.document("echo $0 $#")).success();
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        assert_eq!(oci.said("a"), "sh 0\n");
    };
    start_without_a_process_is_an_error:
    "start: This operation MUST generate an error if process was not set" => |oci| {
        let mut document = oci.document("true");
        document.as_object_mut().expect("an object").remove("process");
        if oci.create("a", &document).code == 0 {
            refused(oci.verb("start", "a"));
        }
    };
    kill_of_nothing_is_an_error:
    "kill: This operation MUST generate an error if it is not provided the container ID" => |oci| {
        refused(oci.line("kill"));
        refused(oci.verb("kill", "nothing"));
    };
    kill_takes_created_and_running_containers_only:
    "Attempting to send a signal to a container that is neither created nor running MUST have no effect on the container and MUST \
     generate an error" => |oci| {
        oci.create("a", &oci.document("exit 0")).success();
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        refused(oci.verb("kill", "a"));
        assert_eq!(oci.state("a")["status"], "stopped");
    };
    kill_sends_the_signal:
    "kill: This operation MUST send the specified signal to the container process" => |oci| {
        started(oci, "a");
        oci.command(["kill", &oci.id("a"), "TERM"]).run().success();
        oci.until("a", "stopped");
        oci.create("b", &sleeping(oci)).success();
        oci.command(["kill", &oci.id("b"), "9"]).run().success();
        oci.until("b", "stopped");
    };
    delete_of_nothing_is_an_error:
    "delete: This operation MUST generate an error if it is not provided the container ID" => |oci| {
        refused(oci.line("delete"));
        refused(oci.verb("delete", "nothing"));
    };
    delete_takes_stopped_containers_only:
    "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an error" => |oci| {
        started(oci, "a");
        refused(oci.verb("delete", "a"));
        assert_eq!(oci.state("a")["status"], "running");
    };
    delete_removes_what_create_made:
    "Deleting a container MUST delete the resources that were created during the create step" => |oci| {
        started(oci, "a");
        oci.command(["kill", &oci.id("a"), "KILL"]).run().success();
        oci.until("a", "stopped");
        oci.verb("delete", "a").success();
        refused(oci.verb("state", "a"));
        assert!(!oci.dir().join("state").join(oci.id("a")).exists());
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let path = oci.document("")["linux"]["cgroupsPath"].as_str().expect("text").to_owned();
            assert!(!hierarchy.path().join(path.trim_start_matches('/')).exists());
        }
    };
    an_id_can_be_used_again:
    "Once a container is deleted its ID MAY be used by a subsequent container" => |oci| {
        for _ in 0..2 {
            started(oci, "a");
            oci.command(["kill", &oci.id("a"), "KILL"]).run().success();
            oci.until("a", "stopped");
            oci.verb("delete", "a").success();
        }
    };
    unknown_members_are_passed_over:
    "Runtimes that are reading or processing this configuration file MUST NOT generate an error if they encounter an unknown \
     property. Instead they MUST ignore unknown properties" => |oci| {
        assert_eq!(says(oci, "echo fine", |document| {
            document["unknownMember"] = json!({ "a": 1 });
            document["process"]["unknownMember"] = json!(true);
            document["linux"]["unknownMember"] = json!([]);
        }), "fine");
    };
    values_that_mean_nothing_are_errors:
    "Unless otherwise stated, implementations MUST generate an error when invalid or unsupported values are encountered" => |oci| {
        for (at, value) in [
            ("/linux/namespaces/0/type", json!("no-such-namespace")),
            ("/mounts/0/type", json!("no-such-file-system")),
            ("/process/cwd", json!("not/absolute")),
            ("/root/path", json!("no-such-directory")),
        ] {
            refused(oci.run_with("true", set(at, value)));
        }
    };
    an_older_version_is_known:
    "ociVersion (string, REQUIRED) MUST be in SemVer v2.0.0 format and specifies the version of the Open Container Initiative \
     Runtime Specification with which the bundle complies" => |oci| {
        for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.0"] {
            assert_eq!(says(oci, "echo fine", set("/ociVersion", json!(version))), "fine");
        }
        refused(oci.run_with("true", set("/ociVersion", json!("one"))));
        refused(oci.run_with("true", set("/ociVersion", json!("9.0.0"))));
    };

    // config.md
    a_read_only_root_is_read_only:
    "readonly (bool, OPTIONAL) If true then the root filesystem MUST be read-only inside the container" => |oci| {
        let outcome = oci.run_with("touch /x", add("/root", "readonly", json!(true)));
        assert_ne!(outcome.code, 0);
        assert!(!oci.dir().join("rootfs/x").exists());
        assert_eq!(oci.run_with("touch /x", |_| ()).code, 0);
        assert!(oci.dir().join("rootfs/x").exists());
    };
    mounts_come_in_their_order:
    "The runtime MUST mount entries in the listed order" => |oci| {
        let lower = oci.inside().join("lower");
        fs::create_dir(oci.dir().join("lower")).expect("a folder");
        fs::write(oci.dir().join("lower/below"), "below").expect("a file");
        assert_eq!(says(oci, "cat /mnt/in/below; ls /mnt", |document| {
            mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }))(document);
            mount(json!({ "destination": "/mnt/in", "type": "bind", "source": lower, "options": ["bind"] }))(document);
        }), "belowin");
    };
    missing_targets_are_made:
    "destination (string, REQUIRED) Destination of mount point: path inside container … (and runtimes make what is missing, for a \
     file a file)" => |oci| {
        fs::write(oci.dir().join("file"), "content").expect("a file");
        let source = oci.inside().join("file");
        assert_eq!(says(oci, "cat /new/deep/file; test -f /new/deep/file && echo yes", |document| {
            mount(json!({ "destination": "/new/deep/file", "type": "bind", "source": source, "options": ["bind", "ro"] }))(document);
        }), "contentyes");
    };
    bind_sources_are_relative_to_the_bundle:
    "source (string, OPTIONAL) … Path values for bind mounts are either absolute or relative to the bundle" => |oci| {
        fs::create_dir(oci.dir().join("beside")).expect("a folder");
        fs::write(oci.dir().join("beside/file"), "content").expect("a file");
        assert_eq!(says(oci, "cat /mnt/file", |document| {
            mount(json!({ "destination": "/mnt", "source": "beside", "options": ["bind"] }))(document);
        }), "content");
    };
    a_mount_with_bind_is_a_bind:
    "A mount is a bind mount if it has either bind or rbind in options" => |oci| {
        fs::create_dir(oci.dir().join("beside")).expect("a folder");
        let source = oci.inside().join("beside");
        let types = says(oci, "touch /mnt/made; stat -f -c %T /mnt", |document| {
            mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": source, "options": ["rbind"] }))(document);
        });
        assert_ne!(types, "tmpfs");
        assert!(oci.dir().join("beside/made").exists());
    };
    recursive_attributes_reach_what_is_below:
    "rro: All mounts in the tree are read-only (Runtimes MUST apply … to the mount and all below)" => |oci| {
        fs::create_dir(oci.dir().join("tree")).expect("a folder");
        let source = oci.inside().join("tree");
        let outcome = oci.run_with("touch /mnt/x || echo refused", |document| {
            mount(json!({ "destination": "/mnt", "source": source, "options": ["rbind", "rro"] }))(document);
        });
        assert_eq!(outcome.success().stdout, "refused\n");
    };
    cwd_is_where_it_starts:
    "cwd (string, REQUIRED) is the working directory that will be set for the executable. This value MUST be an absolute path" => |oci| {
        assert_eq!(says(oci, "pwd", set("/process/cwd", json!("/tmp"))), "/tmp");
        refused(oci.run_with("pwd", set("/process/cwd", json!("tmp"))));
    };
    env_is_the_documents:
    "env (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's environ" => |oci| {
        assert_eq!(says(oci, "echo \"$A:$B\"", set("/process/env", json!(["PATH=/bin", "A=a b", "B="]))), "a b:");
    };
    args_are_those_of_execvp:
    "args (array of strings, OPTIONAL) with similar semantics to IEEE Std 1003.1-2008 execvp's argv" => |oci| {
        assert_eq!(says(oci, "", set("/process/args", json!(["printf", "%s|", "a b", "", "c"]))), "a b||c|");
        refused(oci.run_with("", set("/process/args", json!([]))));
    };
    limits_are_applied:
    "For each entry in rlimits, a getrlimit(3) on type MUST succeed … rlim.rlim_cur MUST match the configured value … rlim.rlim_max \
     MUST match the configured value" => |oci| {
        let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
        assert_eq!(says(oci, "ulimit -Sn; ulimit -Hn", add("/process", "rlimits", limits)), "100\n200");
    };
    a_limit_twice_is_an_error:
    "If rlimits contains duplicated entries with same type, the runtime MUST generate an error" => |oci| {
        let one = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
        refused(oci.run_with("true", add("/process", "rlimits", json!([one, one]))));
    };
    an_unknown_limit_is_an_error:
    "type (string, REQUIRED) the platform resource being limited … The runtime MUST generate an error for any values which cannot \
     be mapped to a relevant kernel interface" => |oci| {
        let limits = json!([{ "type": "RLIMIT_FLIGHT", "soft": 1, "hard": 1 }]);
        refused(oci.run_with("true", add("/process", "rlimits", limits)));
    };
    capabilities_are_the_documents:
    "capabilities (object, OPTIONAL) is an object containing arrays that specifies the sets of capabilities for the process" => |oci| {
        let sets = says(oci, "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status", set("/process/capabilities", json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        })));
        let values: Vec<u64> = sets.lines().filter_map(|line| line.split_whitespace().nth(1))
            .map(|value| u64::from_str_radix(value, 16).expect("hexadecimal")).collect();
        assert_eq!(values, [0x20, 0x20, 0x20, 0x21, 0x20]);
    };
    an_unknown_capability_is_a_warning:
    "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise, MUST be logged as a warning by \
     the runtime. Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted" => |oci| {
        let outcome = oci.run_with("echo fine", |document| {
            let sets = &mut document["process"]["capabilities"];
            sets["bounding"] = json!(["CAP_KILL", "CAP_NO_SUCH_THING"]);
            sets["effective"] = json!(["CAP_KILL"]);
            sets["permitted"] = json!(["CAP_KILL"]);
        });
        let outcome = outcome.success();
        assert_eq!(outcome.stdout, "fine\n");
        assert!(outcome.stderr.to_uppercase().contains("NO_SUCH_THING"), "{outcome:?}");
    };
    no_new_privileges_is_set:
    "noNewPrivileges (bool, OPTIONAL) setting noNewPrivileges to true prevents the process from gaining additional privileges" => |oci| {
        let script = "grep NoNewPrivs /proc/self/status";
        assert!(says(oci, script, |_| ()).ends_with('1'));
        assert!(says(oci, script, set("/process/noNewPrivileges", json!(false))).ends_with('0'));
    };
    the_oom_score_is_set:
    "oomScoreAdj … If oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value" => |oci| {
        assert_eq!(says(oci, "cat /proc/self/oom_score_adj", add("/process", "oomScoreAdj", json!(100))), "100");
    };
    the_oom_score_is_left_alone:
    "If oomScoreAdj is not set, the runtime MUST NOT change the value of oom_score_adj" => |oci| {
        let own = fs::read_to_string("/proc/self/oom_score_adj").expect("ours");
        assert_eq!(says(oci, "cat /proc/self/oom_score_adj", |_| ()), own.trim());
    };
    the_user_is_set:
    "uid (int, REQUIRED) … gid (int, REQUIRED) … umask (int, OPTIONAL) … additionalGids (array of ints, OPTIONAL)" => |oci| {
        let user = json!({ "uid": 12, "gid": 34, "umask": 0o27, "additionalGids": [5, 6] });
        assert_eq!(
            says(oci, "id -u; id -g; umask; grep Groups /proc/self/status", set("/process/user", user)),
            "12\n34\n0027\nGroups:\t5 6"
        );
    };
    the_host_name_is_set:
    "hostname (string, OPTIONAL) specifies the container's hostname as seen by processes running inside the container" => |oci| {
        assert_eq!(says(oci, "hostname", |_| ()), "boat");
    };
    the_domain_name_is_set:
    "domainname (string, OPTIONAL) specifies the container's domainname" => |oci| {
        assert_eq!(says(oci, "cat /proc/sys/kernel/domainname", |document| document["domainname"] = json!("harbour")), "harbour");
    };
    the_scheduler_is_set:
    "scheduler (object, OPTIONAL) is an object describing the scheduler properties for the process" => |oci| {
        let policy = says(oci, "cut -d' ' -f41 /proc/self/stat", add("/process", "scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 })));
        assert_eq!(policy, "3");
    };
    the_io_priority_is_set:
    "ioPriority (object, OPTIONAL) configures the I/O priority settings for the container's processes" => |oci| {
        let outcome = oci.run_with("true", add("/process", "ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 7 })));
        outcome.success();
        refused(oci.run_with("true", add("/process", "ioPriority", json!({ "class": "IOPRIO_CLASS_NONSENSE", "priority": 0 }))));
    };

    // config.md, hooks
    hooks_get_the_state_on_standard_input:
    "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate to the current state of the \
     container" => |oci| {
        let mut document = sleeping(oci);
        document["hooks"] = json!({ "createRuntime": hook(oci, "createRuntime") });
        oci.create("a", &document).success();
        let text = fs::read_to_string(oci.dir().join("hooks.log.createRuntime")).expect("the state");
        let state: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(state["id"], oci.id("a"));
        assert_eq!(state["bundle"], oci.inside().to_str().expect("UTF-8"));
        assert_eq!(state["pid"], oci.state("a")["pid"]);
    };
    hooks_run_in_their_order:
    "Hooks MUST be called in the listed order … prestart hooks MUST be called before createRuntime … createContainer … poststart … \
     poststop" => |oci| {
        let mut document = oci.document("true");
        let mut hooks = json!({});
        for point in ["poststop", "poststart", "createContainer", "createRuntime", "prestart"] {
            hooks[point] = hook(oci, point);
        }
        document["hooks"] = hooks;
        oci.create("a", &document).success();
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        oci.verb("delete", "a").success();
        let log = hook_log(oci);
        let points: Vec<&str> = log.lines().collect();
        assert_eq!(points, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    };
    start_container_hooks_run_inside:
    "The startContainer hooks MUST be called … before the user-specified process is executed as part of the start operation … The \
     startContainer hooks MUST be executed in the container namespace; path MUST resolve in the container namespace" => |oci| {
        let mut document = oci.document("cat /dev/shm/mark");
        document["hooks"] = json!({ "startContainer": [{
            "path": "/bin/busybox", "args": ["sh", "-c", "hostname > /dev/shm/mark"], "env": ["PATH=/bin"],
        }] });
        oci.create("a", &document).success();
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        assert_eq!(oci.said("a"), "boat\n");
    };
    a_hook_that_fails_fails_the_creation:
    "If any createRuntime hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12 \
     (destroyed)" => |oci| {
        let mut document = sleeping(oci);
        document["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
        oci.create("a", &document).refused();
        refused(oci.verb("state", "a"));
    };
    a_hook_has_a_timeout:
    "timeout (int, OPTIONAL) is the number of seconds before aborting the hook. If set, timeout MUST be greater than zero" => |oci| {
        let mut document = sleeping(oci);
        document["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1 }] });
        let begun = std::time::Instant::now();
        oci.create("a", &document).refused();
        assert!(begun.elapsed() < Duration::from_secs(10));
    };
    a_poststop_hook_that_fails_is_a_warning:
    "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had \
     succeeded" => |oci| {
        let mut document = oci.document("true");
        let after = hook(oci, "after")[0].clone();
        document["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }, after] });
        oci.create("a", &document).success();
        oci.verb("start", "a").success();
        oci.until("a", "stopped");
        oci.verb("delete", "a").success();
        refused(oci.verb("state", "a"));
        assert!(hook_log(oci).contains("after"));
    };

    // config-linux.md
    namespaces_are_new:
    "If a path is not specified … a new container namespace of the given type MUST be created" => |oci| {
        let inside = says(oci, "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done", |_| ());
        for (line, name) in inside.lines().zip(["pid", "net", "ipc", "uts", "mnt"]) {
            let own = fs::read_link(format!("/proc/self/ns/{name}")).expect("ours");
            assert_ne!(line, own.to_str().expect("UTF-8"), "{name}");
        }
    };
    namespaces_that_are_not_named_are_inherited:
    "If a namespace type is not specified in the namespaces array, the container MUST inherit the runtime namespace of that type" => |oci| {
        let own = fs::read_link("/proc/self/ns/net").expect("ours");
        let inside = says(oci, "readlink /proc/self/ns/net", |document| {
            let namespaces = document["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.retain(|namespace| namespace["type"] != "network");
        });
        assert_eq!(inside, own.to_str().expect("UTF-8"));
    };
    a_namespace_is_joined_by_path:
    "The runtime MUST place the container process in the namespace associated with that path" => |oci| {
        started(oci, "a");
        let pid = oci.state("a")["pid"].clone();
        let path = format!("/proc/{pid}/ns/net");
        let theirs = fs::read_link(&path).expect("theirs");
        let inside = says(oci, "readlink /proc/self/ns/net", |document| {
            document["linux"]["cgroupsPath"] = json!(format!("{}/second", document["linux"]["cgroupsPath"].as_str().expect("text")));
            document["linux"]["namespaces"][1]["path"] = json!(path);
        });
        assert_eq!(inside, theirs.to_str().expect("UTF-8"));
    };
    a_path_that_is_no_namespace_is_an_error:
    "The runtime MUST generate an error if path is not associated with a namespace of type type" => |oci| {
        refused(oci.run_with("true", add("/linux/namespaces/1", "path", json!("/proc/self/ns/uts"))));
        refused(oci.run_with("true", add("/linux/namespaces/1", "path", json!("/proc/self/status"))));
    };
    a_namespace_twice_is_an_error:
    "If a namespaces field contains duplicated namespaces with same type, the runtime MUST generate an error" => |oci| {
        refused(oci.run_with("true", |document| {
            let namespaces = document["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.push(json!({ "type": "pid" }));
        }));
    };
    default_file_systems_are_there:
    "The following filesystems SHOULD be made available in each container's filesystem: /proc, /sys, /dev/pts, /dev/shm" => |oci| {
        assert_eq!(says(oci, "for d in /proc /sys /dev/pts /dev/shm; do grep -c \" $d \" /proc/mounts; done", |_| ()), "1\n1\n1\n1");
    };
    default_devices_are_there:
    "The runtime MUST supply: /dev/null, /dev/zero, /dev/full, /dev/random, /dev/urandom, /dev/tty, /dev/ptmx (a bind-mount or \
     symlink of the container's /dev/pts/ptmx)" => |oci| {
        assert_eq!(says(oci, "for d in null zero full random urandom tty; do test -c /dev/$d || echo $d; done; \
            echo x > /dev/null; head -c 1 /dev/zero | wc -c; test -e /dev/ptmx && echo ptmx", |_| ()), "1\nptmx");
    };
    default_links_are_there:
    "The runtime MUST create the symlinks /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr (after processing mounts, before the \
     container's program)" => |oci| {
        assert_eq!(
            says(oci, "for l in fd stdin stdout stderr; do readlink /dev/$l; done", |_| ()),
            "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2"
        );
    };
    devices_are_made:
    "devices (array of objects, OPTIONAL) lists devices that MUST be available in the container" => |oci| {
        let devices = json!([{ "path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4 },
                             { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 }]);
        assert_eq!(
            says(oci, "stat -c '%t %T %a %u %g' /dev/own; test -p /dev/pipe && echo pipe", add("/linux", "devices", devices)),
            "1 3 640 3 4\npipe"
        );
    };
    a_file_in_a_devices_place_is_an_error:
    "If a file already exists at path that does not match the requested device, the runtime MUST generate an error" => |oci| {
        fs::write(oci.dir().join("rootfs/occupied"), "").expect("a file");
        let devices = json!([{ "path": "/occupied", "type": "c", "major": 1, "minor": 3 }]);
        refused(oci.run_with("true", add("/linux", "devices", devices)));
    };
    masked_paths_cannot_be_read:
    "maskedPaths (array of strings, OPTIONAL) will mask over the provided paths inside the container so that they cannot be read" => |oci| {
        fs::write(oci.dir().join("rootfs/secret"), "secret").expect("a file");
        assert_eq!(says(oci, "cat /secret", set("/linux/maskedPaths", json!(["/secret", "/no-such-path"]))), "");
    };
    read_only_paths_are_read_only:
    "readonlyPaths (array of strings, OPTIONAL) will set the provided paths as readonly inside the container" => |oci| {
        assert_eq!(says(oci, "touch /tmp/x || echo refused", set("/linux/readonlyPaths", json!(["/tmp"]))), "refused");
    };
    sysctls_are_set:
    "sysctl (object, OPTIONAL) allows kernel parameters to be modified at runtime for the container" => |oci| {
        assert_eq!(says(oci, "cat /proc/sys/net/ipv4/ip_forward", add("/linux", "sysctl", json!({ "net.ipv4.ip_forward": "1" }))), "1");
    };
    root_propagation_is_set:
    "rootfsPropagation (string, OPTIONAL) sets the rootfs's mount propagation" => |oci| {
        assert!(says(oci, "grep ' / / ' /proc/self/mountinfo; true", add("/linux", "rootfsPropagation", json!("private"))).lines()
            .all(|line| !line.contains("shared:")));
        refused(oci.run_with("true", add("/linux", "rootfsPropagation", json!("sideways"))));
    };
    ids_are_mapped:
    "uidMappings, gidMappings (arrays of objects, OPTIONAL): the user namespace mappings from the host to the container" => |oci| {
        chown(&oci.dir().join("rootfs"), 100_000);
        // The runtime's own path to the root must be open to the container's root.
        let inside = says(oci, "tr -s ' ' < /proc/self/uid_map; id -u", |document| {
            document["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
            document["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
            document["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        });
        assert_eq!(inside.trim(), "0 100000 1000\n0");
    };
    time_offsets_are_set:
    "timeOffsets (object, OPTIONAL) sets the offset for Linux time namespace" => |oci| {
        let uptime = says(oci, "cut -d. -f1 /proc/uptime", |document| {
            document["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "time" }));
            document["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000 } });
        });
        assert!(uptime.parse::<u64>().expect("a number") > 100_000_000, "{uptime}");
    };
    seccomp_refuses_calls:
    "seccomp … action SCMP_ACT_ERRNO … errnoRet (uint, OPTIONAL) - the errno return code to use" => |oci| {
        let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] });
        let outcome = oci.run_with("mkdir /tmp/x", add("/linux", "seccomp", filter));
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains("not supported"), "{outcome:?}");
    };
    memory_is_limited:
    "memory … limit (int64, OPTIONAL) - sets limit of memory usage" => |oci| {
        let outcome = oci.run_with("head -c 200m /dev/zero | tail > /dev/null", add("/linux", "resources", json!({ "memory": { "limit": 20_000_000 } })));
        assert_ne!(outcome.code, 0, "{outcome:?}");
    };
    processes_are_limited:
    "pids … limit (int64, REQUIRED) - specifies the maximum number of tasks in the cgroup" => |oci| {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo unlimited";
        let outcome = oci.run_with(script, add("/linux", "resources", json!({ "pids": { "limit": 4 } })));
        assert!(!outcome.stdout.contains("unlimited") || outcome.stderr.contains("fork"), "{outcome:?}");
    };
    devices_are_restricted:
    "devices (array of objects, OPTIONAL) configures the allowed device list … The runtime MUST apply entries in the listed order" => |oci| {
        let resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        let outcome = oci.run_with("mknod /tmp/own b 7 0 && cat /tmp/own", add("/linux", "resources", resources));
        assert_ne!(outcome.code, 0, "{outcome:?}");
        let resources = json!({ "devices": [
            { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" },
        ] });
        let devices = json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 }]);
        oci.run_with("exec 3>/dev/kmsg", |document| {
            document["linux"]["resources"] = resources;
            document["linux"]["devices"] = devices;
        }).success();
    };
    the_cgroup_is_where_it_is_asked_for:
    "If the value of cgroupsPath is an absolute path, the runtime MUST take the path to be relative to the cgroups mount point" => |oci| {
        let mut document = sleeping(oci);
        document["linux"]["resources"] = json!({ "memory": { "limit": 50_000_000 } });
        oci.create("a", &document).success();
        let pid = oci.state("a")["pid"].clone();
        let path = document["linux"]["cgroupsPath"].as_str().expect("text").to_owned();
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        assert!(own.lines().any(|line| line.ends_with(&path)), "{own}");
    };
    a_container_shows_its_own_cgroup:
    "cgroup mounts … (a container without a cgroup namespace sees its own cgroup at /sys/fs/cgroup, as every runtime shows it)" => |oci| {
        let outcome = oci.run_with("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true", |document| {
            document["linux"]["resources"] = json!({ "pids": { "limit": 77 } });
            mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "nodev", "noexec"] }))(document);
        });
        assert_eq!(outcome.success().stdout, "77\n");
    };
    a_tmpfs_begins_with_what_the_image_has:
    "tmpcopyup: copy up the contents to a tmpfs (mount option)" => |oci| {
        fs::create_dir(oci.dir().join("rootfs/data")).expect("a folder");
        fs::create_dir(oci.dir().join("rootfs/data/sub")).expect("a folder");
        fs::write(oci.dir().join("rootfs/data/sub/file"), "content").expect("a file");
        std::os::unix::fs::symlink("sub/file", oci.dir().join("rootfs/data/link")).expect("a link");
        assert_eq!(says(oci, "cat /data/link; echo new > /data/sub/file; stat -f -c %T /data", |document| {
            mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"] }))(document);
        }), "contenttmpfs");
        assert_eq!(fs::read_to_string(oci.dir().join("rootfs/data/sub/file")).expect("as it was"), "content");
    };
    the_memory_policy_is_set:
    "memoryPolicy (object, OPTIONAL) sets the NUMA memory policy of the container's process: set_mempolicy(2)" => |oci| {
        if !fs::exists("/sys/devices/system/node/node0").unwrap_or(false) {
            return skip("this kernel has no NUMA");
        }
        let policy = json!({ "mode": "MPOL_BIND", "nodes": "0" });
        assert!(says(oci, "head -1 /proc/self/numa_maps", add("/linux", "memoryPolicy", policy)).contains("bind:0"));
        refused(oci.run_with("true", add("/linux", "memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "nowhere" }))));
    };
    network_devices_are_moved:
    "netDevices … The runtime MUST check if moving the network interface to the container namespace is possible … MUST preserve the      addresses of global scope … MUST set the network device state to up" => |oci| {
        if !host::has_program("ip") {
            return skip("making a network device takes ip(8)");
        }
        let name = format!("oci{}", std::process::id() % 100_000);
        let ip = |line: &str| {
            let status = std::process::Command::new("ip").args(line.split_whitespace()).status();
            status.is_ok_and(|status| status.success())
        };
        if !ip(&format!("link add {name} type veth peer name {name}p")) {
            return skip("this host makes no veth device");
        }
        assert!(ip(&format!("addr add 192.0.2.7/24 dev {name}")));
        let devices = json!({ name.clone(): { "name": "moved0" } });
        let said = says(oci, "ip -o addr show dev moved0; ip -o link show dev moved0", add("/linux", "netDevices", devices));
        assert!(said.contains("192.0.2.7/24") && said.contains("UP"), "{said}");
        refused(oci.run_with("true", add("/linux", "netDevices", json!({ "nosuchdevice0": {} }))));
        // With the container's namespace both ends are gone.
        eventually("the device is gone", Duration::from_secs(10), || !ip(&format!("link show {name}p")));
    };
    personality_is_set:
    "personality (object, OPTIONAL) sets the Linux execution personality" => |oci| {
        assert_eq!(says(oci, "uname -m", add("/linux", "personality", json!({ "domain": "LINUX32" }))), "i686");
    };
    intel_rdt_is_refused_where_there_is_none:
    "intelRdt … If the runtime cannot apply it, it MUST generate an error" => |oci| {
        if fs::exists("/sys/fs/resctrl/schemata").unwrap_or(false) {
            return skip("this host has resctrl");
        }
        refused(oci.run_with("true", add("/linux", "intelRdt", json!({ "l3CacheSchema": "L3:0=f" }))));
    };
    security_labels_are_refused_without_their_module:
    "apparmorProfile (string, OPTIONAL) specifies the name of the AppArmor profile for the process (what cannot be applied MUST be an \
     error)" => |oci| {
        if fs::exists("/sys/kernel/security/apparmor").unwrap_or(false) {
            return skip("this host has AppArmor");
        }
        refused(oci.run_with("true", add("/process", "apparmorProfile", json!("no-such-profile"))));
    };
    shared_stdio_is_a_terminal_when_asked_for:
    "terminal (bool, OPTIONAL) specifies whether a terminal is attached to the process" => |oci| {
        let mut document = oci.document("tty; test -t 1 && echo terminal");
        document["process"]["terminal"] = json!(true);
        oci.write(&document);
        let bundle = oci.inside().display().to_string();
        let command = oci.command(["run", "--bundle", &bundle, &oci.id("run")]);
        let terminal = Terminal::spawn(command);
        eventually("it has a terminal", Duration::from_secs(10), || {
            let screen = terminal.screen();
            screen.contains("/dev/") && screen.contains("terminal")
        });
    };
}

fn chown(path: &std::path::Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("root may");
    let status = fs::symlink_metadata(path).expect("there");
    assert!(!status.file_type().is_fifo() && status.uid() == id);
    if status.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            chown(&entry.path(), id);
        }
    }
}
