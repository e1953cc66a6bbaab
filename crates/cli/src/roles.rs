//! What this binary is besides the command: by the name it was executed under (`argv[0]`), the monitor of one container,
//! the helper that writes into a running one, the mapper of an ordinary user's ids, or a container's init; and under a name
//! that ends in `-oci`, an OCI runtime.
//!
//! All but the last are not for a user's hands. They are one binary with the command, so that one file is all there is to install.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use coracle_engine::monitor::{Readiness, WindowSize};
use coracle_engine::{Engine, EngineConfig, MonitorStreams, copy_helper};
use rustix::fs::{FileType, Mode, OFlags};

use crate::{oci, rootless};

/// Plays the role that the name asks for; `None`: it is the command.
pub(crate) fn play(mut arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let name = arguments.next()?;
    let name = std::path::Path::new(&name).file_name()?.to_str()?;
    match name {
        coracle_engine::MONITOR | coracle_engine::COPY_HELPER | rootless::MAPPER => {}
        coracle_engine::INIT => {
            let words = arguments.map(|argument| argument.to_string_lossy().into_owned());
            coracle_engine::init(
                &std::iter::once(name.to_owned())
                    .chain(words)
                    .collect::<Vec<_>>(),
            )
        }
        name if name.ends_with(oci::SUFFIX) => return Some(oci::main(arguments)),
        _ => return None,
    }
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    Some(match name {
        coracle_engine::MONITOR => monitor(&arguments),
        rootless::MAPPER => rootless::mapper_main(&arguments),
        _ => match copy_helper(&arguments) {
            Ok(()) => 0,
            Err(error) => {
                // The command that started the helper reads this and shows it in the three-line form.
                eprintln!("{}", chain(&error));
                125
            }
        },
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What the starting command says to the monitor it starts.
#[derive(Debug)]
struct MonitorArguments {
    config: EngineConfig,
    size: Option<WindowSize>,
    adopt: bool,
    id: String,
}

fn parse(arguments: &[String]) -> Option<MonitorArguments> {
    let mut config = EngineConfig {
        root: PathBuf::new(),
        run_root: PathBuf::new(),
        rootless: false,
        cgroup_prefix: String::new(),
    };
    let (mut size, mut id, mut adopt) = (None, None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--root" => config.root = rest.next()?.into(),
            "--run-root" => config.run_root = rest.next()?.into(),
            "--cgroup-prefix" => config.cgroup_prefix = rest.next()?.clone(),
            "--rootless" => config.rootless = true,
            coracle_engine::ADOPT => adopt = true,
            other => match other.strip_prefix("--size=") {
                Some(text) => {
                    let (rows, columns) = text.split_once('x')?;
                    size = Some(WindowSize {
                        rows: rows.parse().ok()?,
                        columns: columns.parse().ok()?,
                    });
                }
                None => id = Some(other.to_owned()),
            },
        }
    }
    Some(MonitorArguments {
        config,
        size,
        adopt,
        id: id?,
    })
}

fn monitor(arguments: &[String]) -> u8 {
    let Some(MonitorArguments {
        config,
        size,
        adopt,
        id,
    }) = parse(arguments)
    else {
        eprintln!("the monitor is started by `coracle start` and `coracle run`, not by hand");
        return 125;
    };
    let run = || -> Result<(), coracle_engine::Error> {
        let id = id
            .parse()
            .map_err(|_| coracle_engine::Error::NoSuchContainer(id.clone()))?;
        let engine = Engine::open(config)?;
        if engine.shares_host_ids(&id)? {
            // Executes this binary again, with the same streams, until it is sealed.
            coracle_engine::seal()?;
        }
        let (ready, client) = streams().map_err(|error| {
            coracle_engine::Error::refused(format!(
                "the monitor's streams cannot be set up: {error}"
            ))
        })?;
        let streams = MonitorStreams {
            ready: Some(ready),
            client,
            size,
            adopt,
        };
        engine.monitor(&id, streams)
    };
    match run() {
        Ok(()) => 0,
        Err(error) => {
            // Before the pipe was taken out of standard output it is still there; afterwards this leads nowhere, and
            // the engine told it.
            if let Ok(ready) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3) {
                let told = Readiness::failed(&error, error.exit_code(), error.hint());
                // If the starting command is gone, nobody listens.
                let _ = told.send(ready);
            }
            error.exit_code()
        }
    }
}

/// Takes the pipe and the socket out of standard output and input, which lead nowhere from then on; leaves the
/// starting command's session.
fn streams() -> rustix::io::Result<(OwnedFd, Option<OwnedFd>)> {
    let ready = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let is_socket = FileType::from_raw_mode(rustix::fs::fstat(rustix::stdio::stdin())?.st_mode)
        == FileType::Socket;
    let client = match is_socket {
        true => Some(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?),
        false => None,
    };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // A session of its own: no terminal's hang-up or interrupt reaches it. It fails only for a group's leader, which a
    // freshly spawned process is not.
    rustix::process::setsid()?;
    Ok((ready, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitors_arguments_are_read_back() {
        let words = [
            "--root",
            "/r",
            "--run-root",
            "/n",
            "--cgroup-prefix",
            "c",
            "--rootless",
            "--size=24x80",
            "abc",
        ];
        let parsed = parse(&words.map(String::from)).expect("parses");
        assert_eq!(parsed.id, "abc");
        assert_eq!(
            parsed.size,
            Some(WindowSize {
                rows: 24,
                columns: 80
            })
        );
        assert!(parsed.config.rootless);
        assert!(parse(&["--root".to_owned()]).is_none());
    }
}
