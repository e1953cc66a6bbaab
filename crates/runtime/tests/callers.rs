//! Callers of other kinds: with the host's ids, an ordinary user, a root that is one only in its own user namespace.
//!
//! Each is this program again, executed as that caller with one of the ignored tests below.

mod fixture;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use coracle_runtime::{IdMapping, Map, Ownership, Root, seal};
use fixture::{Image, document, run_with, skip};
use serde_json::{Value, json};

/// Any id that nobody has.
const USER: u32 = 54_321;

/// Runs an ignored test of this program in a process of its own.
fn as_another(inner: &str, change: impl FnOnce(&mut Command), before: &[&str]) {
    let executable = std::env::current_exe().expect("ourselves");
    // A copy where everybody may read it.
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("its mode");
    let copy = directory.path().join("callers");
    fs::copy(executable, &copy).expect("a copy");
    let mut command = match before.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&copy);
            command
        }
        None => Command::new(&copy),
    };
    command.args([
        "--exact",
        inner,
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    change(&mut command);
    let output = loop {
        match command.output() {
            // A process that another test has just forked still holds our copy open for writing.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            result => break result.expect("a process"),
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{inner}: {said}"
    );
    for line in said.lines().filter(|line| line.starts_with("SKIP")) {
        eprintln!("{line}");
    }
}

fn as_user(command: &mut Command) {
    command.uid(USER).gid(USER).env("TMPDIR", "/tmp");
}

/// What an ordinary user can have: no cgroup file system, no group for terminals.
fn rootless(arguments: &[&str]) -> Value {
    let mut document = document(arguments);
    let mounts = document["mounts"].as_array_mut().expect("a list");
    mounts.retain(|mount| mount["type"] != "cgroup");
    for mount in mounts {
        mount["options"]
            .as_array_mut()
            .expect("a list")
            .retain(|option| option != "gid=5");
    }
    document
}

#[test]
fn a_sealed_engine_starts_containers_with_the_hosts_ids() {
    if skip("a_sealed_engine_starts_containers_with_the_hosts_ids") {
        return;
    }
    as_another("inner_host_ids", |_| (), &[]);
}

#[test]
#[ignore = "run by a_sealed_engine_starts_containers_with_the_hosts_ids"]
fn inner_host_ids() {
    seal::ensure().expect("a seal");
    assert!(seal::is_sealed().expect("readable"));
    let image = Image::new();
    let script = "cat /proc/self/uid_map; stat -c %t:%T:%a /dev/null /dev/tty; grep CapEff /proc/self/status; \
                  echo x > /proc/sys/kernel/core_pattern; for p in /proc/[0-9]*; do echo x > $p/exe; done 2>/dev/null; \
                  cat /proc/self/mountinfo | grep -c -E 'shared:|master:'; true";
    let outcome = run_with(
        &document(&["sh", "-c", script]),
        image.overlay(),
        IdMapping::Host,
    )
    .expect("a start");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "4294967295"]
    );
    assert_eq!(
        lines[1..5],
        ["1:3:666", "5:0:666", "CapEff:\t00000000a80425fb", "0"],
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("core_pattern"), "{outcome:?}");
    // CVE-2019-5736: the engine executed again from inside still leads to the sealed mount.
    std::os::unix::fs::symlink("/proc/self/exe", image.lower().join("bin/evil")).expect("a link");
    let evil = image.lower().join("bin/again");
    fs::write(&evil, "#!/proc/self/exe\n").expect("a file");
    fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("its mode");
    let error = run_with(
        &document(&["/bin/evil", "--list"]),
        image.overlay(),
        IdMapping::Host,
    );
    if let Ok(outcome) = &error {
        assert_eq!(
            outcome.code, 0,
            "it ran the engine, from the read-only mount: {outcome:?}"
        );
    }
}

#[test]
fn an_ordinary_user_starts_a_container_with_its_own_id() {
    if skip("an_ordinary_user_starts_a_container_with_its_own_id") {
        return;
    }
    as_another("inner_ordinary_user", as_user, &[]);
}

