//! What is shown of containers: ps, inspect, `--format`, top, stats, port, system, update.

use coracle_tests::{Engine, host};
use serde_json::Value;

#[test]
fn ps_shows_dockers_columns() {
    let engine = Engine::new();
    let id = engine.detached("--name web", "sleep 100");
    let listed = engine.ok("ps");
    let mut lines = listed.lines();
    let header: Vec<&str> = lines
        .next()
        .expect("a header")
        .split("  ")
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    assert_eq!(
        header,
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    let row = lines.next().expect("a row");
    assert!(row.starts_with(&id[..12]) && row.ends_with("web"), "{row}");
    assert!(
        row.contains("busybox") && row.contains("\"sh -c 'sleep 100'\""),
        "{row}"
    );
    assert!(row.contains(" Up ") && row.contains(" ago "), "{row}");
}

#[test]
fn ps_lists_what_is_asked_for() {
    let engine = Engine::new();
    engine.detached("--name up --label tier=front", "sleep 100");
    engine.sh("--name never", "true").success();
    engine.ok("create --name made busybox true");
    engine
        .run("run --name failed busybox sh -c 'exit 3'")
        .code(3);
    let names = |options: &str| {
        let seen = engine.ok(&format!("ps --format '{{{{.Names}}}}' {options}"));
        let mut names: Vec<String> = seen.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["up"]);
    assert_eq!(names("-a"), ["failed", "made", "up"]);
    assert_eq!(names("-a -f status=created"), ["made"]);
    assert_eq!(
        names("-a --filter status=exited --filter status=created"),
        ["failed", "made"]
    );
    assert_eq!(names("-a -f exited=3"), ["failed"]);
    assert_eq!(names("-f label=tier"), ["up"]);
    assert_eq!(names("-f label=tier=back"), Vec::<String>::new());
    assert_eq!(names("-a -f name=ma"), ["made"]);
    assert_eq!(names("-a -f ancestor=busybox"), ["failed", "made", "up"]);
    assert_eq!(names("-n 1"), ["failed"]);
    assert_eq!(names("-l"), ["failed"]);
    engine.refuses("ps -f nonsense=1");
    let ids = engine.ok("ps -aq");
    assert!(ids.lines().all(|id| id.len() == 12), "{ids}");
    let seen = engine.ok("ps -a --filter name=failed --format '{{.Status}}'");
    assert!(seen.starts_with("Exited (3) "), "{seen}");
}

#[test]
fn ps_formats_by_template_table_and_json() {
    let engine = Engine::new();
    let id = engine.detached("--name c1 --label a=b", "sleep 100");
    let seen = engine.ok("ps --no-trunc --format '{{.ID}} {{.Image}} {{.Label \"a\"}} {{.State}}'");
    assert_eq!(seen, format!("{id} busybox:latest b running"));
    let seen = engine.ok("ps --format 'table {{.Names}}\t{{.State}}'");
    assert_eq!(
        seen.lines()
            .map(|l| l.split_whitespace().collect())
            .collect::<Vec<Vec<_>>>(),
        [["NAMES", "STATE"], ["c1", "running"]]
    );
    let value: Value = serde_json::from_str(&engine.ok("ps --format json")).expect("JSON");
    assert_eq!(
        (value["Names"].as_str(), value["State"].as_str()),
        (Some("c1"), Some("running"))
    );
    let value: Value = serde_json::from_str(&engine.ok("ps --format '{{json .}}'")).expect("JSON");
    assert_eq!(value["Names"], "c1");
    engine.refuses("ps --format '{{.NoSuchField}}'");
    engine.refuses("ps --format '{{.Names'");
}

#[test]
fn inspect_has_dockers_document() {
    let engine = Engine::new();
    let id = engine.detached(
        "--name c1 --memory 64m -e A=b -w /tmp --hostname h",
        "sleep 100",
    );
    let value: Value = serde_json::from_str(&engine.ok("inspect c1")).expect("JSON");
    let it = &value[0];
    assert_eq!(it["Id"], id.as_str());
    assert_eq!(it["Name"], "/c1");
    assert_eq!(it["Path"], "sh");
    assert_eq!(it["Args"], serde_json::json!(["-c", "sleep 100"]));
    assert_eq!(it["State"]["Status"], "running");
    assert_eq!(it["State"]["OOMKilled"], false);
    assert!(
        it["State"]["StartedAt"]
            .as_str()
            .expect("a time")
            .ends_with('Z')
    );
    assert_eq!(it["Config"]["WorkingDir"], "/tmp");
    assert_eq!(it["Config"]["Hostname"], "h");
    let env = it["Config"]["Env"].as_array().expect("a list");
    assert!(env.iter().any(|variable| variable == "A=b"));
    assert_eq!(it["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(it["RestartCount"], 0);
    assert!(it["Image"].as_str().expect("an id").starts_with("sha256:"));
    assert!(it["GraphDriver"]["Name"].is_string() && it["Driver"].is_string());
    assert!(it["NetworkSettings"].is_object());
}

#[test]
fn templates_know_what_dockers_users_use() {
    let engine = Engine::new();
    engine.detached(
        "--name c1 -e A=b -e C=d --label x=y -v data:/data",
        "sleep 100",
    );
    let cases = [
        ("{{.State.Running}}", "true"),
        ("{{.Name}}:{{.State.Status}}", "/c1:running"),
        ("{{index .Config.Labels \"x\"}}", "y"),
        ("{{json .Config.Cmd}}", "[\"sh\",\"-c\",\"sleep 100\"]"),
        (
            "{{range .Mounts}}{{.Destination}} {{.Name}}{{end}}",
            "/data data",
        ),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{len .Args}}", "2"),
        ("{{upper .State.Status}}", "RUNNING"),
        ("{{join .Args \"+\"}}", "-c+sleep 100"),
        ("{{printf \"%s!\" .Name}}", "/c1!"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{eq .State.ExitCode 0}}", "true"),
        (
            "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}",
            "x=y",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(engine.field("c1", template), expected, "{template}");
    }
}

#[test]
fn inspect_finds_images_and_containers_and_says_what_is_missing() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox true");
    let value: Value = serde_json::from_str(&engine.ok("inspect c1 busybox")).expect("JSON");
    assert_eq!(value.as_array().map(Vec::len), Some(2));
    assert!(value[1]["RootFS"].is_object());
    let outcome = engine.refuses("inspect c1 missing").err("missing");
    let value: Value = serde_json::from_str(&outcome.stdout).expect("JSON of those that are there");
    assert_eq!(value.as_array().map(Vec::len), Some(1));
    engine.refuses("inspect --type image c1");
}

#[test]
fn top_lists_the_processes() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 1000 & exec sleep 2000");
    coracle_tests::eventually("both run", std::time::Duration::from_secs(10), || {
        engine.ok("top c1").contains("sleep 2000")
    });
    let seen = engine.ok("top c1");
    let header: Vec<&str> = seen
        .lines()
        .next()
        .expect("a header")
        .split_whitespace()
        .collect();
    assert_eq!(
        header,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    assert!(
        seen.contains("sleep 1000") && seen.lines().count() == 3,
        "{seen}"
    );
    engine.ok("stop -t 0 c1");
    engine.refuses("top c1");
}

#[test]
fn stats_show_use_and_limit() {
    if !host::has_controller("memory") {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c1 --memory 64m", "sleep 100");
    let seen = engine.ok("stats --no-stream c1");
    for column in [
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "PIDS",
    ] {
        assert!(
            seen.lines().next().expect("a header").contains(column),
            "{seen}"
        );
    }
    assert!(seen.contains("/ 64MiB"), "{seen}");
    let text = engine.ok("stats --no-stream --format json c1");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["Name"], "c1");
    let pids = value["PIDs"]
        .as_str()
        .and_then(|pids| pids.parse::<u32>().ok());
    assert!(pids.is_some_and(|pids| pids >= 1), "{value}");
}

#[test]
fn port_lists_nothing_where_nothing_is_published() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    assert_eq!(engine.ok("port c1"), "");
    engine.refuses("port c1 80");
}

#[test]
fn update_changes_what_inspect_shows() {
    if !host::has_controller("memory") {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c1 --memory 64m", "sleep 100");
    assert_eq!(
        engine.ok("update --memory 128m --restart on-failure:3 c1"),
        "c1"
    );
    assert_eq!(
        engine.field("c1", "{{.HostConfig.Memory}}"),
        (128 << 20).to_string()
    );
    let policy =
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(engine.field("c1", policy), "on-failure 3");
    engine.refuses("update --memory 1 c1");
}

#[test]
fn system_df_and_info_and_prune() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox true");
    engine.ok("volume create vv");
    let seen = engine.ok("system df");
    for row in ["TYPE", "Images", "Containers", "Local Volumes"] {
        assert!(seen.contains(row), "{seen}");
    }
    let value: Value = serde_json::from_str(&engine.ok("system info --format json")).expect("JSON");
    assert_eq!(value["Containers"], 1);
    assert_eq!(value["Images"], 1);
    engine.ok("info");
    assert!(
        engine
            .ok("system prune -f")
            .contains("Total reclaimed space")
    );
    assert_eq!(engine.ok("ps -aq"), "");
    assert_eq!(
        engine.ok("images -q").lines().count(),
        1,
        "named images stay"
    );
    assert_eq!(engine.ok("volume ls -q"), "vv", "volumes stay");
}

#[test]
fn container_prune_takes_the_stopped_only() {
    let engine = Engine::new();
    engine.detached("--name up", "sleep 100");
    let id = engine.ok("create --name down busybox true");
    engine.run("container prune -f").success().out(&id);
    assert_eq!(engine.ok("ps -a --format '{{.Names}}'"), "up");
}

#[test]
fn size_of_the_writable_layer_is_shown() {
    let engine = Engine::new();
    engine
        .run("run --name c1 busybox dd if=/dev/zero of=/f bs=1k count=2000")
        .success();
    let seen = engine.ok("ps -a -s --format '{{.Size}}'");
    assert!(
        seen.starts_with("2.0") && seen.contains("MB (virtual "),
        "{seen}"
    );
}
