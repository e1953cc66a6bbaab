//! One machine: QEMU's command line, and its lines as they come.
//!
//! Invariants: no disk in the cache is ever written (each is a snapshot whose changes go when the machine does); the
//! machine ends with this process, however that ends; a machine that says nothing is ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::protocol::{Event, PORT};
use super::userland::{DISKS, Userland};
use super::{Problem, Result};

/// How long a machine may say nothing; longer than one of its jobs may.
const SILENCE: Duration = Duration::from_secs(300);

/// What a machine is made of.
pub(super) struct Parts<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) userland: &'a Userland,
    pub(super) initramfs: &'a Path,
    pub(super) payload: &'a Path,
    /// A folder for what this run leaves, which its owner removes.
    pub(super) dir: &'a Path,
}

/// A machine that runs.
pub(super) struct Machine {
    qemu: Child,
    console: PathBuf,
    started: Instant,
}

impl Machine {
    /// Turns one on.
    pub(super) fn start(parts: &Parts<'_>) -> Result<Machine> {
        let console = parts.dir.join("console");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                "3072",
            ])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            // Not `stdio`: at its end of input QEMU would tell the machine that nobody listens.
            .args(["-chardev", "file,id=results,path=/dev/stdout"])
            .args([
                "-device",
                &format!("virtserialport,chardev=results,name={PORT}"),
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(parts.kernel.image())
            .arg("-initrd")
            .arg(parts.initramfs)
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off",
            ]);
        disk(
            &mut command,
            "root",
            &parts.userland.disk("root"),
            Changes::Forgotten,
        );
        disk(
            &mut command,
            "modules",
            &parts.kernel.modules(),
            Changes::Refused,
        );
        disk(&mut command, "payload", parts.payload, Changes::Refused);
        for name in DISKS {
            disk(
                &mut command,
                name,
                &parts.userland.disk(name),
                Changes::Forgotten,
            );
        }
        command
            .env("TMPDIR", parts.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let started = Instant::now();
        let qemu = command
            .spawn()
            .problem(|| "cannot run qemu-system-x86_64".to_owned())?;
        Ok(Machine {
            qemu,
            console,
            started,
        })
    }

    /// How long it has been on.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Gives every line to `line` until it has said that it is done and turned itself off.
    pub(super) fn follow(&mut self, mut line: impl FnMut(Duration, &str)) -> Result<()> {
        let from = self
            .qemu
            .stdout
            .take()
            .expect("it is piped, and followed once");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for bytes in BufReader::new(from).split(b'\n') {
                let Ok(bytes) = bytes else { return };
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        let mut done = false;
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok(text) => {
                    done |= Event::from_line(&text) == Some(Event::Done);
                    line(self.age(), &text);
                }
                Err(RecvTimeoutError::Disconnected) if done => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!(
                        "the machine went off; its console ends with\n{}",
                        self.last_words()
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = SILENCE.as_secs();
                    return Err(format!(
                        "nothing from the machine for {seconds} s; its console ends with\n{}",
                        self.last_words()
                    ));
                }
            }
        }
    }

    /// The end of what the kernel and the first process said.
    fn last_words(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be off already; either way it is ours, and it is waited for.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

#[derive(PartialEq, Eq)]
enum Changes {
    Forgotten,
    Refused,
}

/// Adds a disk that the machine knows by `name`.
fn disk(command: &mut Command, name: &str, file: &Path, changes: Changes) {
    let mode = match changes {
        Changes::Forgotten => "snapshot=on",
        Changes::Refused => "readonly=on",
    };
    // QEMU's way to write a comma in a value is two.
    let file = file.display().to_string().replace(',', ",,");
    command
        .arg("-drive")
        .arg(format!(
            "if=none,id={name},format=raw,{mode},cache=unsafe,file={file}"
        ))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}
