//! `cp`.
//!
//! The rules for where things go are Docker's: into a directory that is there, else to the name that was given; a source
//! that ends in `/.` is what the directory holds.

use std::io;
use std::path::{Path, PathBuf};

use coracle_engine::CopyStat;
use coracle_engine::oci::ContainerId;

use crate::archive::{self, Destination};
use crate::archive_output;
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Cp {
    /// Keep owners and groups
    #[arg(short = 'a', long)]
    archive: bool,
    /// Follow a link at the end of the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Print nothing (nothing is printed anyway)
    #[arg(short = 'q', long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard output
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

impl super::Verb for Cp {
    fn run(self, door: &Door) -> Result<u8, Error> {
        match (Place::of(&self.source), Place::of(&self.destination)) {
            (Place::Container(name, path), Place::Host(to)) => {
                self.copy_out(door, name, path, to)?
            }
            (Place::Host(from), Place::Container(name, path)) => {
                self.copy_in(door, from, name, path)?
            }
            (Place::Host(_), Place::Host(_)) => {
                return Err(Error::usage(
                    "neither side is a container",
                    "write CONTAINER:PATH on one side",
                ));
            }
            (Place::Container(..), Place::Container(..)) => {
                return Err(Error::usage(
                    "both sides are containers",
                    "copy to the host first, or pipe: `coracle cp A:X - | coracle cp - B:Y`",
                ));
            }
        }
        Ok(0)
    }
}

/// One side of the copy.
#[derive(Debug, PartialEq)]
enum Place<'a> {
    Container(&'a str, &'a str),
    Host(&'a str),
}

impl<'a> Place<'a> {
    /// A colon makes it a container's, unless the text is plainly a path.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.starts_with(['/', '.']) => {
                Place::Container(name, path)
            }
            _ => Place::Host(text),
        }
    }
}

/// Whether the text asks for a directory, or for what a directory holds.
fn asks_directory(text: &str) -> bool {
    text.ends_with('/') || holds(text)
}

fn holds(text: &str) -> bool {
    text.ends_with("/.") || text == "."
}

/// The last component of a path, once `/` and `/.` at its end are gone.
fn last(path: &Path) -> Option<PathBuf> {
    path.file_name().map(PathBuf::from)
}

impl Cp {
    fn copy_out(&self, door: &Door, name: &str, path: &str, to: &str) -> Result<(), Error> {
        let (id, engine) = (door.find(name)?, door.engine()?);
        if to == "-" {
            return archive_output::write(None, |out| {
                Ok(engine
                    .copy_out(&id, path, self.follow_link, out)
                    .map(drop)?)
            });
        }
        let path = absolute(path);
        let source = match self.follow_link {
            true => followed(door, &id, &path)?,
            false => engine
                .copy_stat(&id, &path)?
                .map(|stat| (path.clone(), stat)),
        };
        let (path, stat) = source.ok_or_else(|| nothing_there(name, &path))?;
        let destination = self.destination_on_host(&path, &stat, to)?;
        let (reader, writer) = io::pipe().map_err(|source| Error::Terminal {
            action: "make a pipe",
            source,
        })?;
        std::thread::scope(|scope| {
            let unpacked = std::thread::Builder::new()
                .spawn_scoped(scope, || archive::unpack(reader, &destination))
                .map_err(no_thread)?;
            let mut out = Upstream {
                out: io::BufWriter::with_capacity(128 << 10, writer),
                refused: false,
            };
            let packed = engine.copy_out(&id, &path, self.follow_link, &mut out);
            let refused = out.refused;
            // The other side sees the end of the pipe only now.
            drop(out);
            match (joined(unpacked), packed) {
                // Whichever side failed by itself is the cause; the other only saw the pipe break.
                (unpacked, Err(error)) if !refused || unpacked.is_ok() => Err(error.into()),
                (unpacked, _) => unpacked,
            }
        })
    }

