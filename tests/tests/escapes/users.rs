//! Who a program inside is: names and numbers of users, groups, capabilities, setuid files.

use coracle_tests::tar::{Entry, Tar};
use coracle_tests::{BUSYBOX, Engine, Outcome, compile, words};
use serde_json::json;

use crate::stage::{HOST_USERS, everywhere, load, marker, sh_in, try_load, with_own_users};

/// An image with the program that tells its rights: plainly, setuid, setgid, and with capabilities on its file.
fn with_rights(engine: &Engine, name: &str) -> Option<()> {
    let program = compile("rights", engine.dir())?;
    let bytes = std::fs::read(program).expect("it is ours");
    let mut layer = Tar::new();
    layer.file("bin/rights", 0o755, &bytes);
    layer.file("bin/suid", 0o4755, &bytes);
    let owned_by_daemon = Entry {
        owner: (0, 1),
        ..Entry::new(b'0', "bin/sgid", 0o2755)
    };
    layer.entry(&owned_by_daemon, &bytes);
    // Version 2 of security.capability: CAP_DAC_OVERRIDE permitted and inheritable, effective.
    let value = [1u8, 0, 0, 2, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut capable = Entry::new(b'0', "bin/capable", 0o755);
    capable.pax = vec![("SCHILY.xattr.security.capability".into(), value.to_vec())];
    layer.entry(&capable, &bytes);
    // Everybody but the group may read it.
    let negative = Entry {
        owner: (0, 1000),
        ..Entry::new(b'0', "negative", 0o604)
    };
    layer.entry(&negative, b"x");
    load(
        engine,
        name,
        &mut [&mut layer],
        &json!({"Env": ["PATH=/bin"]}),
    );
    Some(())
}

/// The value of one line of what the program said.
#[track_caller]
fn of<'a>(seen: &'a Outcome, what: &str) -> &'a str {
    let start = format!("{what} ");
    let line = seen.stdout.lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {what} in {seen:?}"))[start.len()..].trim()
}

/// Inheritable capabilities that were not empty made a file's capabilities a way up (also CVE-2022-27649, -27650,
/// -27651, -27652 and -29162: Podman, crun, Buildah, CRI-O, runc's exec); ambient ones made an ordinary user privileged
/// (CVE-2016-8867).
#[test]
fn cve_2022_24769_no_capability_is_inheritable_and_a_user_has_none() {
    everywhere(|engine, stance| {
        let name = format!("rights{}", stance.len());
        if with_rights(engine, &name).is_none() {
            return;
        }
        let image = format!("{name}:1");
        let check = |seen: Outcome, root: bool| {
            let seen = seen.success();
            assert_eq!(of(&seen, "inheritable"), "0", "{seen:?}");
            assert_eq!(of(&seen, "ambient"), "0", "{seen:?}");
            assert_eq!(of(&seen, "effective") == "0", !root, "{seen:?}");
            assert_eq!(of(&seen, "permitted") == "0", !root, "{seen:?}");
        };
        engine.ok(&format!("run -d --name c1 {stance} {image} sleep 100"));
        for (user, root) in [
            ("", true),
            ("-u 1000", false),
            ("-u app", false),
            ("-u 1000:0", false),
        ] {
            for more in ["", "--cap-add NET_ADMIN --cap-add DAC_OVERRIDE"] {
                check(
                    engine.run(&format!("run --rm {stance} {user} {more} {image} rights")),
                    root,
                );
            }
            check(engine.run(&format!("exec {user} c1 rights")), root);
            if !root {
                // Capabilities of a file are as nothing: no_new_privs, and nothing to inherit.
                check(
                    engine.run(&format!("run --rm {stance} {user} {image} capable")),
                    false,
                );
                check(engine.run(&format!("exec {user} c1 capable")), false);
                check(engine.run(&format!("exec {user} c1 suid")), false);
            }
        }
        let privileged = engine.run("exec --privileged c1 rights").success();
        assert_eq!(of(&privileged, "inheritable"), "0");
        let seen = engine.run("exec c1 rights").success();
        assert_eq!(of(&seen, "bounding"), of(&seen, "effective"), "{seen:?}");
        engine.ok("rm -f c1");
    });
}

