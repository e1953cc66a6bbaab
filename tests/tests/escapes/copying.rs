//! cp, export and commit: they read and write a root that its container changes while they do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, compile};

use crate::stage::{everywhere, marker, names_in};

/// Links inside lead to places inside: Docker (CVE-2018-15664), Podman (CVE-2019-10152, CVE-2019-18466: globs).
#[test]
fn cve_2019_10152_links_inside_do_not_lead_cp_out() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let victim = engine.make_dir(&format!("victim{}", stance.len()));
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let path = victim.display().to_string();
        let script = format!(
            "mkdir /d; ln -s {marker} /d/absolute; ln -s ../../../../../../..{marker} /d/relative; ln -s {path} /to; \
             ln -s ../../../../../../..{path} /up; ln -s /proc/1/root{marker} /d/magic; ln -s /proc/self/cwd /d/cwd; \
             touch '/d/*' '/d/[a-z]*'; echo ready; sleep 100"
        );
        engine.detached(&format!("--name c1 {stance}"), &script);
        engine.until_logged("c1", "ready");
        let sent = engine.make_file("sent", "sent");
        for state in ["running", "stopped"] {
            for from in [
                "/d/absolute",
                "/d/relative",
                "/d/magic",
                "/d",
                "/d/.",
                "/d/*",
                "/to/../marker",
                "/up/../marker",
                "/../../../../marker",
            ] {
                for follow in ["", "-L"] {
                    let out = engine.make_dir("out");
                    engine.run(&format!("cp {follow} c1:{from} {}", out.display()));
                    let found = std::process::Command::new("grep")
                        .args(["-rs", "of the host"])
                        .arg(&out)
                        .output();
                    // Links that were copied as links may point anywhere; as files they must not hold the secret.
                    let found = String::from_utf8_lossy(&found.expect("grep").stdout).into_owned();
                    assert_eq!(found, "", "{state}: cp {follow} {from}");
                    fs::remove_dir_all(out).expect("it is ours");
                }
            }
            for to in [
                "/to",
                "/to/",
                "/to/made",
                "/up/made",
                "/to/../made",
                "/../../../../../made",
                "/proc/1/root/made",
            ] {
                engine.run(&format!("cp {} c1:{to}", sent.display()));
                assert_eq!(names_in(&victim), [""; 0], "{state}: cp to {to}");
            }
            let mut tar = Tar::new();
            tar.symlink("link", &path)
                .file("link/made", 0o644, b"x")
                .file("to/made", 0o644, b"x");
            tar.file("../../../../../../made", 0o644, b"x")
                .hard_link("hard", &format!("{path}/file"));
            let tar = tar.finish();
            for to in ["/", "/tmp", "/to"] {
                engine.line(&format!("cp - c1:{to}")).stdin(&tar).run();
                assert_eq!(names_in(&victim), [""; 0], "{state}: cp - to {to}");
            }
            engine.ok("stop -t 0 c1");
        }
        engine.ok("rm c1");
        assert!(!engine.dir().join("made").exists());
    });
}

/// The way is exchanged while cp goes along it (also CVE-2026-41568 and CVE-2026-42306: what `docker cp` made and mounted
/// on the way; CVE-2023-0778: `podman volume export`).
#[test]
fn cve_2018_15664_a_path_that_is_swapped_while_cp_walks_it() {
    everywhere(|engine, stance| {
        let Some(program) = compile("swap", engine.dir()) else {
            return;
        };
        let victim = engine.make_dir(&format!("victim{}", stance.len()));
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::write(victim.join("f"), "of the host").expect("it is ours");
        let script = format!(
            "mkdir -p /w/dir /v/in; echo inside > /w/dir/f; ln -s ../../../../../../..{} /w/link; exec /attack /w/dir /w/link",
            victim.display()
        );
        let mounts = format!("-v {}:/attack:ro -v vol:/v", program.display());
        engine.detached(&format!("--name c1 {stance} {mounts}"), &script);
        engine.until_logged("c1", "swapping");
        let sent = engine.make_file("sent", "sent");
        let out = engine.dir().join("out");
        for round in 0..20 {
            engine.run(&format!("cp c1:/w/dir/f {}", out.display()));
            let got = fs::read_to_string(&out).unwrap_or_default();
            assert!(!got.contains("of the host"), "{stance}: round {round}");
            engine.run(&format!("cp {} c1:/w/dir/made{round}", sent.display()));
            engine.run(&format!("cp {} c1:/w/dir/f", sent.display()));
            assert_eq!(names_in(&victim), ["f"], "{stance}: round {round}");
            assert_eq!(
                fs::read_to_string(victim.join("f")).expect("kept"),
                "of the host"
            );
        }
        engine.ok("rm -f c1");
        // A copy of an earlier round may be there.
        let _ = fs::remove_file(out);
    });
}

