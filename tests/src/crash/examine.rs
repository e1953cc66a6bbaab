//! The questions that are asked after something went wrong.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::scenario::{Repeats, Scenario};
use crate::trace::Traced;
use crate::{Engine, Outcome, words};

/// No question may wait for something that will never come.
const LIMIT: Duration = Duration::from_secs(20);

/// One container as `ps` lists it.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
}

/// Asks an engine; what is wrong is added to `findings`.
pub(super) struct Examiner<'a> {
    pub(super) engine: &'a Engine,
    pub(super) findings: &'a mut Vec<String>,
    pub(super) what: String,
    /// Whether the host went down.
    pub(super) rebooted: bool,
    /// Whether the container's own process was killed, which is then how it ended.
    pub(super) killed: bool,
}

impl Examiner<'_> {
    pub(super) fn find(&mut self, sentence: impl AsRef<str>) {
        self.findings
            .push(format!("{}: {}", self.what, sentence.as_ref()));
    }

    /// Runs a line whose outcome is judged by the caller. One that hangs is a finding, and `None`.
    pub(super) fn ask(&mut self, args: &[&str]) -> Option<Outcome> {
        let command = self.engine.command(args).limit(LIMIT);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| command.run()));
        if outcome.is_err() {
            self.find(format!("`{}` hangs, or leaks its output", args.join(" ")));
        }
        outcome.ok()
    }

    /// As [`Examiner::ask`]; must succeed.
    pub(super) fn must(&mut self, args: &[&str]) -> Option<Outcome> {
        let outcome = self.ask(args)?;
        if outcome.code == 0 {
            return Some(outcome);
        }
        self.find(format!("{outcome:?}"));
        None
    }

    /// As [`Examiner::ask`]; succeeds or is refused in the engine's own form.
    pub(super) fn may(&mut self, args: &[&str], code: i32) {
        if let Some(outcome) = self.ask(args)
            && outcome.code != code
            && !is_error(&outcome)
        {
            self.find(format!("neither success nor an error: {outcome:?}"));
        }
    }

    pub(super) fn list(&mut self) -> Vec<Listed> {
        let args = ["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"];
        let Some(outcome) = self.must(&args) else {
            return Vec::new();
        };
        outcome
            .text()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| Listed {
                id: id.into(),
                name: name.into(),
            })
            .collect()
    }

    /// Nothing lost, nothing half there, the command can be repeated.
    pub(super) fn whole(&mut self, scenario: &Scenario, verb: &str) {
        let listed = self.list();
        for group in scenario.keeps {
            let there = listed
                .iter()
                .filter(|one| group.contains(&&*one.name))
                .count();
            if there != 1 {
                self.find(format!("{there} containers are called one of {group:?}"));
            }
        }
        for container in &listed {
            self.container(scenario, container);
        }
        for kind in ["images", "volume ls", "system df"] {
            self.must(&words(kind).iter().map(String::as_str).collect::<Vec<_>>());
        }
        let again = words(verb);
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        let must = match scenario.repeats {
            Repeats::Always => true,
            Repeats::WhileUp => !self.rebooted,
            Repeats::Maybe => false,
        };
        if must {
            self.must(&again);
        } else {
            self.may(&again, scenario.code);
        }
        for container in self.list() {
            self.limited(&container.id);
        }
    }

    fn container(&mut self, scenario: &Scenario, container: &Listed) {
        let format = "{{.Id}} {{.State.Status}} {{.State.ExitCode}}|{{.State.Error}}";
        let Some(by_name) = self.must(&["inspect", "--format", format, &container.name]) else {
            return;
        };
        let text = by_name.text().to_owned();
        let (facts, error) = text.split_once('|').unwrap_or((&text, ""));
        let facts: Vec<&str> = facts.split(' ').collect();
        let [id, status, code] = facts[..] else {
            self.find(format!("inspect says {text:?}"));
            return;
        };
        if id != container.id {
            self.find(format!(
                "the name {} leads to {id}, not {}",
                container.name, container.id
            ));
        }
        match status {
            "running" => self.usable(id),
            "exited" if code == "137" && error.is_empty() && !scenario.kills && !self.killed => {
                self.find("nobody killed the container and its record does not say what happened");
            }
            "created" | "exited" | "paused" => {}
            other => self.find(format!("{} is {other}", container.name)),
        }
    }

    /// A program can be run in it, or soon it does not run any more: what was killed takes a moment to die.
    fn usable(&mut self, id: &str) {
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            let Some(outcome) = self.ask(&["exec", id, "true"]) else {
                return;
            };
            let now = self.must(&["inspect", "--format", "{{.State.Status}}", id]);
            if outcome.code == 0 || now.is_none_or(|now| now.text() != "running") {
                return;
            }
            if Instant::now() > end {
                return self.find(format!("it runs, but {outcome:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it may use is what the kernel lets it use.
    fn limited(&mut self, id: &str) {
        let format = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}";
        // One that removes itself may be gone by now.
        let Some(decided) = self.ask(&["inspect", "--format", format, id]) else {
            return;
        };
        if decided.code != 0 {
            return;
        }
        let text = decided.text().to_owned();
        let (memory, pids) = text.split_once(' ').unwrap_or((&text, ""));
        let files = [
            ("memory", "memory.limit_in_bytes", "memory.max", memory),
            ("pids", "pids.max", "pids.max", pids),
        ];
        for (hierarchy, v1, v2, decided) in files {
            // 0 or less: none was asked for.
            if decided.parse::<i64>().unwrap_or(0) <= 0 {
                continue;
            }
            let top = Path::new("/sys/fs/cgroup");
            let old = top.join(hierarchy).join("coracle").join(id).join(v1);
            let new = top.join("coracle").join(id).join(v2);
            // The container may end at any time, and its cgroup with it.
            let real = fs::read_to_string(old).or_else(|_| fs::read_to_string(new));
            if let Ok(real) = real
                && real.trim() != decided
            {
                self.find(format!(
                    "the limit {v1} is {} and not {decided}",
                    real.trim()
                ));
            }
        }
    }

    /// Removes all that the scenario may have made.
    pub(super) fn clear(&mut self) {
        let listed = self.list();
        if !listed.is_empty() {
            let mut args = vec!["rm", "-f", "-v"];
            args.extend(listed.iter().map(|one| one.id.as_str()));
            self.must(&args);
        }
        for container in self.list() {
            self.find(format!("{} is still listed after rm", container.name));
        }
        if let Some(volumes) = self.must(&["volume", "ls", "-q"])
            && !volumes.text().is_empty()
        {
            // A container that removes itself takes its volumes with it, perhaps just now.
            let mut args = vec!["volume", "rm", "-f"];
            args.extend(volumes.text().split_whitespace());
            self.must(&args);
        }
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
        let Some(images) = self.must(&format) else {
            return;
        };
        for (name, id) in images
            .text()
            .lines()
            .filter_map(|line| line.split_once(' '))
        {
            match name {
                crate::BUSYBOX => {}
                "<none>:<none>" => {
                    self.must(&["rmi", id]);
                }
                name => {
                    self.must(&["rmi", name]);
                }
            }
        }
        self.must(&["system", "prune", "-f"]);
    }
}

/// Whether a command failed as a command fails: an error line, and an exit code that the engine uses.
pub fn is_error(outcome: &Outcome) -> bool {
    let form = std::panic::catch_unwind(|| outcome.clone().error_form(false)).is_ok();
    form && matches!(outcome.code, 1 | 125..=127)
}

/// What is wrong with how a command ended whose calls were made to fail.
pub(super) fn verdict(traced: &Traced, scenario: &Scenario, interrupted: bool) -> Option<String> {
    let outcome = &traced.outcome;
    match outcome.code {
        Traced::HUNG => Some(format!("hangs: {outcome:?}")),
        code if code == scenario.code => None,
        _ if interrupted => Some(format!("an interruption is seen: {outcome:?}")),
        _ if is_error(outcome) => None,
        _ => Some(format!("neither success nor an error: {outcome:?}")),
    }
}