/// Programs of an image that change who they are.
#[test]
fn setuid_files_of_an_image_give_nothing() {
    everywhere(|engine, stance| {
        let name = format!("suid{}", stance.len());
        if with_rights(engine, &name).is_none() {
            return;
        }
        let run = |more: &str, program: &str| {
            engine
                .run(&format!(
                    "run --rm {stance} -u 1000:1000 {more} {name}:1 {program}"
                ))
                .success()
        };
        assert_eq!(of(&run("", "suid"), "uid"), "1000 1000 1000");
        assert_eq!(of(&run("", "sgid"), "gid"), "1000 1000");
        let open = "--security-opt no-new-privileges=false";
        // The files are what they claim to be.
        assert_eq!(of(&run(open, "suid"), "uid"), "1000 0 0");
        assert_eq!(of(&run(open, "sgid"), "gid"), "1000 1");
    });
}

/// A user whose own group was not among his supplementary groups could shed it, and read what it is denied: Moby, and
/// Podman (CVE-2022-2989), Buildah (CVE-2022-2990), CRI-O (CVE-2022-2995), containerd (CVE-2023-25173).
#[test]
fn cve_2022_36109_a_users_groups_are_all_there_and_no_more() {
    everywhere(|engine, stance| {
        let name = format!("groups{}", stance.len());
        if with_rights(engine, &name).is_none() {
            return;
        }
        engine.ok(&format!("run -d --name c1 {stance} {name}:1 sleep 100"));
        let groups = |user: &str| -> Vec<Vec<u32>> {
            let run = engine
                .run(&format!("run --rm {stance} -u {user} {name}:1 rights"))
                .success();
            let exec = engine.run(&format!("exec -u {user} c1 rights")).success();
            let sorted = |seen: &Outcome| {
                let mut list: Vec<u32> = of(seen, "groups")
                    .split(' ')
                    .filter_map(|id| id.parse().ok())
                    .collect();
                list.sort_unstable();
                list
            };
            vec![sorted(&run), sorted(&exec)]
        };
        for user in ["app", "1000"] {
            assert_eq!(groups(user), [[10, 1000, 2000], [10, 1000, 2000]], "{user}");
        }
        for user in ["app:app", "1000:1000"] {
            for list in groups(user) {
                assert!(list.contains(&1000), "{user}: {list:?}");
            }
        }
        assert_eq!(groups("4242"), [[0], [0]]);
        let open = "--security-opt no-new-privileges=false";
        for program in ["rights", "sgid"] {
            for user in ["app", "1000", "1000:1000"] {
                engine
                    .run(&format!(
                        "run --rm {stance} {open} -u {user} {name}:1 {program} allowed /negative r"
                    ))
                    .success()
                    .out("refused");
            }
        }
        // Those outside the group may.
        engine
            .run(&format!(
                "run --rm {stance} -u 2:2 {name}:1 rights allowed /negative r"
            ))
            .out("GOT");
        engine.ok("rm -f c1");
    });
}

