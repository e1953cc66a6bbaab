//! An engine of a test's own, and the proof that it left nothing.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::image::{BUSYBOX, busybox_archive};
use crate::invocation::{Invocation, Outcome, Session, binary};
use crate::{host, patience, user, words};

/// State, run-time state and images of one test, in a folder of its own under /var/tmp (the disk: an overlay's upper
/// layer cannot be on every tmpfs, and paths stay short enough for a socket's address).
///
/// Dropping it removes every container and then fails the test if a mount, process or file is left.
pub struct Engine {
    dir: TempDir,
    root: PathBuf,
    run_root: PathBuf,
    program: Vec<OsString>,
}

impl Engine {
    /// An engine without images, run by whoever runs the tests.
    pub fn empty() -> Engine {
        Engine::in_dir(temp_dir(), vec![binary().into()])
    }

    /// An engine that has `busybox:latest`.
    pub fn new() -> Engine {
        let engine = Engine::empty();
        engine.load_busybox();
        engine
    }

    /// An engine with busybox whose every command an ordinary user runs who has ranges in /etc/subuid. `None`, after a
    /// visible skip, where the host cannot have one.
    pub fn rootless() -> Option<Engine> {
        Engine::of_user(true)
    }

    /// As [`Engine::rootless`], for a user without any subordinate ids.
    pub fn rootless_single_id() -> Option<Engine> {
        Engine::of_user(false)
    }

    fn of_user(ranges: bool) -> Option<Engine> {
        let dir = temp_dir();
        let program = user::prepare(dir.path(), &binary(), ranges)?;
        let engine = Engine::in_dir(dir, program);
        engine.load_busybox();
        Some(engine)
    }

    /// An engine whose state is in `root`, which the caller made (a small file system, say) and takes away.
    pub fn with_root(root: &Path) -> Engine {
        let mut engine = Engine::empty();
        engine.root = root.to_owned();
        engine
    }

    /// An engine with busybox whose lasting state is in `disk` and its run-time state in `run`, which the caller takes away.
    pub fn with_state(disk: &Path, run: &Path) -> Engine {
        let mut engine = Engine::empty();
        engine.root = disk.join("s");
        engine.run_root = run.join("r");
        engine.load_busybox();
        engine
    }

    fn in_dir(dir: TempDir, program: Vec<OsString>) -> Engine {
        let (root, run_root) = (dir.path().join("s"), dir.path().join("r"));
        Engine {
            dir,
            root,
            run_root,
            program,
        }
    }

    fn load_busybox(&self) {
        let file = busybox_archive(self.dir.path());
        self.ok(&format!("load -i {}", file.path.display()));
        fs::remove_file(file.path).expect("the archive is ours");
        self.ok(&format!("image inspect {BUSYBOX}"));
    }

