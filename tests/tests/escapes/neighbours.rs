//! Other users of the host and other containers: what they find of a container's files, sockets and memory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::{BUSYBOX, Engine, compile, host};

use crate::stage::{everywhere, stances};

/// Runs a command as an ordinary user of the host who has nothing to do with the engine.
fn as_stranger(args: &[&str]) -> std::process::Output {
    // A second exec: setpriv(1) itself still has root's capabilities when it looks for the program.
    Command::new("setpriv")
        .args([
            "--reuid",
            "47012",
            "--regid",
            "47012",
            "--clear-groups",
            "--inh-caps=-all",
            "env",
        ])
        .args(args)
        .output()
        .expect("setpriv is there")
}

/// All files and folders below, links not followed.
fn below(dir: &Path) -> Vec<PathBuf> {
    let output = Command::new("find").arg(dir).output().expect("find");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .collect()
}

/// A setuid program that a container makes is one for everybody who can reach it from outside: Docker's data root
/// (CVE-2021-41091), containerd's (CVE-2021-41103, CVE-2024-25621), LXD's (CVE-2016-1581, CVE-2016-1582), Incus' volumes
/// (CVE-2025-64507).
#[test]
fn cve_2021_41091_other_users_of_the_host_reach_nothing_of_a_container() {
    if !host::root() || !host::has_program("setpriv") {
        return;
    }
    let engine = Engine::new();
    let Some(program) = compile("rights", engine.dir()) else {
        return;
    };
    // The folder of the test itself is open to all, as /var/lib is.
    for stance in stances() {
        let name = format!("c{}", stance.len() + 1000);
        let script = "cp /rights /suid; chmod 4777 /suid; cp /rights /vol/suid; chmod 4777 /vol/suid; echo secret > /vol/f; \
                      chmod 777 / /vol /root; chmod 666 /vol/f; echo ready; sleep 100";
        engine.detached(
            &format!(
                "--name {name} {stance} -v vol{}:/vol -v {}:/rights:ro",
                stance.len(),
                program.display()
            ),
            script,
        );
        engine.until_logged(&name, "ready");
    }
    let open = engine.make_file("open", "for all");
    assert!(
        as_stranger(&["cat", &open.display().to_string()])
            .status
            .success(),
        "the way there is open"
    );
    for root in [engine.root(), engine.run_root()] {
        let all = below(root);
        assert!(all.len() > 10, "{all:?}");
        for path in all {
            let path = path.display().to_string();
            if path.ends_with("/suid") {
                let ran = as_stranger(&[&path]);
                assert!(
                    !ran.status.success(),
                    "{path} runs for another user: {:?}",
                    String::from_utf8_lossy(&ran.stdout)
                );
            }
            let meta = fs::symlink_metadata(&path).expect("still there");
            if meta.is_file() && meta.len() > 0 {
                let ours = ["cgroups.json"];
                let read = as_stranger(&["head", "-c", "1", &path]);
                assert!(
                    !read.status.success() || ours.iter().any(|name| path.ends_with(name)),
                    "{path} can be read by another user"
                );
            }
        }
        // Nor written into, nor a socket connected to.
        for name in ["x", "containers/x", "ids/x"] {
            let path = root.join(name).display().to_string();
            assert!(!as_stranger(&["touch", &path]).status.success(), "{path}");
        }
    }
}

/// What a container leaves on the host belongs to ids that own nothing there (CVE-2021-21284: Docker's remapped root could
/// write to the engine's own state).
#[test]
fn cve_2021_21284_remapped_root_owns_nothing_of_the_engine() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c1", "touch /made; chmod 777 /made; sleep 100");
    let status = fs::read_to_string(format!("/proc/{}/status", engine.pid("c1"))).expect("it runs");
    let uid = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("Uid:\t")?
                .split('\t')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .expect("a line");
    assert_ne!(uid, 0);
    let as_remapped = |args: &[&str]| {
        let id = uid.to_string();
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "env",
            ])
            .args(args);
        command.output().expect("setpriv").status.success()
    };
    assert!(as_remapped(&["true"]));
    for root in [engine.root(), engine.run_root()] {
        for path in below(root) {
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            let text = path.display().to_string();
            // Its own files are its own, behind folders that are not.
            let parent = path.parent().expect("below").display().to_string();
            assert!(
                !as_remapped(&["touch", &format!("{parent}/x")]),
                "{parent} can be written by {uid}"
            );
            if meta.is_file() && meta.uid() != uid {
                assert!(
                    !as_remapped(&["sh", "-c", &format!(": >> '{text}'")]),
                    "{text} can be written by {uid}"
                );
            }
        }
    }
}