/// Names that look like numbers, and numbers that are none. Docker took `-u 1000` for the user of that name
/// (CVE-2016-3697), containerd let 2³² wrap to root (CVE-2024-40635) or be looked up as a name (CVE-2026-46680), crun
/// read `exec -u 1` as root (CVE-2026-30892).
#[test]
fn cve_2016_3697_numbers_are_never_names_and_never_wrap_to_root() {
    let passwd = "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n\
                  2147483648:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n99999999999999999999:x:0:0::/:/bin/sh\n\
                  0x10:x:0:0::/:/bin/sh\n";
    let users = [
        "1000",
        "1",
        "1:1",
        "01000",
        "4294967295",
        "4294967296",
        "4294967296:4294967296",
        "4294967295:0",
        "2147483648",
        "2147483648:2147483648",
        "18446744073709551616",
        "99999999999999999999",
        "-1",
        "-0",
        "+1000",
        "1000:4294967296",
        "1000:-1",
        " 1000",
        "1000 ",
    ];
    everywhere(|engine, stance| {
        let name = format!("numbers{}", stance.len());
        let mut layer = Tar::new();
        layer.file("etc/passwd", 0o644, passwd.as_bytes());
        let config = json!({"Env": ["PATH=/bin"]});
        load(engine, &name, &mut [&mut layer], &config);
        engine.ok(&format!("run -d --name c1 {stance} {name}:1 sleep 100"));
        for user in users {
            let mut run = words(&format!("run --rm {stance}"));
            run.extend([
                format!("--user={user}"),
                format!("{name}:1"),
                "id".into(),
                "-u".into(),
            ]);
            let exec = [
                "exec".into(),
                format!("--user={user}"),
                "c1".into(),
                "id".into(),
                "-u".into(),
            ];
            for line in [run, exec.to_vec()] {
                let seen = engine.command(line).run();
                assert_ne!(seen.text(), "0", "user {user:?} is root: {seen:?}");
                assert_eq!(seen.code == 0, !seen.text().is_empty(), "{seen:?}");
            }
        }
        assert_eq!(engine.ok("exec -u 1000 c1 id -u"), "1000");
        assert_eq!(engine.ok("exec -u 1 c1 id -u"), "1");
        engine.ok("rm -f c1");
    });
    // The same from an image's configuration.
    let engine = Engine::new();
    for (index, user) in users.into_iter().enumerate() {
        let mut layer = Tar::new();
        layer.file("etc/passwd", 0o644, passwd.as_bytes());
        let config = json!({"Env": ["PATH=/bin"], "User": user});
        if try_load(&engine, &format!("user{index}"), &mut [&mut layer], &config).code == 0 {
            let seen = engine.run(&format!("run --rm user{index}:1 id -u"));
            assert_ne!(seen.text(), "0", "user {user:?} is root: {seen:?}");
        }
    }
}

/// The files that names are looked up in are the container's: a link leads nowhere else, a pipe does not hold the engine
/// up, and a file without end is not read to its end (also CVE-2025-4437, CVE-2026-47262: memory).
#[test]
fn cve_2024_9676_names_are_looked_up_inside_and_with_bounds() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let host = engine.make_file("passwd", "hostuser:x:1234:1234::/:/bin/sh\n");
        let name = format!("lookup{}", stance.len());
        let mut gone = Tar::new();
        gone.file("etc/.wh.passwd", 0o644, b"")
            .file("etc/.wh.group", 0o644, b"");
        let mut link = Tar::new();
        link.symlink(
            "etc/passwd",
            &format!("../../../../../..{}", host.display()),
        );
        link.symlink("etc/group", &marker);
        load(
            engine,
            &name,
            &mut [&mut gone, &mut link],
            &json!({"Env": ["PATH=/bin"]}),
        );
        let seen = engine.run(&format!("run --rm {stance} -u hostuser {name}:1 id -u"));
        assert_ne!(seen.code, 0, "{seen:?}");
        assert!(!seen.stderr.contains("of the host"), "{seen:?}");
        // A running container makes something worse of them.
        let traps = [
            "mkfifo /etc/passwd",
            "ln -s /dev/zero /etc/passwd",
            "ln -s /proc/self/fd/0 /etc/passwd",
            "ln -s /proc/kmsg /etc/passwd",
            "mkdir /etc/passwd",
            "ln -s passwd /etc/passwd",
            "dd if=/dev/null of=/etc/passwd bs=1M seek=16384 count=0 2>/dev/null",
        ];
        for (index, trap) in traps.into_iter().enumerate() {
            let name = format!("trap{index}");
            let trap = [trap.to_owned(), trap.replace("passwd", "group")].join("; ");
            let script = format!("rm -rf /etc/passwd /etc/group; {trap}; echo set; sleep 100");
            engine.detached(&format!("--name {name} {stance}"), &script);
            engine.until_logged(&name, "set");
            for user in ["app:extra", "1000:1000"] {
                // A shell, as id(1) looks into the trap itself.
                let script = "while read -r key uid _; do \
                              [ $key = Uid: ] && echo $uid; done < /proc/self/status";
                let line = ["exec", "-u", user, &name, "sh", "-c", script];
                let seen = engine.command(line).run();
                assert!(seen.took.as_secs() < 6, "{trap}: {seen:?}");
                assert_ne!(seen.text(), "0", "{trap}: {seen:?}");
            }
            engine.ok(&format!("rm -f {name}"));
        }
    });
}

