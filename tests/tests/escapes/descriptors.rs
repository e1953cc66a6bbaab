//! Handles that lead out: descriptors which the engine had open, working directories, and what can be reached through
//! a process that is just entering the container.

use std::os::unix::fs::MetadataExt;

use coracle_tests::tar::Tar;
use coracle_tests::{compile, words};
use serde_json::json;

use crate::stage::{HOST_USERS, everywhere, load, marker};

#[test]
fn cve_2024_21626_no_descriptor_of_the_host_is_a_way_out() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let climb =
            format!("cat ../../../../../../../..{marker} && echo ESCAPED; ls /proc/self/fd/; true");
        for n in 3..=12 {
            let options = format!("{stance} -w /proc/self/fd/{n}");
            engine
                .sh(&options, &climb)
                .not_out("ESCAPED")
                .not_out("of the host");
        }
        engine.detached(&format!("--name c1 {stance}"), "sleep 100");
        for n in 3..=12 {
            let mut args = words(&format!("exec -w /proc/self/fd/{n} c1 sh -c"));
            args.push(climb.clone());
            engine
                .command(args)
                .run()
                .not_out("ESCAPED")
                .not_out("of the host");
        }
        let script = format!(
            "for p in self 1; do for f in /proc/$p/fd/* /proc/$p/cwd /proc/$p/root; do \
             cat $f/../../../../../..{marker} 2>/dev/null && echo ESCAPED; done; done; true"
        );
        engine
            .command(["exec", "c1", "sh", "-c", &script])
            .run()
            .success()
            .not_out("ESCAPED");
        engine.ok("rm -f c1");
    });
}

#[test]
fn cve_2024_21626_working_directory_of_an_image() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        for n in 3..=9 {
            let name = format!("wd{n}{}", stance.len());
            let config = json!({"WorkingDir": format!("/proc/self/fd/{n}"), "Env": ["PATH=/bin"]});
            load(
                engine,
                &name,
                &mut [Tar::new().file("x", 0o644, b"x")],
                &config,
            );
            let script = format!("cat ../../../../../../..{marker}; true");
            crate::stage::sh_in(engine, stance, &format!("{name}:1"), &script)
                .not_out("of the host");
        }
    });
}

/// A process that enters the container is the engine until it is the program: its descriptors and its memory were a way
/// to the host (CVE-2016-9962 in Docker and runc, CVE-2016-8649 in LXC).
#[test]
fn cve_2016_9962_a_process_that_enters_cannot_be_taken_hold_of() {
    everywhere(|engine, stance| {
        let Some(program) = compile("enter", engine.dir()) else {
            return;
        };
        let (_, marker) = marker(engine);
        let mount = program.display();
        let file = std::fs::metadata(coracle_tests::binary()).expect("it is there");
        let (device, inode) = (file.dev(), file.ino());
        let ptrace = "--cap-add SYS_PTRACE --security-opt seccomp=unconfined";
        // With root's own ids that capability is one over the host's processes: SECURITY.md.
        let count = if stance == HOST_USERS { 1 } else { 2 };
        for (name, more) in [("plain", ""), ("ptrace", ptrace)].into_iter().take(count) {
            engine.ok(&format!(
                "run -d --name {name} -v {mount}:/attack:ro {stance} {more} busybox /attack {marker} {device} {inode}"
            ));
            engine.until_logged(name, "watching");
            for command in [
                "true",
                "-w /tmp {} true",
                "-u 1000 {} sleep 0.02",
                "-d {} sleep 0.02",
            ] {
                let words = match command.contains("{}") {
                    true => command.replace("{}", name),
                    false => format!("{name} {command}"),
                };
                for _ in 0..6 {
                    engine.run(&format!("exec {words}"));
                }
            }
            engine.run(&format!("logs {name}")).success().not_out("GOT");
            engine.ok(&format!("rm -f {name}"));
        }
        if stance == HOST_USERS {
            return;
        }
        // The program would tell: a process inside that does hold a directory with such a file.
        let held = engine.make_dir("held");
        std::fs::write(held.join("marker"), "inside").expect("it is ours");
        let open = format!("-v {}:/held:ro", held.display());
        engine.detached(
            &format!("--name held {open}"),
            "exec 5</held; sleep 100 & wait",
        );
        engine.ok(&format!(
            "run -d --name control --pid container:held -v {mount}:/attack:ro busybox /attack /marker 0 0"
        ));
        engine.until_logged("control", "GOT the file through /proc/");
        engine.ok("rm -f control held");
    });
}

/// Docker gave its own descriptors on to what it started; a container of ours has three.
#[test]
fn three_descriptors_are_open_in_a_new_program() {
    everywhere(|engine, stance| {
        // The fourth is the directory that is being listed.
        let listed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let seen = engine.ok(&format!("run --rm {stance} busybox ls /proc/self/fd"));
        assert_eq!(listed(&seen), "0 1 2 3", "{stance}");
        engine.detached(&format!("--name c1 {stance}"), "exec sleep 100");
        assert_eq!(
            listed(&engine.ok("exec c1 ls /proc/self/fd")),
            "0 1 2 3",
            "{stance}"
        );
        assert_eq!(
            listed(&engine.ok("exec c1 ls /proc/1/fd")),
            "0 1 2",
            "{stance}"
        );
        engine.ok("rm -f c1");
    });
}

/// What the caller of the engine had open is not the container's either.
#[test]
fn descriptors_of_the_caller_are_not_inherited() {
    everywhere(|engine, stance| {
        let (path, text) = marker(engine);
        let look = "ls -l /proc/self/fd /proc/1/fd";
        for line in [
            format!("run --rm {stance} busybox {look}"),
            format!("run -d --name c1 {stance} busybox sleep 100"),
            format!("exec c1 {look}"),
        ] {
            // A shell between us and the engine keeps it open under a low and a high number.
            let command = engine.line(&line).into_command();
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "exec 5<$0 9<$0; exec \"$@\""]).arg(&path);
            let output = shell
                .arg(command.get_program())
                .args(command.get_args())
                .output();
            let output = output.expect("there is a shell");
            let seen = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && !seen.contains(&text),
                "{line}: {seen}"
            );
        }
        engine.ok("rm -f c1");
    });
}
