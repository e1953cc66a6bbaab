//! The place where scenarios are run: an engine with what they need, which is back at rest after each.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::examine::{Examiner, verdict};
use super::plan::What;
use super::{Extent, Scenario, Stroke, scenario};
use crate::trace::{Deed, Point, Traced, trace};
use crate::world::{World, cgroups};
use crate::{Engine, busybox_archive, eventually, host};

/// For what the kernel does by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// See the module.
pub struct Ground {
    engine: Engine,
    /// What may be there.
    world: World,
    /// How long the containers of this one sleep: nobody else's do as long.
    mark: String,
    ids: BTreeSet<String>,
    /// What was found, one sentence each.
    pub findings: Vec<String>,
    /// Strokes that struck.
    pub struck: usize,
    /// Strokes whose point did not come this time.
    pub missed: Vec<String>,
    /// Whether the host goes down with the next command.
    reboots: bool,
    /// The scenarios that are run here, for another ground.
    scenarios: Vec<&'static Scenario>,
}

/// What `DIR` holds.
const FILES: [&str; 4] = ["files", "outside", "busybox.tar", "export.tar"];

impl Ground {
    /// One for these scenarios.
    pub fn new(scenarios: &[&'static Scenario]) -> Ground {
        let engine = Engine::new();
        engine.make_dir("outside");
        let folder = engine.make_dir("files");
        for name in ["a", "b"] {
            fs::write(folder.join(name), name).expect("a file can be written");
        }
        let archive = busybox_archive(engine.dir());
        fs::rename(archive.path, engine.dir().join("busybox.tar")).expect("it is ours");
        let export = engine.dir().join("export.tar");
        engine.ok("create --name c0 busybox true");
        engine.ok(&format!("export -o {} c0", export.display()));
        engine.ok("rm c0");
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos());
        let mut ground = Ground {
            mark: format!("{}.{}{nanos}", 1000 + nanos % 1000, std::process::id()),
            world: World::at_rest(&engine),
            engine,
            ids: BTreeSet::new(),
            findings: Vec::new(),
            struck: 0,
            missed: Vec::new(),
            reboots: false,
            scenarios: scenarios.to_vec(),
        };
        // What the engine keeps for the next time is made by the first.
        for scenario in scenarios {
            ground.prepare(scenario);
            ground.engine.run(&ground.line(scenario.verb));
            ground.examiner("warming up").clear();
        }
        ground.tidy();
        ground.engine.ok("run --rm busybox true");
        assert_eq!(ground.findings, Vec::<String>::new());
        ground.world = World::at_rest(&ground.engine);
        ground
    }