/// containerd's shims listened on abstract sockets, which belong to the network namespace: any root of a container with
/// the host's network commanded them.
#[test]
fn cve_2020_15257_no_abstract_socket_of_the_engine_is_in_the_hosts_network() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let control = format!("coracle-test-control-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&control).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("it can be bound");
    everywhere(|engine, stance| {
        engine.detached(&format!("--name c1 {stance} -i"), "sleep 100");
        let seen = engine.sh_ok(&format!("{stance} --network host"), "cat /proc/net/unix");
        // The control shows that the list is the host's.
        assert!(seen.contains(&control), "{stance}: {seen}");
        let of_ours: Vec<&str> = seen
            .lines()
            .filter_map(|line| line.split_whitespace().nth(7))
            .filter(|name| {
                name.starts_with('@')
                    && name.contains("coracle")
                    && !name.contains("coracle-test-control")
            })
            .collect();
        assert_eq!(of_ours, [""; 0]);
        // Those with a path are not in its root.
        let script = "for s in $(awk '$8 ~ /^\\// {print $8}' /proc/net/unix | grep coracle); do [ -e $s ] && echo GOT $s; done; true";
        engine
            .sh(&format!("{stance} --network host"), script)
            .success()
            .not_out("GOT");
        // And its own network has none of the host's at all.
        assert!(
            !engine
                .sh_ok(stance, "cat /proc/net/unix")
                .contains(&control)
        );
        engine.ok("rm -f c1");
    });
    drop(listener);
}

/// Two containers by default are as strangers: no process, file or memory of one is in reach of the other, and what root
/// of one owns is nobody's in the other.
#[test]
fn one_container_does_not_reach_another() {
    let engine = Engine::new();
    engine.detached(
        "--name one",
        "echo secret > /dev/shm/s; echo secret > /tmp/s; sleep 111",
    );
    engine.detached("--name two", "sleep 222");
    let look = "ps -o args; ls /dev/shm /tmp; cat /proc/*/root/tmp/s 2>/dev/null; true";
    let seen = engine
        .command(["exec", "two", "sh", "-c", look])
        .run()
        .success();
    assert!(
        !seen.stdout.contains("111") && !seen.stdout.contains("secret"),
        "{seen:?}"
    );
    let uid = |name: &str| {
        let status =
            fs::read_to_string(format!("/proc/{}/status", engine.pid(name))).expect("it runs");
        status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .expect("a line")
            .to_owned()
    };
    if host::root() {
        assert_ne!(uid("one"), uid("two"), "each has ids of its own");
    }
    // By invitation it does.
    let invited = format!("run --rm --pid container:one --ipc container:one {BUSYBOX} sh -c");
    let mut line = coracle_tests::words(&invited);
    line.push("ps -o args".into());
    engine.command(line).run().success().out("sleep 111");
}

/// A folder that is given to a container read-only is not written through another name, and its mode and owners stay.
#[test]
fn read_only_mounts_cannot_be_made_writable() {
    everywhere(|engine, stance| {
        let folder = engine.make_dir(&format!("given{}", stance.len()));
        fs::write(folder.join("f"), "untouched").expect("it is ours");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::set_permissions(folder.join("f"), fs::Permissions::from_mode(0o666))
            .expect("it is ours");
        let script = "echo x > /d/f; touch /d/new; chmod 600 /d/f; mount -o remount,rw /d; mount -o remount,bind,rw /d; echo x > /d/f; \
                      mkdir -p /tmp/m; mount --bind /d /tmp/m && mount -o remount,bind,rw /tmp/m; echo x > /tmp/m/f; \
                      umount /d; echo x > /d/f; echo tried";
        let options = format!("{stance} -v {}:/d:ro", folder.display());
        // Whoever is given SYS_ADMIN may take the flag off: SECURITY.md.
        for more in [
            "",
            "--cap-add CHOWN --cap-add FOWNER --security-opt no-new-privileges=false",
        ] {
            engine.sh(&format!("{options} {more}"), script).out("tried");
            assert_eq!(
                fs::read_to_string(folder.join("f")).expect("kept"),
                "untouched",
                "{options}"
            );
            assert!(!folder.join("new").exists());
            assert_eq!(
                fs::metadata(folder.join("f")).expect("kept").mode() & 0o777,
                0o666
            );
        }
        // Writable, it is written.
        engine
            .sh(
                &format!("{stance} -v {}:/d", folder.display()),
                "echo x > /d/f",
            )
            .success();
        assert_eq!(fs::read_to_string(folder.join("f")).expect("kept"), "x\n");
    });
}
