//! Every kind of host as a fixture.

use super::*;

/// Directories (and, with a trailing `*`, everything below) by property.
#[derive(Default)]
struct Host {
    manageable: &'static [&'static str],
    delegated: &'static [&'static str],
    roots: &'static [&'static str],
    own: Own,
}

fn matches(list: &[&str], directory: &Path) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => directory.to_str().unwrap().starts_with(prefix),
        None => directory == Path::new(entry),
    })
}

impl Facts for Host {
    fn own(&self) -> Result<&Own> {
        Ok(&self.own)
    }
    fn manageable(&self, directory: &Path) -> bool {
        matches(self.manageable, directory)
    }
    fn delegated(&self, directory: &Path) -> bool {
        matches(self.delegated, directory)
    }
    fn is_hierarchy_root(&self, directory: &Path) -> bool {
        matches(self.roots, directory)
    }
}

const V2: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 22 0:23 / /sys rw,nosuid shared:2 - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

const SYSTEMD_V1: &str = "\
25 22 0:23 / /sys rw shared:2 - sysfs sysfs rw
31 25 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755
33 31 0:28 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,name=systemd
36 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
37 31 0:32 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
38 31 0:33 / /sys/fs/cgroup/net_cls,net_prio rw shared:12 - cgroup cgroup rw,net_cls,net_prio
";

const SYSTEMD_V1_OWN: &str = "\
12:memory:/system.slice/ssh.service
5:cpu,cpuacct:/system.slice
3:net_cls,net_prio:/
1:name=systemd:/system.slice/ssh.service
";

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

const HYBRID_OWN: &str = "\
9:name=systemd:/
4:memory:/jail/fda8
2:cpuacct:/
1:cpu:/
0::/
";

fn decide_on(mountinfo: &str, own: &str, host: Host) -> Decision {
    let host = Host {
        own: Own::parse(own),
        ..host
    };
    decide(&Mounts::parse(mountinfo), &host).unwrap()
}

fn base(decision: &Decision, controller: Controller) -> Option<&Path> {
    decision
        .legacy
        .iter()
        .find(|legacy| legacy.controllers.contains(&controller))
        .map(|legacy| legacy.base.as_path())
}

#[test]
fn root_on_v2_uses_the_hierarchys_root() {
    let host = Host {
        manageable: &["/sys/fs/cgroup*"],
        roots: &["/sys/fs/cgroup"],
        ..Host::default()
    };
    let decision = decide_on(V2, "0::/user.slice/user-0.slice/session-1.scope\n", host);
    assert_eq!(decision.layout, Layout::V2);
    let unified = decision.unified.unwrap();
    assert_eq!(unified.base, Path::new("/sys/fs/cgroup"));
    assert!(
        !unified.may_vacate,
        "the host's own processes are not ours to move"
    );
}

#[test]
fn systemd_v1_has_comounted_controllers() {
    let host = Host {
        manageable: &["/sys/fs/cgroup/*"],
        ..Host::default()
    };
    let decision = decide_on(SYSTEMD_V1, SYSTEMD_V1_OWN, host);
    assert_eq!(decision.layout, Layout::V1);
    assert_eq!(
        base(&decision, Controller::Cpu),
        Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
    );
    assert_eq!(
        base(&decision, Controller::CpuAccounting),
        Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
    );
    assert_eq!(
        base(&decision, Controller::Memory),
        Some(Path::new("/sys/fs/cgroup/memory"))
    );
    assert_eq!(decision.legacy.len(), 3);
}

#[test]
fn hybrid_uses_both() {
    let host = Host {
        manageable: &["/sys/fs/cgroup/*"],
        roots: &["/sys/fs/cgroup/unified"],
        ..Host::default()
    };
    let decision = decide_on(HYBRID, HYBRID_OWN, host);
    assert_eq!(decision.layout, Layout::Hybrid);
    assert_eq!(
        decision.unified.as_ref().unwrap().base,
        Path::new("/sys/fs/cgroup/unified")
    );
    assert_eq!(
        base(&decision, Controller::Memory),
        Some(Path::new("/sys/fs/cgroup/memory"))
    );
    assert!(decision.closed.is_empty());
}

#[test]
fn v1_without_permission_is_unavailable_with_a_remedy() {
    let decision = decide_on(SYSTEMD_V1, SYSTEMD_V1_OWN, Host::default());
    let Layout::Unavailable { reason, remedy } = decision.layout else {
        panic!("{:?}", decision.layout)
    };
    assert!(
        reason.contains("v1") && remedy.unwrap().contains("root"),
        "{reason}"
    );
    assert!(
        decision
            .closed
            .iter()
            .any(|(controller, _)| *controller == Controller::Memory)
    );
}

#[test]
fn v1_cgroup_handed_to_a_user_is_used() {
    let host = Host {
        manageable: &["/sys/fs/cgroup/memory/system.slice/ssh.service"],
        ..Host::default()
    };
    let decision = decide_on(SYSTEMD_V1, SYSTEMD_V1_OWN, host);
    assert_eq!(
        base(&decision, Controller::Memory),
        Some(Path::new("/sys/fs/cgroup/memory/system.slice/ssh.service"))
    );
    assert_eq!(base(&decision, Controller::Cpu), None);
}