    /// The test's folder, for its own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a folder in the test's own one.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        path
    }

    /// Makes a file in the test's own folder.
    pub fn make_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Where the engine's state is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the engine's run-time state is.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// A command with these arguments after the global options.
    pub fn command<I, S>(&self, args: I) -> Invocation
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut all: Vec<OsString> = vec![
            "--root".into(),
            self.root.clone().into(),
            "--run-root".into(),
            self.run_root.clone().into(),
        ];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Invocation::new(&self.program, &all)
    }

    /// The command that a shell would make of `line`.
    pub fn line(&self, line: &str) -> Invocation {
        self.command(words(line))
    }

    /// Runs a line, whatever comes of it.
    pub fn run(&self, line: &str) -> Outcome {
        self.line(line).run()
    }

    /// Runs a line that must succeed; gives standard output without blanks at its ends.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).success().text().to_owned()
    }

    /// Runs a line that the engine must refuse, with exit code 1 or (`run`, `create`, `exec`) 125 and an error in the
    /// engine's form.
    #[track_caller]
    pub fn refuses(&self, line: &str) -> Outcome {
        let outcome = self.run(line);
        assert!(matches!(outcome.code, 1 | 125), "{outcome:?}");
        outcome.error_form(false)
    }

    /// Starts a line and lets it run.
    pub fn spawn(&self, line: &str) -> Session {
        self.line(line).spawn()
    }

    /// Runs `script` with the busybox shell in a fresh container that is removed after; `options` are `run`'s.
    pub fn sh(&self, options: &str, script: &str) -> Outcome {
        let mut args = words(&format!("run --rm {options} {BUSYBOX} sh -c"));
        args.push(script.to_owned());
        self.command(args).run()
    }

    /// As [`Engine::sh`], must succeed; gives standard output without blanks at its ends.
    #[track_caller]
    pub fn sh_ok(&self, options: &str, script: &str) -> String {
        self.sh(options, script).success().text().to_owned()
    }

    /// Starts a detached container that runs `script`; gives its full id.
    #[track_caller]
    pub fn detached(&self, options: &str, script: &str) -> String {
        let mut args = words(&format!("run -d {options} {BUSYBOX} sh -c"));
        args.push(script.to_owned());
        let id = self.command(args).run().success().text().to_owned();
        assert!(
            id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()),
            "not an id: {id:?}"
        );
        id
    }

    /// One field of `inspect` by a Go-like template.
    #[track_caller]
    pub fn field(&self, container: &str, template: &str) -> String {
        self.command(["inspect", "--format", template, container])
            .run()
            .success()
            .text()
            .to_owned()
    }

    /// Waits until the container's `State.Status` is `status`.
    #[track_caller]
    pub fn until_status(&self, container: &str, status: &str) {
        let end = Instant::now() + patience(Duration::from_secs(20));
        loop {
            let now = self.field(container, "{{.State.Status}}");
            if now == status {
                return;
            }
            assert!(Instant::now() < end, "{container} is {now}, not {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the container's log contains `text`.
    #[track_caller]
    pub fn until_logged(&self, container: &str, text: &str) {
        let end = Instant::now() + patience(Duration::from_secs(20));
        loop {
            let outcome = self.run(&format!("logs {container}"));
            if outcome.stdout.contains(text) || outcome.stderr.contains(text) {
                return;
            }
            assert!(
                Instant::now() < end,
                "{text:?} is not in the log: {outcome:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The host's pid of the container's init process.
    #[track_caller]
    pub fn pid(&self, container: &str) -> i32 {
        self.field(container, "{{.State.Pid}}")
            .parse()
            .expect("a pid")
    }

    /// The processes that serve this engine: those of our binary whose command line names its folders.
    pub fn processes(&self) -> Vec<u32> {
        host::processes_naming(&self.run_root)
    }

    /// Removes all containers, as Drop does, but says what went wrong.
    pub fn remove_all(&self) {
        let ids = self.ok("ps -aq --no-trunc");
        if !ids.is_empty() {
            let all = ids.split_whitespace().collect::<Vec<_>>();
            let args = ["rm", "-f", "-v"].into_iter().chain(all);
            self.command(args)
                .limit(Duration::from_secs(120))
                .run()
                .success();
        }
    }

    /// Unmounts the layers that the engine keeps mounted between containers, as a restart of the host does.
    pub fn unmount_layers(&self) {
        host::unmount(&self.run_root.join("layers"));
    }

    /// What of this engine is still on the host although it has no containers any more.
    fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = host::mounts_under(self.dir.path())
            .into_iter()
            .filter(|mount| *mount != self.root)
            .map(|mount| format!("mount {}", mount.display()))
            .collect();
        for pid in self.processes() {
            left.push(format!("process {pid}: {}", host::command_line(pid)));
        }
        left
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine::new()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed already; a second failure here would hide the first. Clean up as far as it goes.
            let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let ids = self.run("ps -aq --no-trunc").stdout;
                if !ids.trim().is_empty() {
                    let args = ["rm", "-f", "-v"].into_iter().chain(ids.split_whitespace());
                    self.command(args)
                        .limit(Duration::from_secs(120))
                        .run()
                        .success();
                }
            }));
            if cleaned.is_err() {
                eprintln!("cleaning up {} failed as well", self.dir.path().display());
            }
            self.unmount_layers();
            return;
        }
        if self.root.exists() {
            self.remove_all();
        }
        self.unmount_layers();
        // Monitors end a moment after their container.
        let end = Instant::now() + patience(Duration::from_secs(10));
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind by this test: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn temp_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix("coracle-test-")
        .rand_bytes(5)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .expect("a folder can be made in /var/tmp")
}