    /// The engine, for questions of the test's own.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn examiner(&mut self, what: &str) -> Examiner<'_> {
        Examiner {
            engine: &self.engine,
            findings: &mut self.findings,
            what: what.to_owned(),
            rebooted: false,
            killed: what.contains(": KillCaller") && what.contains(" child/"),
        }
    }

    fn line(&self, line: &str) -> String {
        line.replace("DIR", &self.engine.dir().display().to_string())
            .replace("MARK", &self.mark)
    }

    /// Files in the test's folder that a scenario made, and busybox, should it be gone.
    fn tidy(&self) {
        for entry in fs::read_dir(self.engine.dir())
            .expect("it is ours")
            .flatten()
        {
            let path: PathBuf = entry.path();
            let kept = path == self.engine.root()
                || path == self.engine.run_root()
                || FILES.iter().any(|name| entry.file_name() == *name);
            match entry.file_type() {
                _ if kept => {}
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(path).expect("it is ours"),
                _ => fs::remove_file(path).expect("it is ours"),
            }
        }
        if self.engine.run("image inspect busybox").code != 0 {
            self.engine.ok(&self.line("load -i DIR/busybox.tar"));
        }
    }

    fn prepare(&self, scenario: &Scenario) {
        for line in scenario.before {
            self.engine.ok(&self.line(line));
        }
    }

    /// Runs each of these scenarios once for every stroke that `plan` makes of its points, and concludes; `strokes` of
    /// them where not all are wanted.
    pub fn strike_all(names: &[&str], strokes: usize, plan: fn(&[Point], Extent) -> Vec<Stroke>) {
        let scenarios: Vec<_> = names.iter().map(|name| scenario(name)).collect();
        let mut ground = Ground::new(&scenarios);
        for one in scenarios {
            let points = ground.points(one);
            for stroke in plan(&points, Extent::wanted(strokes)) {
                ground.strike(one, &stroke);
            }
        }
        ground.conclude();
    }

    /// Runs it unharmed and gives its points.
    pub fn points(&mut self, scenario: &'static Scenario) -> Vec<Point> {
        let before = self.findings.len();
        let traced = self.trial(scenario, scenario.name, |_, _| Deed::Pass);
        assert_eq!(traced.outcome.code, scenario.code, "{:?}", traced.outcome);
        assert_eq!(self.findings.len(), before, "{:#?}", self.findings);
        traced.points
    }

    /// Runs it once with one thing done to it, and examines what is there then.
    pub fn strike(&mut self, scenario: &'static Scenario, stroke: &Stroke) {
        let what = format!("{}: {stroke}", scenario.name);
        let kill = stroke.what.kill();
        self.reboots = stroke.what == What::Reboot;
        let mut done = false;
        let traced = self.trial(scenario, &what, |point, moment| {
            if done || point.to_string() != stroke.point {
                return Deed::Pass;
            }
            match (stroke.what, kill) {
                // Of threads, the same number may be another call this time, which cannot fail so.
                (What::Fail(number), _) if point.errors.contains(&number) => {
                    done = true;
                    Deed::Fail(Errno::from_raw_os_error(number))
                }
                (_, Some((whom, when))) if when == moment => {
                    done = true;
                    Deed::Kill(whom)
                }
                _ => Deed::Pass,
            }
        });
        if traced.struck == 0 {
            self.missed.push(what);
        } else {
            self.struck += 1;
        }
        // A long run says now and then that it is not stuck, past the test runner's capture.
        if (self.struck + self.missed.len()).is_multiple_of(200) {
            let line = format!("… {} strokes, now at {}\n", self.struck, scenario.name);
            rustix::io::write(rustix::stdio::stdout(), line.as_bytes()).expect("stdout is open");
        }
    }

    /// Runs it once under the tracer, and examines what is there then.
    pub fn trial(
        &mut self,
        scenario: &'static Scenario,
        what: &str,
        strike: impl FnMut(&Point, crate::trace::Moment) -> Deed + Send,
    ) -> Traced {
        self.prepare(scenario);
        let before = self.findings.len();
        let verb = self.line(scenario.verb);
        let traced = trace(&self.engine, self.engine.line(&verb), strike);
        self.ids.extend(traced.ids.iter().cloned());
        let rebooted = std::mem::take(&mut self.reboots) && traced.struck > 0;
        if rebooted {
            self.reboot();
        }
        let failing = what.contains(" fails with ");
        let interrupted = what.ends_with("INTR");
        let wrong = if failing {
            verdict(&traced, scenario, interrupted)
        } else {
            (traced.outcome.code == Traced::HUNG).then(|| format!("hangs: {:?}", traced.outcome))
        };
        let mut examiner = self.examiner(what);
        examiner.rebooted = rebooted;
        if let Some(wrong) = wrong {
            examiner.find(wrong);
        }
        examiner.whole(scenario, &verb);
        examiner.clear();
        self.at_rest(what);
        if rebooted {
            // Layers are kept mounted again, as the points were recorded.
            self.engine.ok("run --rm busybox true");
        }
        if self.findings.len() > before {
            self.replace();
        }
        traced
    }

    /// What a reboot does: every process gone, and the cgroups, and what is in the run-time folder.
    fn reboot(&mut self) {
        self.kill_all();
        self.remove_cgroups();
        self.engine.unmount_layers();
        fs::remove_dir_all(self.engine.run_root()).expect("it is ours");
    }

    /// Removes the cgroups of every container that is or was, whose processes are killed.
    fn remove_cgroups(&self) {
        let made = fs::read_dir(self.engine.root().join("containers")).expect("it is ours");
        let names = made
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ids: BTreeSet<String> = self.ids.iter().cloned().chain(names).collect();
        for id in ids {
            for cgroup in cgroups(&id) {
                let gone = || fs::remove_dir(&cgroup).is_ok() || !cgroup.exists();
                eventually("a cgroup goes with its processes", LIMIT, gone);
            }
        }
    }

    /// Kills what runs for this engine: each names its folder or its mark.
    fn kill_all(&self) {
        let all = || {
            let mut all = host::processes_naming(self.mark.as_ref());
            all.extend(self.engine.processes());
            all
        };
        let gone = || {
            for pid in all() {
                let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid is not 0");
                // It may be gone.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            all().is_empty()
        };
        eventually("killed processes are gone", LIMIT, gone);
    }

    /// Nothing may be left.
    pub fn at_rest(&mut self, what: &str) {
        let left = self.world.leftovers(&self.engine, &self.ids, &self.mark);
        for leftover in &left {
            self.findings
                .push(format!("{what}: left behind: {leftover}"));
        }
        if !left.is_empty() {
            // The host stays clean, whatever was found.
            self.kill_all();
            self.remove_cgroups();
        }
        let outside = self.engine.dir().join("outside");
        for entry in fs::read_dir(&outside).expect("it is ours").flatten() {
            let path = entry.path().display().to_string();
            self.findings
                .push(format!("{what}: escaped to the host: {path}"));
        }
        self.ids.clear();
        self.tidy();
    }

    /// After a finding: what was damaged must not be found again.
    fn replace(&mut self) {
        self.kill_all();
        let fresh = Ground::new(&self.scenarios);
        let Ground {
            engine,
            world,
            mark,
            ..
        } = fresh;
        let old = std::mem::replace(&mut self.engine, engine);
        // It says again what is in the findings already.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(old)));
        (self.world, self.mark) = (world, mark);
    }

    /// Fails the test with what was found. Points that did not come are no failure as long as they are few: two processes
    /// run at once, and not always in the same order.
    pub fn conclude(self) {
        let Ground {
            findings,
            struck,
            missed,
            ..
        } = &self;
        eprintln!("{struck} struck, {} missed {missed:#?}", missed.len());
        assert!(
            findings.is_empty(),
            "{} findings in {struck} strokes:\n{}",
            findings.len(),
            findings.join("\n")
        );
        assert!(
            missed.len() * 4 <= struck + 4,
            "points are not where they were: {missed:#?}"
        );
    }
}
