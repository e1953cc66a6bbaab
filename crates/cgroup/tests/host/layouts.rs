//! The same on other kinds of host, made of this one's mounts.

use std::fs;
use std::process::Command;

use coracle_cgroup::{CgroupPath, Controller, DeviceRules, HugepageLimit, Limits, Manager};

use crate::{COVERED, MIB, Scratch};

/// In a container with a cgroup namespace of its own, the container's first cgroup is full of its own processes, and so
/// cannot hand down a controller; they are moved to a leaf.
#[test]
fn inside_a_container_processes_make_room() {
    let test = "inside_a_container_processes_make_room";
    let limits = Limits {
        hugepages: vec![HugepageLimit {
            page_size: "2MB".into(),
            limit: 4 * MIB,
        }],
        ..Limits::default()
    };
    if std::env::var(COVERED).as_deref() == Ok("container") {
        let scratch =
            Scratch::new(test, &[Controller::HugeTlb], &limits).expect("a cgroup in a cgroup");
        let own = || fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(
            own().lines().any(|line| line == "0::/coracle-self"),
            "{}",
            own()
        );
        // The next command starts from within the leaf.
        let again = Manager::open("coracle-test-again").unwrap();
        let path = CgroupPath::new("again").unwrap();
        let cgroup = again
            .create(&path, &limits, &DeviceRules::unrestricted())
            .unwrap();
        let (first, second) = (
            scratch.cgroup.directories().next(),
            cgroup.directories().next(),
        );
        assert_eq!(
            first.unwrap().ancestors().nth(2).unwrap(),
            second.unwrap().ancestors().nth(2).unwrap()
        );
        cgroup.remove().unwrap();
        again.prune().unwrap();
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: {test}: not root");
        return;
    }
    let Some(mut scratch) = Scratch::new(test, &[Controller::HugeTlb], &limits) else {
        return;
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount_point = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4));
    let Some(mount_point) = mount_point else {
        eprintln!("SKIP: {test}: no v2 hierarchy");
        return;
    };
    let legacy: String = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| format!("mount -t tmpfs tmpfs {mount} && "))
        .collect();
    scratch.spawn(&format!(
        "export {COVERED}=container; exec unshare --cgroup --mount --propagation private sh -c \
         '{legacy} mount -t tmpfs tmpfs {mount_point} && mount -t cgroup2 none {mount_point} && exec \"$0\" --exact layouts::{test} 2>&1' {}",
        std::env::current_exe().unwrap().display()
    ));
    let output = scratch.children.pop().unwrap().wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// Runs this file again with some mounts covered by an empty tmpfs, in a mount namespace that ends with it.
fn run_covered(test: &str, covered: &str, wanted: impl Fn(&str) -> bool) {
    if std::env::var_os(COVERED).is_some() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cover: Vec<&str> = mounts
        .lines()
        .filter(|line| {
            line.split_once(" - ")
                .is_some_and(|(_, after)| wanted(after.split(' ').next().unwrap()))
        })
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    if cover.is_empty() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: {test}: nothing to cover, or not root");
        return;
    }
    let script: String = cover
        .iter()
        .map(|mount| format!("mount -t tmpfs tmpfs '{mount}' && "))
        .collect();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &format!("{script} exec \"$0\" --nocapture"),
        ])
        .arg(std::env::current_exe().unwrap())
        .env(COVERED, covered)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // Without any hierarchy all others skip, which is the point.
    for line in told
        .lines()
        .filter(|line| line.starts_with("SKIP") && covered != "none")
    {
        eprintln!("{line} [with {covered} covered]");
    }
    assert!(
        output.status.success(),
        "{}\n{told}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn all_of_it_holds_on_v1_alone() {
    run_covered("all_of_it_holds_on_v1_alone", "v2", |kind| {
        kind == "cgroup2"
    });
}

#[test]
fn all_of_it_holds_on_v2_alone() {
    run_covered("all_of_it_holds_on_v2_alone", "v1", |kind| kind == "cgroup");
}

#[test]
fn all_of_it_is_refused_without_any() {
    run_covered("all_of_it_is_refused_without_any", "none", |kind| {
        kind.starts_with("cgroup")
    });
}
