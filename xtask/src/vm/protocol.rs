//! What the two sides say to each other: the plan that goes in with the payload, and the lines that come out.
//!
//! Everything that a job prints is passed on as it is; what the machine itself has to say begins with [`MARK`].

use serde_json::{Value, json};

/// Begins the machine's own lines.
pub(super) const MARK: &str = "@vm ";

/// The name of the port that the lines come out of.
pub(super) const PORT: &str = "coracle.results";

/// Who runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Root, in a cgroup as a login has.
    Root,
    /// An ordinary user with ranges of ids, in a cgroup that is delegated to him.
    User,
}

impl Who {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Who::Root => "root",
            Who::User => "user",
        }
    }
}

/// One program to be run inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// What it is called in the results: `PACKAGE/PROGRAM`.
    pub(super) name: String,
    /// Who runs it.
    pub(super) who: Who,
    /// The program in the payload, and its arguments.
    pub(super) command: Vec<String>,
}

impl Job {
    fn to_json(&self) -> Value {
        json!({"name": self.name, "who": self.who.as_str(), "command": self.command})
    }

    fn from_json(value: &Value) -> Option<Job> {
        let who = match value["who"].as_str()? {
            "root" => Who::Root,
            "user" => Who::User,
            _ => return None,
        };
        let words = value["command"].as_array()?.iter();
        Some(Job {
            name: value["name"].as_str()?.to_owned(),
            who,
            command: words
                .map(|word| Some(word.as_str()?.to_owned()))
                .collect::<Option<_>>()?,
        })
    }
}

/// All jobs, in order.
pub(super) fn write_plan(jobs: &[Job]) -> String {
    Value::Array(jobs.iter().map(Job::to_json).collect()).to_string()
}

/// Reads what [`write_plan`] wrote.
pub(super) fn read_plan(text: &str) -> Option<Vec<Job>> {
    let plan: Value = serde_json::from_str(text).ok()?;
    plan.as_array()?.iter().map(Job::from_json).collect()
}

/// A line of the machine's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is up, and the first job is next.
    Ready,
    /// A job begins, by its number in the plan.
    Begin(usize),
    /// A test of this job proved less than its name says: `NAME: REASON`.
    Skip(usize, String),
    /// A job has ended: `None` is well, else what was wrong.
    End(usize, Option<String>),
    /// Something of ours was left behind by the jobs so far.
    Leak(String),
    /// What the machine itself could not do.
    Trouble(String),
    /// All jobs have ended.
    Done,
}

impl Event {
    /// The line, without its end.
    pub(super) fn to_line(&self) -> String {
        let text = match self {
            Event::Ready => "ready".to_owned(),
            Event::Begin(job) => format!("begin {job}"),
            Event::Skip(job, skip) => format!("skip {job} {skip}"),
            Event::End(job, None) => format!("end {job}"),
            Event::End(job, Some(problem)) => format!("end {job} {problem}"),
            Event::Leak(leak) => format!("leak {leak}"),
            Event::Trouble(trouble) => format!("trouble {trouble}"),
            Event::Done => "done".to_owned(),
        };
        format!("{MARK}{}", text.replace('\n', " "))
    }

    /// Reads a line; `None` is a job's own.
    pub(super) fn from_line(line: &str) -> Option<Event> {
        let line = line.strip_prefix(MARK)?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let job = || number.parse().ok();
        Some(match word {
            "ready" => Event::Ready,
            "begin" => Event::Begin(job()?),
            "skip" => Event::Skip(job()?, text.to_owned()),
            "end" => Event::End(job()?, (!text.is_empty()).then(|| text.to_owned())),
            "leak" => Event::Leak(rest.to_owned()),
            "trouble" => Event::Trouble(rest.to_owned()),
            "done" => Event::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_plans_survive_the_way() {
        for event in [
            Event::Ready,
            Event::Begin(3),
            Event::Skip(2, "limits::a: needs root".to_owned()),
            Event::End(0, None),
            Event::End(12, Some("signal 9".to_owned())),
            Event::Leak("mount /var/tmp/x".to_owned()),
            Event::Trouble("no disk".to_owned()),
            Event::Done,
        ] {
            assert_eq!(Event::from_line(&event.to_line()), Some(event));
        }
        assert_eq!(Event::from_line("test a ... ok"), None);
        let jobs = vec![Job {
            name: "tests/limits".to_owned(),
            who: Who::User,
            command: vec!["limits".to_owned(), "--test-threads=2".to_owned()],
        }];
        assert_eq!(read_plan(&write_plan(&jobs)), Some(jobs));
    }
}
