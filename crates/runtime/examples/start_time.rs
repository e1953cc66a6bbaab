//! Measures a start: from the request to the reaped end of `true`, in milliseconds.
//!
//! `cargo run --release -p coracle-runtime --example start_time [COUNT [IDLE_MS]]`, as root. `NONET` in the environment
//! leaves the network namespace away, `NOTIME` the time namespace, `NOSECCOMP` the filter.

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::time::{Duration, Instant};

use coracle_runtime::{Creating, Exec, Stdio};
use fixture::{Image, own_ids, start};

fn main() {
    if fixture::skip("start_time") {
        return;
    }
    let mut numbers = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().expect("a number"));
    let count = numbers.next().unwrap_or(200);
    let idle = Duration::from_millis(numbers.next().unwrap_or(0));
    let image = Image::new();
    let mut document = fixture::document(&["true"]);
    if std::env::var_os("NONET").is_some() {
        document["linux"]["namespaces"]
            .as_array_mut()
            .expect("a list")
            .retain(|entry| entry["type"] != "network");
        document["mounts"]
            .as_array_mut()
            .expect("a list")
            .retain(|entry| entry["type"] != "sysfs" && entry["type"] != "cgroup");
    }
    let with_time = |document: &mut serde_json::Value| {
        if std::env::var_os("NOTIME").is_none() {
            document["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(serde_json::json!({ "type": "time" }));
        }
    };
    with_time(&mut document);
    let mut spec = fixture::spec(&document);
    if std::env::var_os("NOSECCOMP").is_none() {
        let capabilities = spec
            .process()
            .as_ref()
            .and_then(|process| process.capabilities().as_ref())
            .and_then(|sets| sets.bounding().clone())
            .unwrap_or_default();
        let context = coracle_runtime::seccomp::Context::host(&capabilities).expect("a context");
        let mut linux = spec.linux().clone().expect("linux");
        linux.set_seccomp(Some(coracle_runtime::seccomp::default_profile(&context)));
        spec.set_linux(Some(linux));
    }
    let mut parts: [Vec<Duration>; 4] = Default::default();
    for _ in 0..count {
        std::thread::sleep(idle);
        let stdio = null();
        let mut root = image.overlay();
        if let coracle_runtime::Root::Overlay { volatile, .. } = &mut root {
            *volatile = true;
        }
        let begun = Instant::now();
        let creating = Creating::begin(start(&spec, root, own_ids(), stdio)).expect("begin");
        let served = begun.elapsed();
        let running = creating.run().expect("run");
        let executed = begun.elapsed();
        running.wait().expect("an end");
        let ended = begun.elapsed();
        for (part, time) in parts
            .iter_mut()
            .zip([served, executed, ended, ended - executed])
        {
            part.push(time);
        }
        // The next volatile overlay needs an unmarked work directory.
        std::fs::remove_dir_all(image.path("work")).expect("work");
        std::fs::create_dir(image.path("work")).expect("work");
    }
    report(&["begin", "exec", "end", "command"], &mut parts);

    // The same for one more process in a container that runs.
    let image = Image::new();
    let mut document = fixture::document(&["sleep", "1000"]);
    with_time(&mut document);
    let sleeper = fixture::Sleeper::new(&image, &document);
    let process = spec.process().as_ref().expect("a process");
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let mut parts: [Vec<Duration>; 2] = Default::default();
    for _ in 0..count {
        std::thread::sleep(idle);
        let begun = Instant::now();
        let running = coracle_runtime::exec(Exec {
            target: sleeper.target(),
            process,
            seccomp,
            cgroup: None,
            stdio: null(),
            preserved: Vec::new(),
            clamp: false,
        })
        .expect("an exec");
        parts[0].push(begun.elapsed());
        running.wait().expect("an end");
        parts[1].push(begun.elapsed());
    }
    report(&["into", "into end"], &mut parts);
}

fn null() -> Stdio {
    let null = || {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null");
        file.expect("null").into()
    };
    Stdio::Pipes {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    }
}

fn report(names: &[&str], parts: &mut [Vec<Duration>]) {
    for (name, part) in names.iter().zip(parts) {
        part.sort();
        let at = |share: usize| part[(part.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        println!(
            "{name:8} p10 {:.2} median {:.2} p90 {:.2} ms",
            at(10),
            at(50),
            at(90)
        );
    }
}
