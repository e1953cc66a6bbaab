//! Lines as typed, against the parts of the request they make.

use super::*;
use clap::{Args as _, FromArgMatches as _};
use coracle_engine::request::*;

fn caller() -> Caller {
    Caller {
        directory: "/work".into(),
        variable: |name| match name {
            "HERE" => Some("yes".into()),
            "HOME" => Some("/home/me".into()),
            _ => None,
        },
    }
}

fn parse(line: &[&str]) -> Result<ContainerSpec, String> {
    let command =
        crate::verbs::prepare(ContainerArguments::augment_args(clap::Command::new("run")));
    let matches = command
        .try_get_matches_from(std::iter::once("run").chain(line.iter().copied()))
        .map_err(|e| e.to_string())?;
    let arguments = ContainerArguments::from_arg_matches(&matches).map_err(|e| e.to_string())?;
    arguments.resolve(&caller()).map_err(|e| e.render())
}

fn spec(line: &[&str]) -> ContainerSpec {
    parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

#[test]
fn options_end_at_the_image() {
    let got = spec(&["-it", "--rm", "img", "-v", "--rm", "-x", "--", "a"]);
    assert_eq!(got.image, "img");
    assert_eq!(got.command, ["-v", "--rm", "-x", "--", "a"]);
    assert!(got.interactive && got.tty && got.auto_remove && got.mounts.is_empty());
    assert_eq!(
        spec(&["@host", "--", "sh", "-c", "id"]).command,
        ["sh", "-c", "id"]
    );
    assert_eq!(spec(&["--", "img", "x"]).image, "img");
    let got = spec(&["--rootfs", "tree", "sh", "-l"]);
    assert_eq!(
        (got.rootfs, got.image.as_str()),
        (Some("/work/tree".into()), "")
    );
    assert_eq!(got.command, ["sh", "-l"]);
    assert!(parse(&[]).is_err());
    assert!(parse(&["--no-such-option", "img"]).is_err());
}

#[test]
fn booleans_take_a_value_after_an_equals_sign_only() {
    assert!(!spec(&["--rm=false", "img"]).auto_remove);
    assert!(spec(&["--rm=true", "img"]).auto_remove);
    assert!(spec(&["--read-only", "img"]).read_only);
    let got = spec(&["-ti", "img"]);
    assert!(got.tty && got.interactive);
    assert!(!spec(&["-t=false", "img"]).tty);
    // The last one stands, as in Docker.
    assert!(spec(&["--rm=false", "--rm", "img"]).auto_remove);
}

#[test]
fn values_may_begin_with_a_dash() {
    let got = spec(&[
        "-e",
        "-x=1",
        "--oom-score-adj",
        "-500",
        "--memory-swap",
        "-1",
        "--pids-limit=-1",
        "img",
    ]);
    assert_eq!(got.env, ["-x=1"]);
    assert_eq!(got.resources.oom_score_adj, Some(-500));
    assert_eq!(got.resources.memory_swap, Some(-1));
    assert_eq!(got.resources.pids, Some(-1));
}

#[test]
fn the_default_is_isolated() {
    let got = spec(&["img"]);
    assert_eq!(
        got,
        ContainerSpec {
            image: "img".into(),
            ..ContainerSpec::default()
        }
    );
    assert_eq!(spec(&["--privileged", "img"]).userns, UserNamespace::Host);
    assert_eq!(
        spec(&["--privileged", "--userns", "auto", "img"]).userns,
        UserNamespace::Auto
    );
}

#[test]
fn identity_and_environment() {
    let got = spec(&[
        "--name",
        "a",
        "--name",
        "b",
        "-h",
        "host",
        "--domainname",
        "d",
        "-u",
        "1:2",
        "--group-add",
        "g",
        "-w",
        "/w",
        "-e",
        "A=1",
        "-eB=2",
        "--env=HERE",
        "-e",
        "GONE",
        "--entrypoint",
        "",
        "-l",
        "x",
        "--label",
        "y=1=2",
        "--annotation",
        "k=v",
        "img",
    ]);
    assert_eq!(got.name.as_deref(), Some("b"));
    assert_eq!(
        (got.hostname.as_deref(), got.domainname.as_deref()),
        (Some("host"), Some("d"))
    );
    assert_eq!(
        (got.user.as_deref(), got.workdir.as_deref()),
        (Some("1:2"), Some("/w"))
    );
    assert_eq!(got.env, ["A=1", "B=2", "HERE=yes", "GONE"]);
    assert_eq!(got.entrypoint, Some(vec![]));
    assert_eq!(
        got.labels,
        BTreeMap::from([("x".into(), String::new()), ("y".into(), "1=2".into())])
    );
    assert_eq!(got.annotations, BTreeMap::from([("k".into(), "v".into())]));
    assert!(parse(&["-e", "=x", "img"]).is_err());
}

#[test]
fn files_of_variables_come_before_options() {
    let file = std::env::temp_dir().join(format!("coracle-cli-env-{}", std::process::id()));
    std::fs::write(&file, "# comment\n\nA=file\n  HERE\nB= spaced value \n").expect("writable");
    let path = file.to_str().expect("UTF-8").to_owned();
    let got = spec(&[
        "--env-file",
        &path,
        "-e",
        "A=option",
        "--label-file",
        &path,
        "img",
    ]);
    std::fs::write(&file, "A B=1\n").expect("writable");
    let wrong = parse(&["--env-file", &path, "img"]);
    std::fs::remove_file(&file).expect("removable");
    assert_eq!(
        got.env,
        ["A=file", "HERE=yes", "B= spaced value ", "A=option"]
    );
    assert_eq!(got.labels.get("A").map(String::as_str), Some("file"));
    assert!(wrong.expect_err("white space").contains("white space"));
    assert!(
        parse(&["--env-file", &path, "img"])
            .expect_err("gone")
            .contains("cannot read")
    );
}

fn bind(source: &str, target: &str) -> Mount {
    let kind = MountKind::Bind {
        source: source.into(),
        create: true,
        propagation: None,
        recursive: true,
        idmap: true,
    };
    Mount {
        kind,
        target: target.into(),
        read_only: false,
    }
}

fn volume(name: Option<&str>, nocopy: bool) -> Mount {
    Mount {
        kind: MountKind::Volume {
            name: name.map(Into::into),
            nocopy,
        },
        target: "/t".into(),
        read_only: false,
    }
}

#[test]
fn volumes() {
    let got = |text: &str| spec(&["-v", text, "img"]).mounts.remove(0);
    assert_eq!(got("/a:/t"), bind("/a", "/t"));
    assert_eq!(got("./a:/t"), bind("/work/a", "/t"));
    assert_eq!(got("~/a:/t"), bind("/home/me/a", "/t"));
    assert_eq!(
        got("/a:/t:ro"),
        Mount {
            read_only: true,
            ..bind("/a", "/t")
        }
    );
    assert_eq!(got("/t"), volume(None, false));
    assert_eq!(got("data:/t"), volume(Some("data"), false));
    assert_eq!(got("data:/t:nocopy"), volume(Some("data"), true));
    let options = got("/a:/t:noidmap,rshared,bind,ro");
    let kind = MountKind::Bind {
        source: "/a".into(),
        create: true,
        propagation: Some("rshared".into()),
        recursive: false,
        idmap: false,
    };
    assert_eq!(
        options,
        Mount {
            kind,
            target: "/t".into(),
            read_only: true
        }
    );
    for wrong in [
        "",
        "/a:t",
        "/a:/",
        "data:/t:rshared",
        "x:/t",
        "/a:/t:what",
        "/a:/t:ro:rw",
        "a b:/t",
    ] {
        assert!(parse(&["-v", wrong, "img"]).is_err(), "{wrong:?}");
    }
}

#[test]
fn mounts() {
    let got = |text: &str| spec(&["--mount", text, "img"]).mounts.remove(0);
    let strict = |mut mount: Mount| {
        if let MountKind::Bind { create, .. } = &mut mount.kind {
            *create = false;
        }
        mount
    };
    assert_eq!(
        got("type=bind,source=/a,target=/t"),
        strict(bind("/a", "/t"))
    );
    assert_eq!(
        got("type=bind,src=a,dst=/t,readonly"),
        Mount {
            read_only: true,
            ..strict(bind("/work/a", "/t"))
        }
    );
    assert_eq!(
        got("type=bind,\"source=/a,b\",destination=/t,ro=true"),
        Mount {
            read_only: true,
            ..strict(bind("/a,b", "/t"))
        }
    );
    assert_eq!(
        got("src=data,dst=/t,volume-nocopy"),
        volume(Some("data"), true)
    );
    assert_eq!(got("type=volume,dst=/t"), volume(None, false));
    let kind = MountKind::Tmpfs {
        size: Some(64 << 20),
        mode: Some(0o770),
        options: vec![],
    };
    assert_eq!(
        got("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=0770"),
        Mount {
            kind,
            target: "/t".into(),
            read_only: false
        }
    );
    for wrong in [
        "",
        "type=bind,target=/t",
        "type=bind,source=/a",
        "type=tmpfs,source=/a,target=/t",
        "type=npipe,target=/t",
        "type=bind,source=/a,target=/t,tmpfs-size=1",
        "type=tmpfs,target=/t,tmpfs-mode=9",
        "what=1,target=/t",
        "type=bind,,target=/t",
        "\"type=bind",
        "type=volume,target=/t,bind-propagation=shared",
        "type=bind,source=/a,target=/t,bind-propagation=what",
    ] {
        assert!(parse(&["--mount", wrong, "img"]).is_err(), "{wrong:?}");
    }
}

#[test]
fn tmpfs() {
    let got = spec(&[
        "--tmpfs",
        "/t",
        "--tmpfs",
        "/u:size=1m,mode=755,noexec,uid=5",
        "img",
    ])
    .mounts;
    let tmpfs = |size, mode, options: &[&str], target: &str| Mount {
        kind: MountKind::Tmpfs {
            size,
            mode,
            options: options.iter().map(|&o| o.into()).collect(),
        },
        target: target.into(),
        read_only: false,
    };
    assert_eq!(
        got,
        [
            tmpfs(None, None, &[], "/t"),
            tmpfs(Some(1 << 20), Some(0o755), &["noexec", "uid=5"], "/u")
        ]
    );
    assert!(parse(&["--tmpfs", "t", "img"]).is_err());
    assert!(parse(&["--tmpfs", "/t:lowerdir=/etc", "img"]).is_err());
}

#[test]
fn devices_and_rules() {
    let got = spec(&[
        "--device",
        "/dev/a",
        "--device=/dev/b:r",
        "--device",
        "/dev/c:/dev/d:rw",
        "--device-cgroup-rule",
        "c 1:* rw",
        "img",
    ]);
    let all: Vec<_> = got
        .devices
        .iter()
        .map(|d| {
            (
                d.host.to_str().unwrap_or(""),
                d.container.as_str(),
                d.access.as_str(),
            )
        })
        .collect();
    assert_eq!(
        all,
        [
            ("/dev/a", "/dev/a", "rwm"),
            ("/dev/b", "/dev/b", "r"),
            ("/dev/c", "/dev/d", "rw")
        ]
    );
    assert_eq!(got.device_cgroup_rules, ["c 1:* rw"]);
    for wrong in ["a", "/dev/a:b", "/dev/a:/dev/b:x"] {
        assert!(parse(&["--device", wrong, "img"]).is_err(), "{wrong}");
    }
    assert!(parse(&["--device-cgroup-rule", "d 1:1 rw", "img"]).is_err());
}

#[test]
fn security() {
    let got = spec(&[
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop=ALL",
        "--security-opt",
        "no-new-privileges:false",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "mask=/a:/b",
        "--security-opt=systempaths=unconfined",
        "--security-opt",
        "label=disable",
        "img",
    ]);
    assert_eq!(
        (got.cap_add, got.cap_drop),
        (vec!["NET_ADMIN".into()], vec!["ALL".into()])
    );
    let expected = Security {
        seccomp: Seccomp::Unconfined,
        no_new_privileges: Some(false),
        mask: vec!["/a".into(), "/b".into()],
        unmask: vec!["ALL".into()],
        label: vec!["disable".into()],
        apparmor: None,
    };
    assert_eq!(got.security, expected);
    assert_eq!(
        spec(&["--security-opt", "no-new-privileges", "img"])
            .security
            .no_new_privileges,
        Some(true)
    );
    for wrong in [
        "what=1",
        "seccomp=/no/such/file",
        "mask=a",
        "no-new-privileges=perhaps",
    ] {
        assert!(parse(&["--security-opt", wrong, "img"]).is_err(), "{wrong}");
    }
}

#[test]
fn namespaces_and_networks() {
    let got = spec(&[
        "--pid",
        "host",
        "--ipc=container:a",
        "--uts",
        "host",
        "--cgroupns",
        "private",
        "--net",
        "none",
        "img",
    ]);
    assert_eq!(
        (got.pid, got.ipc),
        (NamespaceMode::Host, NamespaceMode::Container("a".into()))
    );
    assert_eq!(
        (got.uts, got.cgroupns, got.network),
        (
            NamespaceMode::Host,
            NamespaceMode::Private,
            NetworkMode::None
        )
    );
    assert_eq!(
        spec(&["--network", "container:b", "img"]).network,
        NetworkMode::Container("b".into())
    );
    assert_eq!(
        spec(&["--network", "mine", "img"]).network,
        NetworkMode::Named("mine".into())
    );
    let map = UserNamespace::Map {
        uids: vec![(0, 100_000, 65_536)],
        gids: vec![(0, 200_000, 65_536)],
    };
    assert_eq!(
        spec(&[
            "--userns",
            "map:uids=0:100000:65536,gids=0:200000:65536",
            "img"
        ])
        .userns,
        map
    );
    for wrong in [
        ["--pid", "what"],
        ["--userns", "map:uids=0:1"],
        ["--userns", "map:gids=0:1:2"],
        ["--userns", "keep-id"],
        ["--net", "container:"],
    ] {
        assert!(parse(&[wrong[0], wrong[1], "img"]).is_err(), "{wrong:?}");
    }
}

#[test]
fn ports_and_names() {
    let got = spec(&[
        "-p",
        "80",
        "-p",
        "127.0.0.1:8080:80/tcp",
        "-p",
        "[::1]:53:53/udp",
        "-p",
        "8000-8002:9000-9002",
        "--expose",
        "1-3/udp",
        "--add-host",
        "a:1.2.3.4",
        "--add-host=b=[::1]",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "x",
        "--dns-opt",
        "ndots:2",
        "img",
    ]);
    assert_eq!(
        got.publish,
        [
            "80",
            "127.0.0.1:8080:80/tcp",
            "[::1]:53:53/udp",
            "8000-8002:9000-9002"
        ]
    );
    assert_eq!(got.expose, ["1/udp", "2/udp", "3/udp"]);
    assert_eq!(
        got.extra_hosts,
        [("a".into(), "1.2.3.4".into()), ("b".into(), "::1".into())]
    );
    assert_eq!(
        (got.dns, got.dns_search, got.dns_options),
        (
            vec!["9.9.9.9".into()],
            vec!["x".into()],
            vec!["ndots:2".into()]
        )
    );
    for wrong in [
        "0", "x:80", "1:2:3:4", "80/icmp", "1-3:1-2", "a.b:1:2", "70000",
    ] {
        assert!(parse(&["-p", wrong, "img"]).is_err(), "{wrong}");
    }
    assert!(parse(&["-P", "img"]).is_err());
    assert!(parse(&["--add-host", "a", "img"]).is_err());
    assert!(parse(&["--dns", "a", "img"]).is_err());
}

#[test]
fn limits() {
    let got = spec(&[
        "-m",
        "512m",
        "--memory-reservation",
        "256m",
        "--memory-swap",
        "1g",
        "--cpus",
        "0.5",
        "-c",
        "512",
        "--cpuset-cpus",
        "0-1,3",
        "--cpuset-mems",
        "0",
        "--pids-limit",
        "100",
        "--blkio-weight",
        "300",
        "--device-read-bps",
        "/dev/sda:1mb",
        "--device-write-iops",
        "/dev/sda:100",
        "--shm-size",
        "1m",
        "--ulimit",
        "nofile=1024:2048",
        "--ulimit",
        "core=-1",
        "img",
    ]);
    let expected = Resources {
        memory: Some(512 << 20),
        memory_reservation: Some(256 << 20),
        memory_swap: Some(1 << 30),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0-1,3".into()),
        cpuset_mems: Some("0".into()),
        pids: Some(100),
        blkio_weight: Some(300),
        device_read_bps: vec![("/dev/sda".into(), 1 << 20)],
        device_write_iops: vec![("/dev/sda".into(), 100)],
        ..Resources::default()
    };
    assert_eq!(got.resources, expected);
    assert_eq!(got.shm_size, Some(1 << 20));
    assert_eq!(
        got.ulimits,
        [
            ("nofile".into(), 1024, 2048),
            ("core".into(), u64::MAX, u64::MAX)
        ]
    );
    for wrong in [
        ["--memory", "x"],
        ["--cpus", "0.001"],
        ["--cpuset-cpus", "3-1"],
        ["--blkio-weight", "5"],
        ["--device-read-bps", "sda:1"],
        ["--device-read-iops", "/dev/sda:0"],
        ["--ulimit", "what=1"],
        ["--ulimit", "nofile=2:1"],
        ["--oom-score-adj", "2000"],
    ] {
        assert!(parse(&[wrong[0], wrong[1], "img"]).is_err(), "{wrong:?}");
    }
    assert!(parse(&["--cpus", "1", "--cpu-quota", "1", "img"]).is_err());
}

#[test]
fn life() {
    let got = spec(&[
        "--stop-signal",
        "SIGINT",
        "--stop-timeout",
        "-1",
        "--restart",
        "on-failure:3",
        "--log-opt",
        "max-size=10m",
        "--log-opt",
        "max-file=3",
        "--health-cmd",
        "true",
        "--health-interval",
        "5s",
        "--health-retries",
        "2",
        "--volumes-from",
        "a:ro",
        "img",
    ]);
    assert_eq!(
        (got.stop_signal.as_deref(), got.stop_timeout),
        (Some("SIGINT"), Some(u32::MAX))
    );
    assert_eq!(got.restart, Restart::OnFailure(3));
    assert_eq!(
        got.log.options.get("max-size").map(String::as_str),
        Some("10m")
    );
    let health = Health {
        test: vec!["CMD-SHELL".into(), "true".into()],
        interval: 5_000_000_000,
        retries: 2,
        ..Health::default()
    };
    assert_eq!(got.health, Some(health));
    assert_eq!(got.volumes_from, ["a:ro"]);
    assert_eq!(
        spec(&["--no-healthcheck", "img"]).health.map(|h| h.test),
        Some(vec!["NONE".into()])
    );
    for wrong in [
        ["--restart", "sometimes"],
        ["--restart", "always:2"],
        ["--log-driver", "syslog"],
        ["--log-opt", "what=1"],
        ["--stop-signal", "SIGWHAT"],
        ["--health-interval", "5"],
        ["--platform", "plan9/vax"],
        ["-a", "what"],
    ] {
        assert!(parse(&[wrong[0], wrong[1], "img"]).is_err(), "{wrong:?}");
    }
    assert!(parse(&["--rm", "--restart", "always", "img"]).is_err());
    assert!(parse(&["--no-healthcheck", "--health-cmd", "x", "img"]).is_err());
}
