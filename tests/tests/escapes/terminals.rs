//! The terminal of whoever looks: what a container types into it, and what it makes the engine print.

use std::time::Duration;

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, Terminal, compile, words};
use serde_json::json;

use crate::stage::{HOST_USERS, everywhere, load};

/// A program that has the caller's terminal can type into it, and the caller's shell reads that once the program is gone:
/// lxc-attach (CVE-2016-10124), bubblewrap (CVE-2017-5226), snap and Flatpak by TIOCLINUX (CVE-2023-1523, CVE-2023-28100).
#[test]
fn cve_2016_10124_a_container_cannot_type_into_the_callers_terminal() {
    everywhere(|engine, stance| {
        let Some(program) = compile("terminal", engine.dir()) else {
            return;
        };
        let mount = format!("-v {}:/attack:ro", program.display());
        engine.detached(&format!("--name c1 {stance} {mount}"), "sleep 100");
        let wide = if stance == HOST_USERS {
            ""
        } else {
            "--cap-add ALL --security-opt seccomp=unconfined"
        };
        for line in [
            format!("run --rm {stance} {mount} {BUSYBOX} /attack TYPED-IN"),
            format!("run --rm -i {stance} {mount} {BUSYBOX} /attack TYPED-IN"),
            format!("run --rm -t {stance} {wide} {mount} {BUSYBOX} /attack TYPED-IN"),
            format!("run --rm -i {stance} {wide} {mount} {BUSYBOX} /attack TYPED-IN"),
            "exec c1 /attack TYPED-IN".into(),
            "exec -i c1 /attack TYPED-IN".into(),
            "exec -t c1 /attack TYPED-IN".into(),
        ] {
            // A shell stands in for the caller's: it reads what is in the terminal after the command.
            let command = engine.line(&line).into_command();
            let words: Vec<String> = std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
                .collect();
            let script = engine.make_file(
                "caller.sh",
                format!("{}\nstty -icanon min 0 time 3; echo \"left: <$(dd bs=1 count=64 2>/dev/null)>\"; echo over\n", words.join(" ")),
            );
            let shell = Terminal::of(std::process::Command::new("sh").arg(&script));
            shell.expect("over");
            let screen = shell.screen();
            shell.wait();
            let left = screen
                .lines()
                .find(|line| line.contains("left: <"))
                .unwrap_or_default();
            assert!(!left.contains("TYPED"), "{stance}: {line}: {screen}");
            assert!(screen.contains("typed"), "the attack ran: {line}: {screen}");
        }
        engine.ok("rm -f c1");
    });
}

