//! Making and removing, also while others do.

use std::path::Path;
use std::time::Duration;

use coracle_cgroup::{CgroupPath, DeviceRules, Error, Layout, Limits};

use crate::{COVERED, MIB, Scratch, joined, manager};

#[test]
fn nested_names_share_a_directory_that_goes_with_the_last() {
    let manager = manager();
    if matches!(manager.layout(), Layout::Unavailable { .. }) {
        eprintln!("SKIP: nested_names_share_a_directory_that_goes_with_the_last: no cgroups");
        return;
    }
    let make = |name: &str| {
        manager
            .create(
                &CgroupPath::new(name).unwrap(),
                &Limits::default(),
                &DeviceRules::unrestricted(),
            )
            .unwrap()
    };
    let (a, b) = (make("pod/a"), make("pod/b"));
    let pod = a.directories().next().unwrap().parent().unwrap().to_owned();
    assert!(
        manager
            .list()
            .unwrap()
            .iter()
            .any(|path| path.to_string() == "pod")
    );
    a.remove().unwrap();
    assert!(pod.exists());
    b.remove().unwrap();
    assert!(!pod.exists());
    let error = manager
        .open_existing(&CgroupPath::new("pod/a").unwrap())
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    manager.prune().unwrap();
}

#[test]
fn creating_twice_is_refused_and_leaves_the_first_alone() {
    let test = "creating_twice_is_refused_and_leaves_the_first_alone";
    let Some(mut scratch) = Scratch::new(test, &[], &Limits::default()) else {
        return;
    };
    joined(scratch.spawn("exec sleep 600"));
    let error = scratch
        .manager
        .create(
            scratch.cgroup.path(),
            &Limits::default(),
            &DeviceRules::unrestricted(),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error:?}");
    assert_eq!(scratch.cgroup.processes().unwrap().len(), 1);
    assert!(scratch.cgroup.directories().all(Path::exists));
}

#[test]
fn a_refused_creation_leaves_nothing() {
    let manager = manager();
    let path = CgroupPath::new("a_refused_creation_leaves_nothing").unwrap();
    // Refused by the kernel (no such CPU), or before it is asked (no cpuset here).
    let limits = Limits {
        memory: Some(64 * MIB),
        cpuset_cpus: Some("4000".into()),
        ..Limits::default()
    };
    assert!(
        manager
            .create(&path, &limits, &DeviceRules::unrestricted())
            .is_err()
    );
    assert!(!manager.list().unwrap().contains(&path));
    manager.prune().unwrap();
}

#[test]
fn creation_survives_others_that_prune_at_the_same_moment() {
    let manager = manager();
    if matches!(manager.layout(), Layout::Unavailable { .. }) {
        eprintln!("SKIP: creation_survives_others_that_prune_at_the_same_moment: no cgroups");
        return;
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let manager = &manager;
            scope.spawn(move || {
                for round in 0..25 {
                    let path = CgroupPath::new(&format!("racing-{thread}/{round}")).unwrap();
                    let cgroup = manager
                        .create(&path, &Limits::default(), &DeviceRules::unrestricted())
                        .unwrap();
                    cgroup.remove().unwrap();
                    manager.prune().unwrap();
                }
            });
        }
    });
}

#[test]
fn without_cgroups_a_limit_is_refused_and_no_limit_is_none() {
    let manager = manager();
    let Layout::Unavailable { remedy, .. } = manager.layout() else {
        assert_ne!(
            std::env::var(COVERED).as_deref(),
            Ok("none"),
            "all hierarchies are covered"
        );
        eprintln!(
            "SKIP: without_cgroups_a_limit_is_refused_and_no_limit_is_none: cgroups are usable here"
        );
        return;
    };
    let path = CgroupPath::new("x").unwrap();
    let limits = Limits {
        memory: Some(64 * MIB),
        ..Limits::default()
    };
    let error = manager
        .create(&path, &limits, &DeviceRules::unrestricted())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { wanted, .. } if wanted == "memory"),
        "{error:?}"
    );
    assert_eq!(error.hint(), remedy);
    let cgroup = manager
        .create(&path, &Limits::default(), &DeviceRules::unrestricted())
        .unwrap();
    assert!(cgroup.is_none() && !cgroup.is_frozen().unwrap());
    let entry = cgroup.entry().unwrap();
    assert!(entry.clone_into.is_none() && entry.tasks.is_empty());
    assert_eq!(cgroup.usage().unwrap(), coracle_cgroup::Usage::default());
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    assert!(cgroup.oom_event().unwrap().is_none());
    cgroup.update(&Limits::default()).unwrap();
    for refused in [
        cgroup.update(&limits),
        cgroup.freeze(),
        cgroup.thaw(),
        cgroup.kill(Duration::ZERO),
        cgroup.processes().map(drop),
        cgroup.set_devices(&DeviceRules::docker_default()),
    ] {
        assert!(
            matches!(refused, Err(Error::Unavailable { .. })),
            "{refused:?}"
        );
    }
    cgroup.remove().unwrap();
    assert!(manager.open_existing(&path).unwrap().is_none());
}