/// What comes out of a container is named by the container: `docker cp` put `dir2` beside a `dir` that was asked for
/// (moby#52948), and Docker's client followed links that had just been unpacked.
#[test]
fn copies_land_where_they_were_asked_to() {
    everywhere(|engine, stance| {
        let outside = engine.make_dir(&format!("outside{}", stance.len()));
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let script = format!(
            "mkdir -p /src/dir /src/dir2 /src/dir/deep; echo x > /src/dir/f; echo x > /src/dir2/g; \
             ln -s {0} /src/dir/a; ln -s {0}/planted /src/dir/b; ln -s ../../outside{1} /src/dir/deep/c; echo ready; sleep 100",
            outside.display(),
            stance.len(),
        );
        engine.detached(&format!("--name c1 {stance}"), &script);
        engine.until_logged("c1", "ready");
        let into = engine.make_dir(&format!("into{}", stance.len()));
        fs::set_permissions(&into, fs::Permissions::from_mode(0o777)).expect("it is ours");
        for from in ["/src/dir", "/src/dir/.", "/src/dir/../dir"] {
            for _ in 0..2 {
                // The second time over what the first brought, links among it.
                engine.run(&format!("cp c1:{from} {}/", into.display()));
                engine.run(&format!("cp c1:{from} {}/renamed", into.display()));
            }
            assert!(!into.join("dir2").exists() && !into.join("renamed2").exists());
            assert_eq!(names_in(&outside), [""; 0], "cp c1:{from}");
        }
        assert!(into.join("dir/f").exists());
        // A file onto a link that an earlier copy brought: it is the name that is written, not what is behind it.
        engine
            .command([
                "exec",
                "c1",
                "sh",
                "-c",
                "rm /src/dir/a /src/dir/b; echo y > /src/dir/a; echo y > /src/dir/b",
            ])
            .run()
            .success();
        engine.run(&format!("cp c1:/src/dir {}/", into.display()));
        assert_eq!(names_in(&outside), [""; 0]);
        engine.ok("rm -f c1");
    });
}

/// An archive of a root holds what is in the root: no device is opened, no link is followed, nothing outside is read.
#[test]
fn commit_and_export_do_not_follow_the_root_out() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let script = format!(
            "ln -s {marker} /link; rm -rf /etc; ln -s {} /etc; mkdir /var/d; mkfifo /var/fifo; ln -s /var/loop /var/loop; \
             touch \"/var/$(printf 'a\\033[2Jb')\"",
            engine.dir().display()
        );
        let outcome = engine
            .command(
                ["run", "--name", "c1"]
                    .into_iter()
                    .chain(stance.split_whitespace())
                    .chain([BUSYBOX, "sh", "-c", &script]),
            )
            .run();
        assert!(outcome.code < 125, "{outcome:?}");
        let file = engine.dir().join("export.tar");
        engine.ok(&format!("export -o {} c1", file.display()));
        let bytes = fs::read(&file).expect("it was written");
        let secret = b"of the host";
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        engine.ok("commit c1 followed:1");
        engine
            .run("run --rm followed:1 cat /link /etc/marker")
            .not_out("of the host");
        engine.ok("rm -f c1");
        engine.ok("rmi followed:1");
    });
}
