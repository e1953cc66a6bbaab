//! How long things take that a person waits for: `run`, `exec`, and a burst of runs.

use std::process::Command;
use std::time::Duration;

use coracle_tests::{BUSYBOX, Engine};

use super::measure::{median_ms, ms, time, time_all};
use super::peers::{Peer, Peers};
use super::{Figures, Scale, fresh};

/// The default isolation, no network beyond loopback, with a memory and a CPU limit: what the contract names.
const RUN: [&str; 8] = [
    "run",
    "--rm",
    "--network",
    "none",
    "--memory",
    "64m",
    "--cpus",
    "1",
];

/// The gap in which a kernel goes to rest: what a tight loop hides (grace periods, timers) shows after it.
const IDLE: Duration = Duration::from_millis(100);

fn ours(engine: &Engine, options: &[&str], command: &[&str]) -> Command {
    engine.command(options.iter().chain(command)).into_command()
}

fn theirs(peers: &Peers, peer: Peer, options: &[&str], command: &[&str]) -> Command {
    let mut line = peers.command(peer);
    line.args(options).args(command);
    line
}

/// `run --rm` back to back and with idle between, against both peers.
pub(super) fn run(figures: &mut Figures, scale: &Scale, peers: Option<&mut Peers>) {
    let (_fresh, engine) = fresh::engine();
    let peers = peers.as_deref();
    let command = [BUSYBOX, "true"];
    time(&mut ours(&engine, &RUN, &command));
    let (mut hot, mut cold) = (Vec::new(), Vec::new());
    let mut others: [(Vec<Duration>, Vec<Duration>); 2] = Default::default();
    for _ in 0..scale.rounds {
        for _ in 0..scale.batch {
            hot.push(time(&mut ours(&engine, &RUN, &command)));
        }
        for _ in 0..scale.batch / 2 {
            std::thread::sleep(IDLE);
            cold.push(time(&mut ours(&engine, &RUN, &command)));
        }
        let Some(peers) = peers else { continue };
        for (peer, (hot, cold)) in Peer::ALL.into_iter().zip(&mut others) {
            let command = [peers.image(), "true"];
            for _ in 0..2 {
                hot.push(time(&mut theirs(peers, peer, &RUN, &command)));
            }
            std::thread::sleep(IDLE);
            cold.push(time(&mut theirs(peers, peer, &RUN, &command)));
        }
    }
    let (hot, cold) = (median_ms(&hot), median_ms(&cold));
    figures.contracts.insert("run-hot-ms".into(), hot);
    figures.contracts.insert("run-idle-ms".into(), cold);
    let Some(peers) = peers else { return };
    for (peer, (their_hot, their_cold)) in Peer::ALL.into_iter().zip(&others) {
        let name = peer.name();
        for (kind, mine, their) in [("hot", hot, their_hot), ("idle", cold, their_cold)] {
            let median = peers.median(their);
            figures
                .behind
                .insert(format!("{name} run {kind}, ms"), median);
            figures
                .contracts
                .insert(format!("run-{kind}-{name}"), mine / median);
        }
    }
}

/// `exec C true` back to back and with idle between, against both peers.
pub(super) fn exec(figures: &mut Figures, scale: &Scale, peers: Option<&mut Peers>) {
    let (_fresh, engine) = fresh::engine();
    let peers = peers.as_deref();
    let start = ["run", "-d", "--network", "none", "--name", "bench-exec"];
    let command = ["exec", "bench-exec", "true"];
    time(&mut ours(&engine, &start, &[BUSYBOX, "sleep", "3600"]));
    if let Some(peers) = peers {
        for peer in Peer::ALL {
            time(&mut theirs(
                peers,
                peer,
                &start,
                &[peers.image(), "sleep", "3600"],
            ));
        }
    }
    let (mut hot, mut cold) = (Vec::new(), Vec::new());
    let mut others: [(Vec<Duration>, Vec<Duration>); 2] = Default::default();
    for _ in 0..scale.rounds {
        for _ in 0..scale.batch {
            hot.push(time(&mut ours(&engine, &command, &[])));
        }
        for _ in 0..scale.batch / 2 {
            std::thread::sleep(IDLE);
            cold.push(time(&mut ours(&engine, &command, &[])));
        }
        let Some(peers) = peers else { continue };
        for (peer, (hot, cold)) in Peer::ALL.into_iter().zip(&mut others) {
            for _ in 0..2 {
                hot.push(time(&mut theirs(peers, peer, &command, &[])));
            }
            std::thread::sleep(IDLE);
            cold.push(time(&mut theirs(peers, peer, &command, &[])));
        }
    }
    let (hot, cold) = (median_ms(&hot), median_ms(&cold));
    figures.contracts.insert("exec-ms".into(), hot);
    figures.contracts.insert("exec-idle-ms".into(), cold);
    let Some(peers) = peers else { return };
    for (peer, (their_hot, their_cold)) in Peer::ALL.into_iter().zip(&others) {
        let name = peer.name();
        for (kind, mine, their) in [("", hot, their_hot), ("idle-", cold, their_cold)] {
            let median = peers.median(their);
            figures
                .behind
                .insert(format!("{name} {kind}exec, ms"), median);
            figures
                .contracts
                .insert(format!("exec-{kind}{name}"), mine / median);
        }
        // Podman's `rm --force` waits ten seconds for a program that ignores SIGTERM; its `kill` does not.
        for verb in [&["kill"][..], &["rm", "--force"]] {
            time(&mut theirs(peers, peer, verb, &["bench-exec"]));
        }
    }
}

/// Many runs started at once, against Docker.
pub(super) fn burst(figures: &mut Figures, scale: &Scale, peers: Option<&mut Peers>) {
    let (_fresh, engine) = fresh::engine();
    let command = [BUSYBOX, "true"];
    time(&mut ours(&engine, &RUN, &command));
    let all = || {
        (0..scale.burst)
            .map(|_| ours(&engine, &RUN, &command))
            .collect()
    };
    let mine = median_ms(&[time_all(all()), time_all(all()), time_all(all())]);
    figures
        .behind
        .insert(format!("coracle {} at once, ms", scale.burst), mine);
    let Some(peers) = peers else { return };
    let command = [peers.image(), "true"];
    let all = (0..scale.burst)
        .map(|_| theirs(peers, Peer::Docker, &RUN, &command))
        .collect();
    let docker = ms(time_all(all));
    figures
        .behind
        .insert(format!("docker {} at once, ms", scale.burst), docker);
    figures
        .contracts
        .insert("burst-docker".into(), mine / docker);
}