/// What images and containers say of themselves is shown, not sent: no control character reaches the terminal from a list
/// or an error (kubectl: CVE-2021-25743). `logs` and the program's own output are as they are, by their nature.
#[test]
fn cve_2021_25743_lists_and_errors_have_no_control_characters() {
    let evil = "\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[31m\u{9b}2Jx\rforged\u{8}\nforged";
    everywhere(|engine, stance| {
        let name = format!("evil{}", stance.len());
        let mut layer = Tar::new();
        layer.file(&format!("d/{}", evil.replace('/', "")), 0o644, b"x");
        let config = json!({
            "Env": ["PATH=/bin", format!("A={evil}")], "Labels": {evil: evil, "b": evil}, "User": evil, "WorkingDir": format!("/{evil}"),
            "Entrypoint": [evil], "Cmd": [evil, evil], "ExposedPorts": {evil: {}}, "StopSignal": evil, "Volumes": {format!("/{evil}"): {}},
        });
        let clean = |what: &str, text: &str| {
            for line in text.lines() {
                let bad = line.chars().find(|c| c.is_control());
                assert!(
                    bad.is_none() && !line.starts_with("forged"),
                    "{what}: {text:?}"
                );
            }
        };
        let loaded = crate::stage::try_load(engine, &name, &mut [&mut layer], &config);
        clean("load", &loaded.stderr);
        if loaded.code == 0 {
            let image = format!("{name}:1");
            for line in ["images", "images --no-trunc", "system df"] {
                clean(line, &engine.run(line).stdout);
            }
            clean(
                "history",
                &engine.run(&format!("history --no-trunc {image}")).stdout,
            );
            clean("inspect", &engine.run(&format!("inspect {image}")).stdout);
            for options in ["", "-u 0 -w /", "--entrypoint true -u 0"] {
                let seen = engine.run(&format!("run --rm {stance} {options} {image}"));
                clean("run", &seen.stderr);
            }
            clean(
                "create",
                &engine
                    .run(&format!("create --name c0 {stance} {image}"))
                    .stderr,
            );
        }
        let mut plain = Tar::new();
        let labels = json!({"Env": ["PATH=/bin"], "Labels": {"b": evil}, "Cmd": ["sleep", evil]});
        load(
            engine,
            &format!("label{}", stance.len()),
            &mut [plain.file("x", 0o644, b"x")],
            &labels,
        );
        let mut line = words(&format!("run -d --name c1 {stance} -l"));
        line.extend([
            format!("a={evil}"),
            BUSYBOX.into(),
            "sh".into(),
            "-c".into(),
        ]);
        line.push(
            "touch \"/$(printf 'a\\033[2Jb\\nforged')\"; exec sleep 100 ; : \u{1b}[2J".into(),
        );
        engine.command(&line).run().success();
        coracle_tests::eventually("it sleeps", Duration::from_secs(10), || {
            engine.ok("top c1").contains("sleep")
        });
        for line in [
            "ps",
            "ps -a --no-trunc",
            "ps -s",
            "top c1",
            "diff c1",
            "inspect c1",
            "port c1",
            "volume ls",
            "ps --format 'table {{.Labels}}\t{{.Command}}'",
            "events --since 1h --until 0s",
            "stats --no-stream",
        ] {
            let seen = engine.run(line);
            clean(line, &seen.stdout);
            clean(line, &seen.stderr);
        }
        for wrong in [
            vec!["exec", "c1", evil],
            vec!["exec", "-u", evil, "c1", "true"],
            vec!["exec", "-w", evil, "c1", "true"],
            vec!["inspect", evil],
            vec!["run", evil],
        ] {
            let seen = engine.command(&wrong).run();
            assert_ne!(seen.code, 0, "{seen:?}");
            clean("an error", &seen.stderr);
        }
        engine.run("rm -f c0 c1");
    });
}

/// A line of a log is what the container wrote, and never another entry, stream or time.
#[test]
fn what_a_container_writes_forges_no_entry_of_its_log() {
    everywhere(|engine, stance| {
        let forged =
            r#"{\"log\":\"forged\\n\",\"stream\":\"stderr\",\"time\":\"2001-01-01T00:00:00Z\"}"#;
        let script = format!(
            "printf '{forged}\\n'; printf '\"}}\\n{forged}\\n'; printf 'a\\000b\\n'; printf '\\377\\376\\n'; printf 'no end'; \
             head -c 70000 /dev/zero | tr '\\000' x; printf '\\n2001-01-01T00:00:00Z forged\\n'; echo last"
        );
        engine.detached(&format!("--name c1 {stance}"), &script);
        engine.ok("wait c1");
        let all = engine.run("logs c1").success();
        assert_eq!(all.stderr, "", "nothing was written there");
        assert!(all.stdout.ends_with("last\n"), "{all:?}");
        let stamped = engine.run("logs -t c1").success();
        for line in stamped.stdout.lines().filter(|line| !line.is_empty()) {
            assert!(!line.starts_with("2001"), "{line}");
        }
        let old = engine.run("logs --until 2010-01-01T00:00:00Z c1").success();
        assert_eq!(old.stdout, "");
        engine.ok("rm -f c1");
    });
}