/// CRI-O wrote a line for the user into the image's passwd, with a home directory from the environment; Incus wrote
/// variables into a configuration file, line by line (CVE-2026-23953).
#[test]
fn cve_2022_4318_line_breaks_add_no_lines() {
    everywhere(|engine, stance| {
        let run = |options: &[&str], script: &str| {
            let mut line = words(&format!("run --rm {stance}"));
            line.extend(options.iter().map(|option| (*option).to_owned()));
            line.extend([BUSYBOX.to_owned(), "sh".into(), "-c".into(), script.into()]);
            engine.command(line).run()
        };
        let look = "cat /etc/passwd /etc/group /etc/hosts /etc/hostname /etc/resolv.conf";
        let evil = "x\nevil::0:0::/:/bin/sh\n10.0.0.1 evil";
        for options in [
            ["-e", &format!("HOME=/{evil}")],
            ["-e", &format!("A={evil}\nlxc.hook.start-host = /bin/false")],
            ["-u", &format!("4242\n{evil}")],
            ["--hostname", evil],
            ["--domainname", evil],
            ["--add-host", "a\n10.0.0.1 evil:1.2.3.4"],
            ["--add-host", &format!("a:1.2.3.4\n{evil}")],
            ["--dns-search", evil],
            ["--dns-option", evil],
            ["--dns", evil],
            ["-w", evil],
            ["-l", evil],
            ["--annotation", &format!("a={evil}")],
        ] {
            let seen = run(&options, look);
            for line in seen.stdout.lines() {
                assert!(
                    !line.starts_with("evil") && !line.ends_with(" evil"),
                    "{options:?}: {seen:?}"
                );
            }
        }
        run(&["--add-host", "good:1.2.3.4"], look)
            .success()
            .out("good");
    });
}

/// LXC's attach read what it should do from the container's own /proc, which is the container's to fake.
#[test]
fn cve_2015_1334_a_false_proc_does_not_loosen_exec() {
    with_own_users(|engine, _| {
        if with_rights(engine, "attach").is_none() {
            return;
        }
        let options = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined";
        engine.ok(&format!(
            "run -d --name honest {options} attach:1 sleep 100"
        ));
        let plant = "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/self/fd /proc/1/ns /proc/1/attr /proc/sys/kernel && \
                     for p in self 1; do printf 'CapBnd:\\tffffffffffffffff\\nCapEff:\\tffffffffffffffff\\nSeccomp:\\t0\\nNoNewPrivs:\\t0\\nUid:\\t0 0 0 0\\n' > /proc/$p/status; \
                     echo unconfined > /proc/$p/attr/current; echo '0 0 4294967295' > /proc/$p/uid_map; echo 0::/ > /proc/$p/cgroup; done; \
                     echo 63 > /proc/sys/kernel/cap_last_cap; echo planted; sleep 100";
        let mut line = words(&format!("run -d --name liar {options} attach:1 sh -c"));
        line.push(plant.into());
        engine.command(line).run().success();
        engine.until_logged("liar", "planted");
        for more in ["", "-u 1000", "--privileged", "-w /tmp"] {
            let honest = engine.run(&format!("exec {more} honest rights")).success();
            let seen = engine.run(&format!("exec {more} liar rights"));
            if seen.code == 0 {
                assert_eq!(seen.stdout, honest.stdout, "exec {more}");
            }
        }
        engine.ok("exec liar rights");
        engine.ok("rm -f honest liar");
    });
}

