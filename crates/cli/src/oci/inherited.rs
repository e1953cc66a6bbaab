//! What the caller passes on besides options: descriptors from 3 on, and two variables of systemd's.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::error::Error;

/// The caller's descriptors and what the container is told of them.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub preserved: Vec<OwnedFd>,
    pub extra_env: Vec<String>,
    pub notify_socket: Option<PathBuf>,
}

/// Takes them over. To be called before this program opens anything: the numbers would be its own.
///
/// `count` is `--preserve-fds`; `LISTEN_FDS` adds those of socket activation, in front of them.
pub(super) fn take(count: u32) -> Result<Inherited, Error> {
    let listening = std::env::var("LISTEN_FDS").ok();
    let sockets: u32 = match &listening {
        None => 0,
        Some(text) => text.parse().map_err(|_| Error::Value {
            option: "LISTEN_FDS".into(),
            problem: format!("{text:?} is not a number"),
        })?,
    };
    let mut inherited = Inherited::default();
    for number in 3..3u32.saturating_add(sockets).saturating_add(count) {
        let fd = coracle_linux::process::adopt(number);
        if rustix::io::fcntl_getfd(&fd).is_err() {
            // Not ours to close: there is nothing behind the number.
            std::mem::forget(fd);
            return Err(Error::usage(
                format!("descriptor {number} is to be passed on and is not open"),
                "open it, or give a smaller --preserve-fds",
            ));
        }
        let fd = OwnedFd::from(fd);
        inherited.preserved.push(fd);
    }
    if sockets > 0 {
        inherited.extra_env.push(format!("LISTEN_FDS={sockets}"));
        inherited.extra_env.push("LISTEN_PID=1".into());
        inherited.extra_env.extend(
            std::env::var("LISTEN_FDNAMES")
                .ok()
                .map(|names| format!("LISTEN_FDNAMES={names}")),
        );
    }
    inherited.notify_socket = std::env::var_os("NOTIFY_SOCKET")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    Ok(inherited)
}
