//! The command line itself: what it knows, and what it generates of itself.

use std::process::{Command, Output};

use coracle_tests::{Engine, binary};

const VERBS: [&str; 40] = [
    "attach",
    "commit",
    "cp",
    "create",
    "diff",
    "events",
    "exec",
    "export",
    "history",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "logs",
    "pause",
    "port",
    "ps",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "start",
    "stats",
    "stop",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "wait",
    "container",
    "image",
    "volume",
    "system",
    "conform",
    "completion",
];

fn coracle(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().expect("it runs")
}

#[test]
fn every_verb_is_listed_and_has_help() {
    let listed = String::from_utf8(coracle(&["--help"]).stdout).expect("text");
    for verb in VERBS {
        assert!(
            listed
                .lines()
                .any(|line| line.split_whitespace().next() == Some(verb)),
            "{verb} is not in the help: {listed}"
        );
        let help = coracle(&[verb, "--help"]);
        assert!(help.status.success(), "{verb} --help");
        assert!(
            String::from_utf8_lossy(&help.stdout).contains("Usage:"),
            "{verb} --help"
        );
    }
}

#[test]
fn version_is_one_line_and_by_template() {
    let said = String::from_utf8(coracle(&["--version"]).stdout).expect("text");
    assert!(
        said.starts_with("coracle ") && said.lines().count() == 1,
        "{said}"
    );
    let engine = Engine::empty();
    let version = engine.ok("version --format '{{.Client.Version}}'");
    assert!(said.contains(&version), "{version} is not in {said}");
}

#[test]
fn completions_are_generated_and_the_shells_take_them() {
    for shell in ["bash", "zsh", "fish"] {
        let output = coracle(&["completion", shell]);
        assert!(output.status.success(), "{shell}");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            text.contains("coracle") && text.contains("network"),
            "{shell}"
        );
        let installed = Command::new(shell).arg("-c").arg("true").status().is_ok();
        if shell == "bash" && installed {
            let mut check = Command::new("bash");
            check.args(["-n", "-c", &text]);
            assert!(check.status().expect("bash is there").success());
        }
    }
    assert!(!coracle(&["completion", "nonsense"]).status.success());
}

#[test]
fn manual_pages_are_generated() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = coracle(&["man", &dir.path().display().to_string()]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for page in [
        "coracle.1",
        "coracle-run.1",
        "coracle-ps.1",
        "coracle-volume-create.1",
    ] {
        let text = std::fs::read_to_string(dir.path().join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn binary_is_static_and_small() {
    let bytes = std::fs::read(binary()).expect("readable");
    assert!(bytes.len() < 12 << 20, "{} bytes", bytes.len());
    // No PT_INTERP among the program headers: nothing of the host is needed to start it.
    let word = |at: usize, size: usize| {
        bytes[at..at + size]
            .iter()
            .rev()
            .fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (offset, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    assert!(count > 0);
    assert!(
        (0..count).all(|n| word(offset + n * size, 4) != 3),
        "it names an interpreter"
    );
}

#[test]
fn container_and_image_groups_are_the_same_verbs() {
    let engine = Engine::new();
    engine.ok("container create --name c1 busybox true");
    assert_eq!(engine.ok("container ls -aq"), engine.ok("ps -aq"));
    assert_eq!(engine.ok("image ls -q"), engine.ok("images -q"));
    engine.ok("container start c1");
    engine.ok("container wait c1");
    engine.ok("container rm c1");
    engine.ok("image tag busybox two");
    engine.ok("image rm two");
}

#[test]
fn conform_proves_the_columns_that_exist_and_admits_the_others() {
    let engine = Engine::empty();
    let outcome = engine
        .line("conform --format json")
        .limit(std::time::Duration::from_secs(180))
        .run();
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    let columns = value["columns"].as_array().expect("a list");
    assert_eq!(columns.len(), 10, "{value}");
    let answer = |n: u64| {
        let column = columns
            .iter()
            .find(|column| column["column"] == n)
            .expect("each is there");
        column["answer"].as_str().expect("Yes or No").to_owned()
    };
    if !rustix::process::geteuid().is_root() {
        coracle_tests::skip("the columns are proven as root");
        return;
    }
    for n in [1, 2, 5, 10] {
        assert_eq!(answer(n), "Yes", "column {n}: {value}");
    }
    if answer(6) == "Skip" && outcome.stdout.contains("the host is too busy") {
        coracle_tests::skip("the host is too busy to give a container the CPU that it may have");
    } else {
        assert_eq!(answer(6), "Yes", "column 6: {value}");
    }
    for n in [3, 7, 8, 9] {
        assert_eq!(answer(n), "No", "column {n} is not there yet: {value}");
    }
}