    fn destination_on_host(
        &self,
        path: &str,
        stat: &CopyStat,
        to: &str,
    ) -> Result<Destination, Error> {
        let target = Path::new(to);
        let owners = self.archive;
        let is_directory = std::fs::metadata(target).map(|metadata| metadata.is_dir());
        Ok(match is_directory {
            Ok(true) if stat.is_directory && holds(path) => Destination {
                directory: target.into(),
                name: None,
                owners,
            },
            Ok(true) => Destination {
                directory: target.into(),
                name: Some(PathBuf::from(&stat.name)),
                owners,
            },
            Ok(false) if stat.is_directory => {
                return Err(Error::usage(
                    format!("{to} is a file, and {path} is a directory"),
                    "name a directory, or what is not there yet",
                ));
            }
            Ok(false) if asks_directory(to) => {
                return Err(Error::usage(
                    format!("{to} is not a directory"),
                    "leave out the slash at its end",
                ));
            }
            // A file is replaced where it really is, also when a link leads there.
            Ok(false) => split(
                &std::fs::canonicalize(target).map_err(Error::file("find", target))?,
                owners,
            )?,
            Err(_) if !stat.is_directory && asks_directory(to) => {
                return Err(Error::usage(
                    format!("the directory {to} is not there"),
                    "make it first, or leave out the slash at its end",
                ));
            }
            Err(_) => split(
                &std::path::absolute(target).map_err(Error::file("find", target))?,
                owners,
            )?,
        })
    }

    fn copy_in(&self, door: &Door, from: &str, name: &str, path: &str) -> Result<(), Error> {
        let (id, engine) = (door.find(name)?, door.engine()?);
        let path = absolute(path);
        if from == "-" {
            return Ok(engine.copy_in(&id, &path, &mut io::stdin().lock(), self.archive)?);
        }
        let source = Path::new(from);
        let metadata = if self.follow_link || asks_directory(from) {
            std::fs::metadata(source)
        } else {
            std::fs::symlink_metadata(source)
        };
        let source_is_directory = metadata.map_err(Error::file("read", source))?.is_dir();
        let target = followed(door, &id, &path)?;
        let (directory, called) = match target {
            Some((path, stat)) if stat.is_directory => match holds(from) && source_is_directory {
                true => (path, PathBuf::from(".")),
                false => {
                    let whole = std::path::absolute(source).map_err(Error::file("find", source))?;
                    let called = last(&whole).ok_or_else(|| {
                        Error::usage(
                            format!("{from} has no name of its own"),
                            "name a directory below it, or add /. at its end",
                        )
                    })?;
                    (path, called)
                }
            },
            Some((path, _)) if source_is_directory => {
                return Err(Error::usage(
                    format!("{name}:{path} is a file, and {from} is a directory"),
                    "name a directory, or what is not there yet",
                ));
            }
            None if asks_directory(&path) && !source_is_directory => {
                return Err(nothing_there(name, &path));
            }
            Some(_) if asks_directory(&path) => {
                return Err(Error::usage(
                    format!("{name}:{path} is not a directory"),
                    "leave out the slash at its end",
                ));
            }
            Some((path, _)) => above(&path)?,
            None => above(path.trim_end_matches("/.").trim_end_matches('/'))?,
        };
        let follow = self.follow_link || asks_directory(from);
        let (mut reader, writer) = io::pipe().map_err(|source| Error::Terminal {
            action: "make a pipe",
            source,
        })?;
        std::thread::scope(|scope| {
            let pack = || {
                let out = io::BufWriter::with_capacity(128 << 10, writer);
                archive::pack(source, &called, follow, out)
            };
            let packed = std::thread::Builder::new()
                .spawn_scoped(scope, pack)
                .map_err(no_thread)?;
            let unpacked = engine.copy_in(&id, &directory, &mut reader, self.archive);
            drop(reader);
            // When unpacking failed, packing failed only for want of a reader.
            unpacked?;
            joined(packed)
        })
    }
}

fn no_thread(source: io::Error) -> Error {
    Error::Terminal {
        action: "start a thread",
        source,
    }
}

/// The packing end of a pipe, which remembers that the other end went away.
struct Upstream<W> {
    out: W,
    refused: bool,
}

impl<W: io::Write> io::Write for Upstream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.refused |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.refused |= flushed.is_err();
        flushed
    }
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), Error>>) -> Result<(), Error> {
    thread.join().unwrap_or_else(|_| {
        Err(Error::Usage {
            problem: "copying panicked".into(),
            hint: None,
        })
    })
}

