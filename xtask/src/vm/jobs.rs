//! What runs inside: the test programs, the attackers' programs and the binary, as a read-only disk with a plan in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::protocol::{Job, Who, write_plan};
use super::userland::Tools;
use super::{Problem, Result};
use crate::steps;

/// The plan, as the machine sees it.
pub(super) const PLAN: &str = "/payload/plan.json";

/// How many times longer than on a host a test may wait there: an emulated processor is ten to twenty times slower, and
/// most waits are far longer than what they wait for.
pub(super) const PATIENCE: &str = "5";

/// The packages with tests that ask the kernel for something. What else there is computes, and the host's run shows it.
const PACKAGES: [&str; 7] = [
    "coracle-tests",
    "coracle-cgroup",
    "coracle-linux",
    "coracle-runtime",
    "coracle-monitor",
    "coracle-store",
    "coracle-engine",
];

/// What `cargo test` would run, by name.
struct Program {
    /// `PACKAGE/TARGET`, without the project's name.
    name: String,
    path: PathBuf,
}

/// Which tests were asked for: `PROGRAM` of the black-box suite, `PACKAGE/PROGRAM`, or either with `::TEST`. Nothing is
/// everything.
pub(super) struct Selection<'a>(pub(super) &'a [String]);

impl Selection<'_> {
    /// The packages that have to be built for it.
    fn packages(&self) -> Vec<&'static str> {
        let of_word = |word: &str| -> String {
            let program = word.split("::").next().unwrap_or(word);
            let package = program
                .split_once('/')
                .map_or("tests", |(package, _)| package);
            format!("coracle-{package}")
        };
        let is_wanted = |package: &&str| {
            self.0.is_empty() || self.0.iter().any(|word| of_word(word) == *package)
        };
        PACKAGES.into_iter().filter(is_wanted).collect()
    }

    /// The filter to run a program with; `None` leaves it out.
    fn filter(&self, program: &str) -> Option<Vec<&str>> {
        if self.0.is_empty() {
            return Some(Vec::new());
        }
        let mut filters = Vec::new();
        let mut named = false;
        for word in self.0 {
            let (wanted, test) = word
                .split_once("::")
                .map_or((word.as_str(), None), |(wanted, test)| (wanted, Some(test)));
            if wanted == program.strip_prefix("tests/").unwrap_or(program) {
                named = true;
                match test {
                    // All of it, whatever else was asked for.
                    None => return Some(Vec::new()),
                    Some(test) => filters.push(test),
                }
            }
        }
        named.then_some(filters)
    }
}

/// The jobs of one machine, with everything that they need on a disk.
pub(super) struct Payload {
    pub(super) image: PathBuf,
    pub(super) jobs: Vec<Job>,
}

impl Payload {
    /// Builds the tests and makes the disk in `dir`. `coracle` is the binary under test.
    pub(super) fn make(
        dir: &Path,
        coracle: &Path,
        selection: &Selection<'_>,
        users: &[Who],
        tools: &Tools,
    ) -> Result<Payload> {
        let stage = dir.join("payload");
        let programs = stage.join("programs");
        fs::create_dir_all(&programs).problem(|| format!("cannot make {}", programs.display()))?;
        place(coracle, &stage.join("coracle"))?;
        compile_attackers(&programs)?;
        let mut jobs = Vec::new();
        let built = build(&selection.packages())?;
        for who in users {
            for program in &built {
                let Some(filters) = selection.filter(&program.name) else {
                    continue;
                };
                // The name before the dash is the file's, by which skips are known.
                let file = program.name.replace('/', "+");
                let target = program.name.rsplit('/').next().expect("it has a name");
                let file = format!("{target}-{file}");
                if !stage.join(&file).exists() {
                    place(&program.path, &stage.join(&file))?;
                }
                let mut command = vec![format!("/payload/{file}"), "--test-threads=2".to_owned()];
                if !program.name.starts_with("tests/") {
                    // Their skips are among what is captured otherwise.
                    command.push("--nocapture".to_owned());
                }
                command.extend(filters.into_iter().map(str::to_owned));
                jobs.push(Job {
                    name: program.name.clone(),
                    who: *who,
                    command,
                });
            }
            if selection.filter("conform").is_some() {
                jobs.push(Job {
                    name: "conform".to_owned(),
                    who: *who,
                    command: ["/payload/coracle", "conform"].map(str::to_owned).into(),
                });
            }
        }
        if jobs.is_empty() {
            let names: Vec<&str> = built.iter().map(|program| program.name.as_str()).collect();
            return Err(format!(
                "no test program is called {:?}; there are conform {}",
                selection.0,
                names.join(" ")
            ));
        }
        let plan = stage.join("plan.json");
        fs::write(&plan, write_plan(&jobs))
            .problem(|| format!("cannot write {}", plan.display()))?;
        let image = dir.join("payload.erofs");
        tools.erofs(&stage, &image)?;
        fs::remove_dir_all(&stage).problem(|| format!("cannot remove {}", stage.display()))?;
        Ok(Payload { image, jobs })
    }
}