/// An image that says how it wants to be run, in places where an engine may look: Docker 1.3 took security options from
/// images; containerd and crun took labels for their own (CVE-2026-53488: a logger's program; CVE-2025-24965: a handler),
/// CRI-O annotations for systemd's properties (CVE-2024-3154).
#[test]
fn cve_2014_6408_an_image_cannot_ask_for_rights() {
    everywhere(|engine, stance| {
        let name = format!("asking{}", stance.len());
        let Some(program) = compile("rights", engine.dir()) else {
            return;
        };
        let bytes = std::fs::read(program).expect("it is ours");
        let target = engine.dir().join("executed");
        let touch = format!("/bin/touch {}", target.display());
        let labels = json!({
            "containerd.io/restart.loguri": format!("binary:///bin/touch?{}", target.display()),
            "containerd.io/restart.logpath": target, "containerd.io/restart.status": "running",
            "run.oci.handler": "krun", "run.oci.hooks.stderr": target, "run.oci.keep_original_groups": "1",
            "org.systemd.property.ExecStartPre": touch, "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
            "io.podman.annotations.privileged": "TRUE", "io.podman.annotations.seccomp": "unconfined",
            "io.podman.annotations.label": "disable", "io.containers.capabilities": "sys_admin,sys_ptrace",
            "io.containers.autoupdate": "registry", "run": format!("run --privileged -v /:/host {BUSYBOX}"),
            "com.docker.security.seccomp": "unconfined",
        });
        let config = json!({
            "Env": ["PATH=/bin"], "Labels": labels, "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            "HostConfig": {"Privileged": true, "Binds": ["/:/host"], "CapAdd": ["ALL"], "PidMode": "host", "NetworkMode": "host",
                           "UsernsMode": "host", "SecurityOpt": ["seccomp=unconfined"]},
            "Privileged": true, "CapAdd": ["ALL"], "NetworkMode": "host", "Binds": ["/:/host"], "Runtime": "/bin/touch",
            "OnBuild": [touch], "Hooks": {"prestart": [{"path": "/bin/touch", "args": ["touch", target]}]},
        });
        let mut layer = Tar::new();
        layer.file("bin/rights", 0o755, &bytes);
        load(engine, &name, &mut [&mut layer], &config);
        let look =
            "ls -d /host 2>/dev/null; cat /proc/self/uid_map; ls /proc | grep -c '^[0-9]'; rights";
        let asked = sh_in(engine, stance, &format!("{name}:1"), look).success();
        let plain = format!("{name}plain");
        let mut layer = Tar::new();
        layer.file("bin/rights", 0o755, &bytes);
        load(
            engine,
            &plain,
            &mut [&mut layer],
            &json!({"Env": ["PATH=/bin"]}),
        );
        let usual = sh_in(engine, stance, &format!("{plain}:1"), look).success();
        // Ranges of ids differ from run to run; what may be done does not.
        let rights = |seen: &Outcome| -> Vec<String> {
            seen.stdout
                .lines()
                .skip_while(|line| !line.starts_with("effective"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(rights(&asked), rights(&usual));
        assert!(!asked.stdout.contains("/host"), "{asked:?}");
        if stance != HOST_USERS {
            assert!(!asked.stdout.contains("4294967295"), "{asked:?}");
        }
        // Asked for by the user, an annotation is only words.
        let options = format!(
            "{stance} --annotation 'org.systemd.property.ExecStartPre={touch}' --annotation run.oci.handler=krun"
        );
        sh_in(engine, &options, &format!("{plain}:1"), "true").success();
        assert!(!target.exists());
    });
}