#[test]
#[ignore = "run by an_ordinary_user_starts_a_container_with_its_own_id"]
fn inner_ordinary_user() {
    if coracle_linux::kernel::sysctl("user/max_user_namespaces") == Some(0) {
        eprintln!(
            "SKIP: an_ordinary_user_starts_a_container_with_its_own_id: user.max_user_namespaces is 0"
        );
        return;
    }
    let ids = || {
        let maps = || {
            vec![Map {
                inside: 0,
                outside: USER,
                count: 1,
            }]
        };
        IdMapping::Own {
            uids: maps(),
            gids: maps(),
        }
    };
    let image = Image::new();
    let Root::Overlay {
        lowers,
        upper,
        work,
        ..
    } = image.overlay()
    else {
        unreachable!("an overlay")
    };
    let overlay = Root::Overlay {
        lowers,
        upper,
        work,
        volatile: false,
        ownership: Ownership::Outside,
        kept: None,
    };
    let script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x > /root/new; echo y > /dev/null; \
                  cat /proc/kcore; hostname";
    let outcome = run_with(&rootless(&["sh", "-c", script]), overlay, ids()).expect("a start");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "0", USER.to_string().as_str(), "1", "deny", "boat"],
        "{outcome:?}"
    );
    assert!(image.path("upper/root/new").exists());
    let directory = Root::Directory {
        path: image.lower(),
        ownership: Ownership::Outside,
    };
    let mut document = rootless(&["sh", "-c", "cat /bound; id -u"]);
    fs::write(image.path("bound"), "bound\n").expect("a file");
    document["mounts"].as_array_mut().expect("a list").push(
        json!({ "destination": "/bound", "source": image.path("bound"), "options": ["bind", "ro"] }),
    );
    let outcome = run_with(&document, directory.clone(), ids()).expect("a start");
    assert_eq!(outcome.stdout, "bound\n0\n", "{outcome:?}");
    // More ids than its own are not a user's to map.
    let maps = || {
        vec![Map {
            inside: 0,
            outside: USER,
            count: 2,
        }]
    };
    let error = run_with(
        &document,
        directory,
        IdMapping::Own {
            uids: maps(),
            gids: maps(),
        },
    )
    .expect_err("refused");
    assert!(error.to_string().contains("newuidmap"), "{error}");
}

#[test]
fn the_root_of_an_outer_user_namespace_starts_containers_in_it() {
    if skip("the_root_of_an_outer_user_namespace_starts_containers_in_it") {
        return;
    }
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    as_another("inner_outer_root", as_user, &unshare);
}

#[test]
#[ignore = "run by the_root_of_an_outer_user_namespace_starts_containers_in_it"]
fn inner_outer_root() {
    let image = Image::new();
    let Root::Overlay {
        lowers,
        upper,
        work,
        ..
    } = image.overlay()
    else {
        unreachable!("an overlay")
    };
    let overlay = Root::Overlay {
        lowers,
        upper,
        work,
        volatile: false,
        ownership: Ownership::Outside,
        kept: None,
    };
    // The kernel denies setgroups in a namespace of one id.
    let outcome = run_with(
        &rootless(&["sh", "-c", "id -u; echo x > /root/new; echo y > /dev/null"]),
        overlay,
        {
            let maps = || {
                vec![Map {
                    inside: 0,
                    outside: 0,
                    count: 1,
                }]
            };
            IdMapping::Own {
                uids: maps(),
                gids: maps(),
            }
        },
    )
    .expect("a start");
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("0\n", 0),
        "{outcome:?}"
    );
    assert!(image.path("upper/root/new").exists());
}

#[test]
fn init_passes_signals_on_reaps_and_ends_with_the_command() {
    if skip("init_passes_signals_on_reaps_and_ends_with_the_command") {
        return;
    }
    // Beside the tests, when all targets are built.
    let executable = std::env::current_exe().expect("ourselves");
    let init = executable
        .ancestors()
        .nth(2)
        .expect("the target directory")
        .join("examples/init");
    if !init.exists() {
        eprintln!(
            "SKIP: init_passes_signals_on_reaps_and_ends_with_the_command: the example init is not built"
        );
        return;
    }
    let run = |script: &str| {
        Command::new(&init)
            .args(["--", "/bin/busybox", "sh", "-c", script])
            .output()
            .expect("a process")
    };
    assert_eq!(run("exit 7").status.code(), Some(7));
    assert_eq!(run("kill -TERM $$").status.code(), Some(128 + 15));
    assert_eq!(
        Command::new(&init)
            .arg("/nonexistent")
            .output()
            .expect("a process")
            .status
            .code(),
        Some(127)
    );
    assert_eq!(
        Command::new(&init)
            .arg("/etc")
            .output()
            .expect("a process")
            .status
            .code(),
        Some(126)
    );
    // The signal goes to init, and the command hears of it.
    let told = run("trap 'exit 42' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done");
    assert_eq!(told.status.code(), Some(42));
}