#[test]
fn private_cgroup_namespace_of_a_container_is_ours_to_arrange() {
    let host = Host {
        manageable: &["/sys/fs/cgroup*"],
        ..Host::default()
    };
    let decision = decide_on(V2, "0::/\n", host);
    let unified = decision.unified.unwrap();
    assert_eq!(unified.base, Path::new("/sys/fs/cgroup"));
    assert!(unified.may_vacate);
}

#[test]
fn container_on_v1_with_only_its_part_mounted() {
    let mountinfo = "\
700 600 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw
701 700 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
702 700 0:30 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
";
    let host = Host {
        manageable: &["/sys/fs/cgroup/memory*"],
        ..Host::default()
    };
    let decision = decide_on(
        mountinfo,
        "4:memory:/docker/abc/inner\n3:pids:/docker/abc\n",
        host,
    );
    assert_eq!(
        base(&decision, Controller::Memory),
        Some(Path::new("/sys/fs/cgroup/memory"))
    );
    assert_eq!(
        decision.closed,
        [(Controller::Pids, PathBuf::from("/sys/fs/cgroup/pids"))]
    );
}

#[test]
fn delegated_scope_of_a_user_is_used() {
    let scope =
        "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope";
    let own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n";
    let host = || Host {
        manageable: &["/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service*"],
        delegated: &[
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope",
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service",
        ],
        roots: &["/sys/fs/cgroup"],
        ..Host::default()
    };
    let unified = decide_on(V2, own, host()).unified.unwrap();
    assert_eq!(
        (unified.base.as_path(), unified.may_vacate),
        (Path::new(scope), true)
    );
    // A second command, after the first moved the shell into the leaf.
    let unified = decide_on(V2, &own.replace("\n", "/coracle-self\n"), host())
        .unified
        .unwrap();
    assert_eq!(unified.base, Path::new(scope));
}

#[test]
fn undelegated_unit_of_a_user_is_refused_with_the_way_out() {
    let host = Host {
        manageable: &["/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service*"],
        delegated: &["/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"],
        roots: &["/sys/fs/cgroup"],
        ..Host::default()
    };
    let own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n";
    let Layout::Unavailable { reason, remedy } = decide_on(V2, own, host).layout else {
        panic!("accepted")
    };
    assert!(reason.contains("term.scope"), "{reason}");
    assert!(
        remedy
            .unwrap()
            .contains("systemd-run --user --scope -p Delegate=yes")
    );
}

#[test]
fn login_session_of_a_user_is_refused_with_the_way_out() {
    let host = Host {
        roots: &["/sys/fs/cgroup"],
        ..Host::default()
    };
    let own = "0::/user.slice/user-1000.slice/session-3.scope\n";
    let Layout::Unavailable { reason, remedy } = decide_on(V2, own, host).layout else {
        panic!("accepted")
    };
    assert!(reason.contains("session-3.scope"), "{reason}");
    assert!(remedy.unwrap().contains("systemd-run"));
}

#[test]
fn cgroup_given_by_hand_is_used_but_not_rearranged() {
    let host = Host {
        manageable: &["/sys/fs/cgroup/jobs/7"],
        roots: &["/sys/fs/cgroup"],
        ..Host::default()
    };
    let unified = decide_on(V2, "0::/jobs/7\n", host).unified.unwrap();
    assert_eq!(
        (unified.base.as_path(), unified.may_vacate),
        (Path::new("/sys/fs/cgroup/jobs/7"), false)
    );
}

#[test]
fn cgroup_outside_of_the_namespace_is_not_mistaken_for_one_inside() {
    let Layout::Unavailable { reason, .. } =
        decide_on(V2, "0::/../other\n", Host::default()).layout
    else {
        panic!("accepted")
    };
    assert!(reason.contains("not visible"), "{reason}");
}

#[test]
fn nothing_mounted_is_said() {
    let Layout::Unavailable { reason, remedy } = decide_on("", "0::/\n", Host::default()).layout
    else {
        panic!("accepted")
    };
    assert!(
        reason.contains("no cgroup hierarchy is mounted")
            && remedy.unwrap().contains("mount -t cgroup2")
    );
}

#[test]
fn hidden_mounts_are_not_used() {
    // Somebody mounted a tmpfs over all of it, and something else over the unified hierarchy alone.
    let over_all = format!("{HYBRID}90 31 0:99 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n");
    assert_eq!(Mounts::parse(&over_all), Mounts::default());
    let over_one = format!("{HYBRID}90 41 0:99 / /sys/fs/cgroup/unified rw - tmpfs tmpfs rw\n");
    assert!(
        Mounts::parse(&over_one)
            .0
            .iter()
            .all(|mount| mount.legacy.is_some())
    );
}

#[test]
fn mount_points_with_spaces_are_read() {
    let line = "1 0 0:1 / /my\\040cgroups rw - cgroup2 none rw\n";
    assert_eq!(
        Mounts::parse(line).0[0].mount_point,
        Path::new("/my cgroups")
    );
    assert_eq!(unescape("a\\134b\\9"), "a\\b\\9");
}

#[test]
fn malformed_lines_are_passed_over() {
    for text in [
        "",
        "x",
        "1 2",
        " - cgroup2",
        "1 0 0:1 / - cgroup2 x rw",
        "::",
        "0:",
        "0::",
    ] {
        Mounts::parse(text);
        Own::parse(text);
    }
}