/// A second name where that can be, else a copy.
fn place(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(|_| ()))
        .problem(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The machine has no compiler.
fn compile_attackers(into: &Path) -> Result<()> {
    let sources = crate::workspace().join("tests/programs");
    let entries =
        fs::read_dir(&sources).problem(|| format!("cannot read {}", sources.display()))?;
    for entry in entries {
        let path = entry
            .problem(|| format!("cannot read {}", sources.display()))?
            .path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|extension| extension == "c")
            && coracle_tests::compile(&name, into).is_none()
        {
            return Err(format!("{} cannot be compiled here", path.display()));
        }
    }
    Ok(())
}

/// Builds the packages' test programs and finds out where they are.
fn build(packages: &[&str]) -> Result<Vec<Program>> {
    let mut args = vec![
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    for package in packages {
        args.extend(["--package", package]);
    }
    eprintln!("==> cargo {}", args.join(" "));
    let output = steps::cargo(&args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .problem(|| "cannot run cargo".to_owned())?;
    if !output.status.success() {
        return Err(format!("cargo test --no-run: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut programs: Vec<Program> = text.lines().filter_map(program).collect();
    // The black-box suite first: it says most.
    programs.sort_by_key(|program| (!program.name.starts_with("tests/"), program.name.clone()));
    Ok(programs)
}

/// The test program that a line of cargo's messages announces.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let package = manifest.parent()?.file_name()?.to_str()?;
    let target = match message["target"]["kind"][0].as_str()? {
        "test" => message["target"]["name"].as_str()?,
        _ => "unit",
    };
    // The harness's own tests say nothing of the engine.
    (package != "tests" || target != "unit").then(|| Program {
        name: format!("{package}/{target}"),
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_names_programs_and_tests_in_them() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let some = words("limits exec::late runtime/exec::one");
        let selection = Selection(&some);
        assert_eq!(selection.filter("tests/limits"), Some(Vec::new()));
        assert_eq!(selection.filter("tests/exec"), Some(vec!["late"]));
        assert_eq!(selection.filter("runtime/exec"), Some(vec!["one"]));
        assert_eq!(selection.filter("runtime/limits"), None);
        assert_eq!(selection.packages(), ["coracle-tests", "coracle-runtime"]);
        assert_eq!(Selection(&[]).filter("tests/logs"), Some(Vec::new()));
    }

    #[test]
    fn programs_are_named_by_package_and_target() {
        let message = |kind: &str, package: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","profile":{{"test":true}},"executable":"/t/x-1",
                "manifest_path":"/w/crates/{package}/Cargo.toml","target":{{"kind":["{kind}"],"name":"host"}}}}"#
            )
        };
        let name = |text: &str| program(text).map(|program| program.name);
        assert_eq!(
            name(&message("test", "cgroup")).as_deref(),
            Some("cgroup/host")
        );
        assert_eq!(
            name(&message("lib", "cgroup")).as_deref(),
            Some("cgroup/unit")
        );
        assert_eq!(name(&message("lib", "tests")), None);
        assert_eq!(name("not a message"), None);
    }
}
