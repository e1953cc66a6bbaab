//! Loading the image set (`images/make`) from a `docker save` archive, each time into a fresh file system, because a
//! large deletion before makes the next creation of files many times slower on some of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coracle_tests::Engine;

use super::fresh::Fresh;
use super::measure::{median_ms, time};
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
    let mut mine = Vec::new();
    let mut theirs: Vec<Duration> = Vec::new();
    let copy = peers.as_deref().map(|peers| {
        let (outside, inside) = peers.folders();
        fs::write(outside.join("set.tar"), &bytes).expect("the archive can be copied");
        inside.join("set.tar")
    });
    drop(bytes);
    for _ in 0..ROUNDS {
        let fresh = Fresh::make(Path::new("/var/tmp"));
        let engine = Engine::with_root(&fresh.point().join("s"));
        let args = ["load".as_ref(), "-i".as_ref(), archive.as_os_str()];
        mine.push(time(&mut engine.command(args).into_command()));
        drop((engine, fresh));
        let (Some(peers), Some(copy)) = (peers.as_deref(), &copy) else {
            continue;
        };
        theirs.push(podman_load(peers, copy));
    }
    let mine = median_ms(&mine);
    figures
        .behind
        .insert("coracle load of the image set, ms".into(), mine);
    if let Some(peers) = peers {
        let podman = peers.median(&theirs);
        figures
            .behind
            .insert("podman load of the image set, ms".into(), podman);
        figures
            .contracts
            .insert("load-podman".into(), mine / podman);
    }
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
