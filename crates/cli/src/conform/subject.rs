//! An engine under test, driven by its command line; and everything that a test makes with it.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::image;
use crate::error::Error;

/// The program inside, and the word that starts it.
pub(super) const PROGRAM: &str = "/coracle";
/// The verb of the program inside.
pub(crate) const INSIDE: &str = "conform-inside";

/// What a command of the engine gave.
#[derive(Debug)]
pub(super) struct Answer {
    /// Exit code; `None` when it was killed.
    pub(super) code: Option<i32>,
    /// Standard output.
    pub(super) stdout: String,
    /// Standard error.
    pub(super) stderr: String,
}

impl Answer {
    /// Standard output if it succeeded, else a sentence.
    pub(super) fn output(self) -> Result<String, String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => Err(format!(
                "exit code {}: {}",
                code.map_or("none".into(), |code| code.to_string()),
                self.stderr.trim()
            )),
        }
    }
}

/// An engine under test.
pub(crate) struct Subject {
    name: String,
    command: Vec<String>,
    /// The image that was asked for; without it one is made.
    asked_image: Option<String>,
    image: OnceCell<String>,
    containers: RefCell<Vec<String>>,
    images: RefCell<Vec<String>>,
    scratch: PathBuf,
    count: Cell<u32>,
}

impl Subject {
    /// An engine by its command line; checks that it answers. `scratch` is a new directory of this run's.
    pub(crate) fn new(
        name: &str,
        command: Vec<String>,
        image: Option<String>,
        scratch: PathBuf,
    ) -> Result<Self, Error> {
        let subject = Self {
            name: name.to_owned(),
            command,
            asked_image: image,
            image: OnceCell::new(),
            containers: RefCell::default(),
            images: RefCell::default(),
            scratch,
            count: Cell::new(0),
        };
        match subject.call(&["version"]).and_then(Answer::output) {
            Ok(_) => Ok(subject),
            Err(problem) => Err(Error::usage(
                format!("the engine {name} does not answer: {problem}"),
                "start it, or leave it out",
            )),
        }
    }

    /// Its name in the report.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A directory of this run's on the host.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Runs a command of the engine, for at most a minute.
    pub(super) fn call(&self, arguments: &[&str]) -> Result<Answer, String> {
        self.call_for(arguments, Duration::from_secs(60))
    }

    /// Runs a command of the engine for at most `limit`.
    pub(super) fn call_for(&self, arguments: &[&str], limit: Duration) -> Result<Answer, String> {
        self.feed(arguments, &[], limit)
    }