fn nothing_there(name: &str, path: &str) -> Error {
    Error::usage(
        format!("there is nothing at {path} in container {name}"),
        format!("`coracle exec {name} ls` shows what is there"),
    )
}

/// Paths of a container begin at its root.
fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// A path split into its directory and its name.
fn split(path: &Path, owners: bool) -> Result<Destination, Error> {
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Destination {
        directory,
        name: last(path),
        owners,
    })
}

/// The same for a path of a container.
fn above(path: &str) -> Result<(String, PathBuf), Error> {
    match path.rsplit_once('/') {
        Some((directory, name)) if !name.is_empty() => Ok((
            if directory.is_empty() {
                "/".into()
            } else {
                directory.into()
            },
            PathBuf::from(name),
        )),
        _ => Err(Error::usage(
            format!("{path:?} has no name at its end"),
            "name a file or a directory",
        )),
    }
}

/// What is at a path of the container, through links at its end.
fn followed(
    door: &Door,
    id: &ContainerId,
    path: &str,
) -> Result<Option<(String, CopyStat)>, Error> {
    let mut path = path.to_owned();
    // As many links as the kernel follows.
    for _ in 0..40 {
        let Some(stat) = door.engine()?.copy_stat(id, &path)? else {
            return Ok(None);
        };
        if stat.link_target.is_empty() {
            return Ok(Some((path, stat)));
        }
        path = match (
            stat.link_target.starts_with('/'),
            path.trim_end_matches('/').rsplit_once('/'),
        ) {
            (true, _) | (false, None) => absolute(&stat.link_target),
            (false, Some((directory, _))) => format!("{directory}/{}", stat.link_target),
        };
    }
    Err(Error::usage(
        format!("{path} is a link that leads to itself"),
        "name what it should lead to",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_it_a_containers() {
        assert_eq!(Place::of("web:/etc"), Place::Container("web", "/etc"));
        assert_eq!(Place::of("web:etc"), Place::Container("web", "etc"));
        for host in ["/a:b", "./a:b", "a", "-", ":x"] {
            assert_eq!(Place::of(host), Place::Host(host));
        }
    }

    #[test]
    fn destinations_on_the_host_are_dockers() {
        let scratch = tempfile::tempdir().expect("scratch");
        let at = |name: &str| {
            scratch
                .path()
                .join(name)
                .to_str()
                .expect("UTF-8")
                .to_owned()
        };
        std::fs::create_dir(at("dir")).expect("made");
        std::fs::write(at("file"), "").expect("made");
        let cp = Cp {
            archive: false,
            follow_link: false,
            quiet: false,
            source: String::new(),
            destination: String::new(),
        };
        let to = |path: &str, is_directory: bool, to: &str| {
            let name = path
                .trim_end_matches("/.")
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            let stat = CopyStat {
                name,
                size: 0,
                mode: 0,
                modified: 0,
                is_directory,
                link_target: String::new(),
            };
            cp.destination_on_host(path, &stat, to)
                .ok()
                .map(|to| (to.directory, to.name))
        };
        let (root, dir) = (
            scratch.path().canonicalize().expect("there"),
            PathBuf::from(at("dir")),
        );
        assert_eq!(
            to("/x/f", false, &at("dir")),
            Some((dir.clone(), Some("f".into())))
        );
        assert_eq!(
            to("/x/d", true, &at("dir")),
            Some((dir.clone(), Some("d".into())))
        );
        assert_eq!(to("/x/d/.", true, &at("dir")), Some((dir, None)));
        assert_eq!(
            to("/x/f", false, &at("file")),
            Some((root, Some("file".into())))
        );
        assert_eq!(
            to("/x/d", true, &at("new")),
            Some((scratch.path().into(), Some("new".into())))
        );
        assert_eq!(
            to("/x/f", false, &at("new")),
            Some((scratch.path().into(), Some("new".into())))
        );
        assert_eq!(to("/x/d", true, &at("file")), None);
        assert_eq!(to("/x/f", false, &at("new/")), None);
        assert_eq!(to("/x/f", false, &at("file/")), None);
    }
}
