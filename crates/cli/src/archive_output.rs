//! Where `save`, `export` and `cp` write an archive: a file that appears only when it is whole, or standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::Error;

/// Calls `write` with the file or with standard output (`None` or `-`), which must not be a terminal.
///
/// A file is written beside its name and renamed, so that a failure leaves what was there before.
pub(crate) fn write(
    file: Option<&str>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(name) = file.filter(|name| *name != "-") else {
        if rustix::termios::isatty(io::stdout()) {
            return Err(Error::usage(
                "an archive is not written to a terminal",
                "redirect standard output, or give -o FILE",
            ));
        }
        let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
        write(&mut out)?;
        return out.flush().map_err(Error::output);
    };
    let path = Path::new(name);
    // A device or a pipe is written in place: it cannot be replaced by a rename.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(Error::file("write", path))?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        write(&mut out)?;
        return out.flush().map_err(Error::file("write", path));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.partial", std::process::id()));
    let partial = Path::new(&beside);
    let made = File::options()
        .write(true)
        .create_new(true)
        .open(partial)
        .map_err(Error::file("write", path))
        .and_then(|file| {
            let mut out = BufWriter::with_capacity(256 << 10, file);
            write(&mut out)?;
            out.flush().map_err(Error::file("write", path))?;
            std::fs::rename(partial, path).map_err(Error::file("write", path))
        });
    if made.is_err() {
        // The failure that is reported matters more than a partial file that stays.
        let _ = std::fs::remove_file(partial);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_what_was_there() {
        let path = std::env::temp_dir().join(format!("coracle-cli-archive-{}", std::process::id()));
        let name = path.to_str().expect("UTF-8");
        std::fs::write(&path, "before").expect("writable");
        let failed = write(Some(name), |out| {
            out.write_all(b"half").map_err(Error::output)?;
            Err(Error::Usage {
                problem: "it broke".into(),
                hint: None,
            })
        });
        let kept = std::fs::read_to_string(&path);
        let done = write(Some(name), |out| {
            out.write_all(b"whole").map_err(Error::output)
        });
        let replaced = std::fs::read_to_string(&path);
        std::fs::remove_file(&path).expect("removable");
        assert!(failed.is_err() && done.is_ok());
        assert_eq!(
            (kept.ok().as_deref(), replaced.ok().as_deref()),
            (Some("before"), Some("whole"))
        );
        assert!(!Path::new(&format!("{name}.{}.partial", std::process::id())).exists());
    }
}
