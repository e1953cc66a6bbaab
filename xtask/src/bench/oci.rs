//! The OCI runtime beside crun and runc: one bundle of a busybox `true`, in the peers' root, so that all three start from the same.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coracle_tests::{binary, busybox_rootfs};
use serde_json::json;

use super::measure::{peak_mib, time};
use super::peers::{Peers, enter};
use super::{Figures, Scale};

/// Namespaces and mounts as a caller asks for them, without a cgroup mount, which crun does not make on a hybrid host.
fn bundle(folder: &Path) {
    let root = folder.join("rootfs");
    std::fs::create_dir_all(&root).expect("a folder can be made");
    busybox_rootfs(&root);
    let document = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    std::fs::write(folder.join("config.json"), document.to_string()).expect("a file");
}

/// `run`, and create, start and delete, against both.
pub(super) fn run(figures: &mut Figures, scale: &Scale, peers: Option<&mut Peers>) {
    let Some(peers) = peers.as_deref() else {
        return figures.skip("oci", "crun and runc are the peers'");
    };
    let (outside, inside) = peers.folders();
    let (outside, inside) = (outside.join("oci"), inside.join("oci"));
    bundle(&outside);
    std::fs::copy(binary(), outside.join("coracle-oci")).expect("our runtime");
    let ours = inside.join("coracle-oci").display().to_string();
    let programs = [ours.as_str(), "crun", "runc"];
    let line = |program: &str, words: &[&str]| -> Command {
        let mut command = enter(program);
        command.arg("--root").arg(inside.join("state")).args(words);
        command
    };
    let bundle = inside.display().to_string();
    let whole = |program: &str| time(&mut line(program, &["run", "--bundle", &bundle, "b"]));
    let life = |program: &str| -> Duration {
        let verbs: [&[&str]; 3] = [
            &["create", "--bundle", &bundle, "b"],
            &["start", "b"],
            &["delete", "--force", "b"],
        ];
        verbs
            .iter()
            .map(|verb| time(&mut line(program, verb)))
            .sum()
    };
    let mut times: [(Vec<Duration>, Vec<Duration>); 3] = Default::default();
    for _ in 0..scale.rounds {
        for _ in 0..scale.batch {
            for (program, (runs, lives)) in programs.iter().zip(&mut times) {
                runs.push(whole(program));
                lives.push(life(program));
            }
        }
    }
    let peaks =
        programs.map(|program| peak_mib(&mut line(program, &["run", "--bundle", &bundle, "b"])));
    // A life is three commands, each of which enters the peers' root.
    let of = |index: usize| {
        let (runs, lives) = &times[index];
        let entering = peers.median(runs) - super::measure::median_ms(runs);
        (
            peers.median(runs),
            super::measure::median_ms(lives) + 3.0 * entering,
        )
    };
    let (run, life) = of(0);
    figures.behind.insert("oci run, ms".into(), run);
    figures
        .behind
        .insert("oci create + start + delete, ms".into(), life);
    figures.behind.insert("oci run, peak MiB".into(), peaks[0]);
    for (index, name) in [(1, "crun"), (2, "runc")] {
        let (their_run, their_life) = of(index);
        figures.behind.insert(format!("{name} run, ms"), their_run);
        figures
            .behind
            .insert(format!("{name} create + start + delete, ms"), their_life);
        figures
            .behind
            .insert(format!("{name} run, peak MiB"), peaks[index]);
        figures
            .contracts
            .insert(format!("oci-run-{name}"), run / their_run);
        figures
            .contracts
            .insert(format!("oci-life-{name}"), life / their_life);
    }
    figures
        .contracts
        .insert("oci-peak-crun".into(), peaks[0] / peaks[1]);
}
