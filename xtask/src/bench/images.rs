//! Loading the image set (`images/make`) from a `docker save` archive with either driver, each time into a fresh file
//! system, because a large deletion before makes the next creation of files many times slower on some of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fresh::Fresh;
use super::measure::{median_ms, peak_mib, time};
use super::peers::{Peer, Peers};
use super::{Figures, Scale};

const ROUNDS: usize = 3;

/// `load` of the set, ours against Podman's.
pub(super) fn load(figures: &mut Figures, scale: &Scale, peers: Option<&mut Peers>) {
    if scale.rounds < super::FULL.rounds {
        return;
    }
    let set =
        std::env::var_os("CORACLE_IMAGES").unwrap_or_else(|| "/var/tmp/coracle-images".into());
    let archive = PathBuf::from(set).join("docker-full.tar");
    if !archive.exists() {
        let reason = format!(
            "image set is not at {} (images/make makes it)",
            archive.display()
        );
        return figures.skip("load", &reason);
    }
    if !rustix::process::geteuid().is_root() {
        return figures.skip("load", "image set: a fresh file system needs root");
    }
    // Both read it from the page cache.
    let bytes = fs::read(&archive).expect("the archive can be read");
    let (mut mine, mut directories) = (Vec::new(), Vec::new());
    let mut theirs: Vec<Duration> = Vec::new();
    let mut peak: f64 = 0.0;
    let copy = peers.as_deref().map(|peers| {
        let (outside, inside) = peers.folders();
        fs::write(outside.join("set.tar"), &bytes).expect("the archive can be copied");
        inside.join("set.tar")
    });
    drop(bytes);
    for _ in 0..ROUNDS {
        mine.push(ours(&archive, false, time));
        directories.push(ours(&archive, true, time));
        peak = ours(&archive, false, peak_mib).max(peak);
        let (Some(peers), Some(copy)) = (peers.as_deref(), &copy) else {
            continue;
        };
        theirs.push(podman_load(peers, copy));
    }
    let (mine, directories) = (median_ms(&mine), median_ms(&directories));
    let behind = &mut figures.behind;
    behind.insert("coracle load of the image set, ms".into(), mine);
    behind.insert("coracle load to directories, ms".into(), directories);
    figures.contracts.insert("load-peak-mib".into(), peak);
    if let Some(peers) = peers {
        let podman = peers.median(&theirs);
        figures
            .behind
            .insert("podman load of the image set, ms".into(), podman);
        let contracts = &mut figures.contracts;
        contracts.insert("load-podman".into(), mine / podman);
        contracts.insert("load-directory-podman".into(), directories / podman);
    }
}

/// Our `load` of `archive` into a fresh file system, measured by `measure`; to directories, if asked for, although this
/// host may have the other driver.
fn ours<T>(archive: &Path, directories: bool, measure: fn(&mut Command) -> T) -> T {
    let fresh = Fresh::make(Path::new("/var/tmp"));
    let engine = fresh.engine();
    if directories {
        // What the first `load` found out about this kernel is kept in the store (docs/format/store.md); that it found the
        // opposite is what makes a store as on a kernel that cannot mount layer files.
        let path = engine.root().join("store/erofs-probe.json");
        let text = fs::read_to_string(&path).expect("the store has looked at the kernel");
        let mut found: serde_json::Value = serde_json::from_str(&text).expect("a document");
        found["mountable"] = false.into();
        found["reason"] = "the benchmark wants directories".into();
        fs::write(&path, found.to_string()).expect("the store is the benchmark's");
    }
    let args = ["load".as_ref(), "-i".as_ref(), archive.as_os_str()];
    let measured = measure(&mut engine.command(args).into_command());
    let layers = engine.root().join("store/layers");
    let made = fs::read_dir(&layers)
        .expect("the store has layers")
        .flatten();
    let of_kind = made.filter(|layer| layer.path().is_dir() == directories);
    assert!(of_kind.count() >= 3, "the set was not kept as it was to be");
    measured
}

/// The file system is mounted in the peers' namespace only, by the script of its own shell, and goes with it.
fn podman_load(peers: &Peers, archive: &Path) -> Duration {
    let (outside, inside) = peers.folders();
    let image = outside.join("podman.img");
    let file = fs::File::create(&image).expect("a file can be made");
    file.set_len(4 << 30).expect("a sparse file");
    time(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image));
    let point = inside.join("podman-fresh");
    let within = |program: &str| {
        let mut command = Command::new("nsenter");
        command
            .arg("--mount=/run/coracle-peers/mnt")
            .arg("--")
            .arg(program);
        command
    };
    time(within("mkdir").arg("-p").arg(&point));
    time(
        within("mount")
            .args(["-o", "loop"])
            .arg(inside.join("podman.img"))
            .arg(&point),
    );
    let mut command = peers.command(Peer::Podman);
    // The last of two options of the same name counts.
    command
        .arg("--root")
        .arg(point.join("s"))
        .arg("load")
        .arg("-i")
        .arg(archive);
    let took = time(&mut command);
    // Podman keeps its overlay store mounted on itself.
    within("umount")
        .arg("-R")
        .arg(&point)
        .status()
        .expect("umount can be started");
    took
}