    fn feed(&self, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Answer, String> {
        let failed =
            |problem: std::io::Error| format!("cannot run {}: {problem}", self.command.join(" "));
        let (program, first) = self.command.split_first().ok_or("no engine")?;
        let mut child = Command::new(program)
            .args(first)
            .args(arguments)
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let out = scope.spawn(|| read(stdout));
            let err = scope.spawn(|| read(stderr));
            scope.spawn(move || {
                // An engine that does not want the rest says so by its exit code.
                stdin.map(|mut stdin| stdin.write_all(input))
            });
            let code = wait(&mut child, limit).map_err(failed)?;
            let text = |read: std::thread::ScopedJoinHandle<'_, Vec<u8>>| {
                String::from_utf8_lossy(&read.join().unwrap_or_default()).into_owned()
            };
            let (stdout, mut stderr) = (text(out), text(err));
            if code.is_none() {
                stderr.push_str(&format!(
                    "(ended by {} after {} s)",
                    self.name,
                    limit.as_secs()
                ));
            }
            Ok(Answer {
                code,
                stdout,
                stderr,
            })
        })
    }

    /// The image that tests run; made when first needed.
    pub(super) fn image(&self) -> Result<String, String> {
        if let Some(image) = &self.asked_image {
            return Ok(image.clone());
        }
        if self.image.get().is_none() {
            let made = self.make_image(&image::plain()?)?;
            // Single-threaded: nobody set it meanwhile.
            let _ = self.image.set(made);
        }
        self.image.get().cloned().ok_or_else(|| "no image".into())
    }

    /// Imports an archive of files as an image.
    pub(super) fn make_image(&self, archive: &[u8]) -> Result<String, String> {
        let name = self.fresh("image");
        self.images.borrow_mut().push(name.clone());
        let answer = self.feed(&["import", "-", &name], archive, Duration::from_secs(120))?;
        answer
            .output()
            .map(|_| name)
            .map_err(|problem| format!("the image cannot be imported: {problem}"))
    }

    /// Remembers an image that a test makes otherwise.
    pub(super) fn owns_image(&self, name: &str) {
        self.images.borrow_mut().push(name.to_owned());
    }

    /// A name that nothing else has.
    pub(super) fn fresh(&self, what: &str) -> String {
        self.count.set(self.count.get() + 1);
        format!(
            "coracle-conform-{what}-{}-{}",
            std::process::id(),
            self.count.get()
        )
    }

    /// The name of a container to be; it is removed at the end.
    pub(super) fn container(&self) -> String {
        let name = self.fresh("container");
        self.containers.borrow_mut().push(name.clone());
        name
    }

    /// Runs the program inside a new container in the foreground, with `options` of the engine.
    pub(super) fn run(&self, options: &[&str], program: &[&str]) -> Result<Answer, String> {
        self.run_image(&self.image()?, options, program, Duration::from_secs(60))
    }

    /// The same, of a given image, for at most `limit`.
    pub(super) fn run_image(
        &self,
        image: &str,
        options: &[&str],
        program: &[&str],
        limit: Duration,
    ) -> Result<Answer, String> {
        let name = self.container();
        let line = self.line(&["run", "--name", &name], image, options, program);
        let answer = self.call_for(&line.iter().map(String::as_str).collect::<Vec<_>>(), limit);
        self.remove(&name);
        answer
    }

    /// Starts the program inside a new container in the background; gives its name.
    pub(super) fn start(&self, options: &[&str], program: &[&str]) -> Result<String, String> {
        let name = self.container();
        let line = self.line(
            &["run", "-d", "--name", &name],
            &self.image()?,
            options,
            program,
        );
        self.call(&line.iter().map(String::as_str).collect::<Vec<_>>())?
            .output()?;
        Ok(name)
    }

    fn line(&self, first: &[&str], image: &str, options: &[&str], program: &[&str]) -> Vec<String> {
        let mut line: Vec<String> = first.iter().map(|&word| word.to_owned()).collect();
        line.extend(["--network".to_owned(), "none".to_owned()]);
        line.extend(options.iter().map(|&word| word.to_owned()));
        if self.asked_image.is_some() {
            // Somebody else's image: the program comes in by a mount.
            let exe = std::env::current_exe()
                .map(|exe| exe.display().to_string())
                .unwrap_or_default();
            line.extend(["-v".to_owned(), format!("{exe}:{PROGRAM}:ro")]);
        }
        line.push(image.to_owned());
        line.extend([PROGRAM, INSIDE].map(str::to_owned));
        line.extend(program.iter().map(|&word| word.to_owned()));
        line
    }

    /// One field of `inspect`.
    pub(super) fn inspect(&self, container: &str, template: &str) -> Result<String, String> {
        Ok(self
            .call(&["inspect", "--format", template, container])?
            .output()?
            .trim()
            .to_owned())
    }

    /// Removes a container, whatever it does.
    pub(super) fn remove(&self, name: &str) {
        // One that was never made is not there; what stays is removed when the subject is dropped, or reported there.
        let _ = self.call(&["rm", "-f", "-v", name]);
        self.containers.borrow_mut().retain(|other| other != name);
    }

    /// Directories of the host where the engine keeps its things.
    pub(super) fn storage(&self) -> Vec<PathBuf> {
        let templates = [
            "{{.DockerRootDir}}",
            "{{.Store.GraphRoot}}",
            "{{.RunRoot}}",
            "{{.Store.RunRoot}}",
        ];
        let found = templates.iter().filter_map(|template| {
            self.call(&["info", "--format", template])
                .ok()?
                .output()
                .ok()
        });
        found
            .map(|text| PathBuf::from(text.trim()))
            .filter(|path| path.is_absolute())
            .collect()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for name in std::mem::take(self.containers.get_mut()) {
            // As in `remove`.
            let _ = self.call(&["rm", "-f", "-v", &name]);
        }
        for name in std::mem::take(self.images.get_mut()) {
            // An image that was never made is not there.
            let _ = self.call(&["rmi", "-f", &name]);
        }
    }
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is what there is.
    let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    bytes
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<i32>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
