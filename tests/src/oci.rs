//! A bundle, and an OCI runtime to run it with: ours, or with `RUNTIME=crun` (any path or name) another one, so that the
//! conformance tests are themselves checked against what others do.
//!
//! A runtime that the host does not have is taken from the peers' root (`../shared/peers`); the bundle is then made in that
//! root, where it has another name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Invocation, Outcome, binary, busybox_rootfs, host};

/// One bundle with a runtime root of its own.
///
/// Dropping it deletes every container and then fails the test if a mount or a cgroup is left.
pub struct Oci {
    /// For its drop.
    _dir: TempDir,
    outside: PathBuf,
    inside: PathBuf,
    program: Vec<OsString>,
    /// The runtime is the one under test.
    pub ours: bool,
    mark: String,
}

/// What `create` did. Its output is the container's, so that it is no [`Outcome`].
#[derive(Debug)]
pub struct Created {
    /// Exit code.
    pub code: i32,
    /// What is in the container's output so far.
    pub said: String,
}

impl Created {
    /// It succeeded.
    #[track_caller]
    pub fn success(self) -> Created {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It was refused.
    #[track_caller]
    pub fn refused(self) -> Created {
        assert_ne!(self.code, 0, "{self:?}");
        assert!(!self.said.trim().is_empty(), "refused without a word");
        self
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Oci {
    /// A bundle with busybox. `None`, after a visible skip, where containers of root cannot be made.
    pub fn new() -> Option<Oci> {
        if !host::root() {
            crate::skip("an OCI runtime with the host's ids needs root");
            return None;
        }
        let asked = std::env::var_os("RUNTIME").filter(|name| !name.is_empty());
        let (program, parent, root) = match &asked {
            None => (
                vec![binary().into(), "oci".into()],
                PathBuf::from("/var/tmp"),
                None,
            ),
            Some(name) if Path::new(name).is_absolute() => {
                (vec![name.clone()], PathBuf::from("/var/tmp"), None)
            }
            Some(name) => {
                let peers = peers()?;
                (
                    vec![peer().into(), name.clone()],
                    peers.join("opt"),
                    Some(peers),
                )
            }
        };
        let dir = tempfile::Builder::new()
            .prefix("oci-")
            .rand_bytes(6)
            .tempdir_in(&parent)
            .expect("a folder can be made");
        let outside = dir.path().to_owned();
        let inside = match root {
            Some(root) => Path::new("/").join(outside.strip_prefix(root).expect("below the root")),
            None => outside.clone(),
        };
        fs::create_dir(outside.join("rootfs")).expect("a folder");
        busybox_rootfs(&outside.join("rootfs"));
        let mark = format!(
            "t{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        Some(Oci {
            _dir: dir,
            outside,
            inside,
            program,
            ours: asked.is_none(),
            mark,
        })
    }

    /// The bundle's folder as this test sees it.
    pub fn dir(&self) -> &Path {
        &self.outside
    }

    /// The bundle's folder as the runtime sees it.
    pub fn inside(&self) -> &Path {
        &self.inside
    }

    /// An id that no other test has.
    pub fn id(&self, name: &str) -> String {
        format!("{}.{name}", self.mark)
    }

    /// A document that runs `script` with busybox's shell.
    pub fn document(&self, script: &str) -> Value {
        let capabilities = [
            "CAP_KILL",
            "CAP_CHOWN",
            "CAP_SYS_CHROOT",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_MKNOD",
        ];
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "hostname": "boat",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["sh", "-c", script],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                  "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs",
                  "options": ["nosuid", "noexec", "nodev", "ro"] },
            ],
            "linux": {
                "cgroupsPath": format!("/coracle-test/{}", self.mark),
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" },
                ],
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
            },
        })
    }

    /// Writes config.json.
    pub fn write(&self, document: &Value) {
        self.write_text(&document.to_string());
    }

    /// Writes config.json as it is.
    pub fn write_text(&self, text: &str) {
        fs::write(self.outside.join("config.json"), text).expect("config.json");
    }

    /// A command of the runtime.
    pub fn command<I, S>(&self, args: I) -> Invocation
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut all: Vec<OsString> = vec!["--root".into(), self.inside.join("state").into()];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Invocation::new(&self.program, &all).limit(Duration::from_secs(30))
    }

    /// Runs a command whose words have no blanks in them.
    pub fn line(&self, line: &str) -> Outcome {
        self.command(line.split_whitespace()).run()
    }

    /// Runs a container of this document in the foreground.
    pub fn run(&self, document: &Value) -> Outcome {
        self.write(document);
        let bundle = self.inside.clone();
        self.command([
            OsStr::new("run"),
            OsStr::new("--bundle"),
            bundle.as_os_str(),
            OsStr::new(&self.id("run")),
        ])
        .run()
    }

    /// Runs `script` in a container of the base document with a change.
    pub fn run_with(&self, script: &str, change: impl FnOnce(&mut Value)) -> Outcome {
        let mut document = self.document(script);
        change(&mut document);
        self.run(&document)
    }

    /// Creates a container named `name` of the document; its streams lead to the file of that name.
    pub fn create(&self, name: &str, document: &Value) -> Created {
        self.write(document);
        let output = fs::File::create(self.output(name)).expect("a file");
        let id = self.id(name);
        let mut command = self
            .command([
                OsStr::new("create"),
                OsStr::new("--bundle"),
                self.inside.as_os_str(),
                OsStr::new("--pid-file"),
                self.inside.join(format!("{name}.pid")).as_os_str(),
                OsStr::new(&id),
            ])
            .into_command();
        let errors = output.try_clone().expect("a copy");
        let status = command
            .stdin(std::process::Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .expect("the runtime runs");
        Created {
            code: status.code().unwrap_or(255),
            said: self.said(name),
        }
    }

    /// Where the output of a created container is.
    pub fn output(&self, name: &str) -> PathBuf {
        self.outside.join(format!("{name}.out"))
    }

    /// What it wrote.
    pub fn said(&self, name: &str) -> String {
        fs::read_to_string(self.output(name)).unwrap_or_default()
    }

    /// A verb with a container's name.
    pub fn verb(&self, verb: &str, name: &str) -> Outcome {
        let words = verb.split_whitespace().map(str::to_owned);
        self.command(words.chain([self.id(name)])).run()
    }

    /// Its state.
    #[track_caller]
    pub fn state(&self, name: &str) -> Value {
        let outcome = self.verb("state", name).success();
        serde_json::from_str(&outcome.stdout).expect("JSON")
    }

    /// Waits until it has this status.
    #[track_caller]
    pub fn until(&self, name: &str, status: &str) {
        crate::eventually(status, Duration::from_secs(10), || {
            self.state(name)["status"] == status
        });
    }

    fn cgroups_left(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        let mut places: Vec<PathBuf> = hierarchies.map(|entry| entry.path()).collect();
        places.push("/sys/fs/cgroup".into());
        let own = places
            .into_iter()
            .map(|place| place.join("coracle-test").join(&self.mark));
        own.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Oci {
    fn drop(&mut self) {
        let ids = self.command(["list", "-q"]).run().stdout;
        for id in ids.split_whitespace() {
            self.command(["delete", "--force", id]).run();
        }
        let mut left = self.cgroups_left();
        for directory in &left {
            // What another runtime leaves is not this test's failure, and not left on the host.
            if fs::remove_dir(directory).is_err() {
                eprintln!("{} cannot be removed", directory.display());
            }
        }
        left.extend(host::mounts_under(&self.outside));
        for parent in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            // In use by another test, or not there.
            let _ = fs::remove_dir(parent.path().join("coracle-test"));
        }
        let _ = fs::remove_dir("/sys/fs/cgroup/coracle-test");
        if self.ours && !std::thread::panicking() {
            assert!(left.is_empty(), "left behind by this test: {left:#?}");
        }
    }
}

/// The peers' root; `None`, after a visible skip, where it is not set up.
pub fn peers() -> Option<PathBuf> {
    let root = std::env::var_os("PEERS_ROOT").unwrap_or_else(|| "/var/lib/coracle-peers".into());
    let root = PathBuf::from(root);
    if root.join("usr/bin/podman").exists() && peer().exists() {
        return Some(root);
    }
    crate::skip(&format!(
        "no peers in {} (shared/peers/setup makes them)",
        root.display()
    ));
    None
}

/// The script that runs a command in the peers' root.
pub fn peer() -> PathBuf {
    std::env::var_os("CORACLE_PEER").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../shared/peers/peer"
            ))
        },
        PathBuf::from,
    )
}
