//! The container's standard streams: anonymous pipes, or FIFOs that survive the monitor (docs/format/attach.md,
//! "When a monitor is killed"), or a terminal that the subject makes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, Result, file, system};
use crate::options::{Owner, StdinMode, Streams};
use crate::subject::StdioRequest;
use crate::terminal::WindowSize;

/// Names of the FIFOs of standard output and error.
const FIFOS: [&str; 2] = ["stdout", "stderr"];

/// The monitor's ends, all non-blocking. None of them for a terminal: its master comes from the subject.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) outputs: [Option<OwnedFd>; 2],
}

/// Makes the streams of one run.
pub(crate) fn open(
    streams: &Streams,
    stdin: StdinMode,
    owner: Option<Owner>,
    size: Option<WindowSize>,
) -> Result<(StdioRequest, Ends)> {
    let fifos = match streams {
        Streams::Terminal => return Ok((StdioRequest::Terminal { size }, Ends::default())),
        Streams::Pipes { fifos } => fifos.as_deref(),
    };
    let (theirs, ours) = match stdin {
        StdinMode::Closed => {
            let path = Path::new("/dev/null");
            let null = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(file("opening", path))?;
            (null, None)
        }
        StdinMode::Open | StdinMode::Once => {
            let (read, write) = pipe()?;
            own(&read, owner)?;
            set_nonblocking(&write)?;
            (read, Some(write))
        }
    };
    let (stdout, our_stdout) = output(fifos, FIFOS[0], owner)?;
    let (stderr, our_stderr) = output(fifos, FIFOS[1], owner)?;
    Ok((
        StdioRequest::Pipes {
            stdin: theirs,
            stdout,
            stderr,
        },
        Ends {
            stdin: ours,
            outputs: [Some(our_stdout), Some(our_stderr)],
        },
    ))
}

/// The monitor's ends of a container that another monitor started.
pub(crate) fn reopen(streams: &Streams) -> Result<Ends> {
    let Streams::Pipes {
        fifos: Some(directory),
    } = streams
    else {
        return Ok(Ends::default());
    };
    let reader = |name| match open_fifo(&directory.join(name), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fifo) => Ok(Some(fifo)),
        Err(Error::File {
            source: Errno::NOENT,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    };
    Ok(Ends {
        stdin: None,
        outputs: [reader(FIFOS[0])?, reader(FIFOS[1])?],
    })
}

/// Removes the FIFOs; those that are not there (`--rm` took the directory) are as they should be.
pub(crate) fn remove(streams: &Streams) -> Result<()> {
    let Streams::Pipes {
        fifos: Some(directory),
    } = streams
    else {
        return Ok(());
    };
    for name in FIFOS {
        let path = directory.join(name);
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(file("removing", &path)(error)),
        }
    }
    Ok(())
}

/// Adds O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let set = |flags| rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK);
    rustix::fs::fcntl_getfl(&fd)
        .and_then(set)
        .map_err(system("making a descriptor non-blocking"))
}

/// (container's end, our end)
fn output(fifos: Option<&Path>, name: &str, owner: Option<Owner>) -> Result<(OwnedFd, OwnedFd)> {
    let Some(directory) = fifos else {
        let (read, write) = pipe()?;
        own(&write, owner)?;
        set_nonblocking(&read)?;
        return Ok((write, read));
    };
    let path = directory.join(name);
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0) {
        // Left by the run before this one.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(file("making the FIFO", &path)(error)),
    }
    let ours = open_fifo(&path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    own(&ours, owner)?;
    let theirs = open_fifo(&path, OFlags::RDWR)?;
    Ok((theirs, ours))
}

fn open_fifo(path: &Path, access: OFlags) -> Result<OwnedFd> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo =
        rustix::fs::open(path, flags, Mode::empty()).map_err(file("opening the FIFO", path))?;
    let status = rustix::fs::fstat(&fifo).map_err(file("reading the type of", path))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Fifo {
        return Err(Error::NotFifo(path.to_path_buf()));
    }
    Ok(fifo)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(system("making a pipe"))
}

fn own(fd: &OwnedFd, owner: Option<Owner>) -> Result<()> {
    let Some(owner) = owner else {
        return Ok(());
    };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid))
        .map_err(system("giving a pipe to the container's user"))
}
