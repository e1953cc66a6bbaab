//! `@host` for an ordinary user: the host's root as layers that the kernel lets such a user have.
//!
//! In a mount namespace that belongs to a user namespace, a mount with others on it cannot be a layer: what lies under
//! them would come to light (EINVAL). `/` always has others on it. So the root is put together:
//!
//! ```text
//! /        overlay   lower: CONTAINER/host (made here)     upper: CONTAINER/upper
//! /usr     overlay   lower: the host's /usr                upper: CONTAINER/upper/usr
//! /var     a directory, because of a mount on /var/lib/x
//! /var/log overlay   lower: the host's /var/log            upper: CONTAINER/upper/var/log
//! /bin     a symbolic link, as on the host
//! ```
//!
//! All changes are in one upper directory, as if it were one overlay. Left out, as empty directories, are what is mounted,
//! what the user may not list, and directories that anybody may write to (`/tmp`) if something is mounted in them: what is
//! there comes and goes. Sockets, devices, and names that are not UTF-8 (no OCI document can have them) are not there.

use std::ffi::OsString;
use std::fs::{Metadata, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coracle_oci::runtime::Mount;
use rustix::fs::{Access, AtFlags, CWD};

use crate::Engine;
use crate::error::{Error, Result};
use crate::spec;
use crate::state::{self, Record};

/// What every container has of its own.
const OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// What is looked up in the root before the layers are mounted on it: names of users.
const NAMES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// What becomes of the host's tree.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    /// Directories that are there, but empty or filled by other parts; parents first.
    directories: Vec<PathBuf>,
    /// Directories that are a layer as they are.
    layers: Vec<PathBuf>,
    /// Files between them.
    files: Vec<PathBuf>,
    /// Symbolic links between them.
    links: Vec<PathBuf>,
}

impl Engine {
    /// Whether the container's root is put together as this module says.
    pub(crate) fn in_parts(&self, record: &Record) -> bool {
        self.config.rootless && record.image.is_none() && record.spec.rootfs.is_none()
    }

    /// The lowest layer, under all parts.
    pub(crate) fn host_frame(&self, record: &Record) -> PathBuf {
        self.paths.container(&record.id).join("host")
    }

    /// Makes the frame as the host is now; gives what is to be mounted on it, before all else.
    pub(crate) fn host_parts(&self, record: &Record) -> Result<Vec<Mount>> {
        if !self.in_parts(record) {
            return Ok(Vec::new());
        }
        let mounted = state::read(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
        let mut parts = Parts::default();
        parts.collect(
            Path::new("/"),
            &mount_points(&String::from_utf8_lossy(&mounted)),
        );
        let (frame, upper) = (self.host_frame(record), self.paths.upper(&record.id));
        let work = self.paths.container(&record.id).join("host-work");
        match std::fs::remove_dir_all(&frame) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remaking", &frame, error));
            }
            _ => {}
        }
        state::make_directory(&frame)?;
        set_mode(&frame, 0o755)?;
        for directory in &parts.directories {
            make_like(&within(&frame, directory), directory)?;
        }
        for link in &parts.links {
            copy_link(link, &within(&frame, link))?;
        }
        let mut mounts = Vec::with_capacity(parts.layers.len() + parts.files.len());
        for (index, layer) in parts.layers.iter().enumerate() {
            make_like(&within(&frame, layer), layer)?;
            // The upper's mode is the one that is seen; one that the container has changed stays.
            let mut above: Vec<&Path> = layer.ancestors().collect();
            above.reverse();
            for directory in above {
                make_like(&within(&upper, directory), directory)?;
            }
            let work = work.join(index.to_string());
            state::make_directory(&work)?;
            let option = |key: &str, path: &Path| format!("{key}={}", path.display());
            let mut options = vec![
                "nodev".to_owned(),
                "userxattr".to_owned(),
                option("lowerdir+", layer),
                option("upperdir", &within(&upper, layer)),
                option("workdir", &work),
            ];
            if record.spec.auto_remove {
                options.push("volatile".to_owned());
            }
            if record.spec.read_only {
                options.push("ro".to_owned());
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            mounts.push(spec::mount(&text(layer), "overlay", "overlay", &options)?);
        }
        for file in &parts.files {
            let target = within(&frame, file);
            std::fs::write(&target, "").map_err(|source| Error::file("making", &target, source))?;
            let options = ["bind", "ro", "nosuid", "nodev", "rprivate"];
            mounts.push(spec::mount(&text(file), "bind", file, &options)?);
        }
        for file in NAMES {
            let copy = within(&frame, Path::new(file));
            if copy.parent().is_some_and(Path::is_dir) && Path::new(file).is_file() {
                std::fs::copy(file, &copy)
                    .map_err(|source| Error::file("copying", &copy, source))?;
            }
        }
        Ok(mounts)
    }
}

impl Parts {
    fn collect(&mut self, directory: &Path, mounted: &[PathBuf]) {
        // What cannot be listed is empty.
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if path.to_str().is_none() {
                continue;
            }
            if metadata.is_dir() {
                self.add_directory(path, &metadata, mounted);
            } else if metadata.is_symlink() {
                self.links.push(path);
            } else if metadata.is_file() && may(&path, Access::READ_OK) {
                self.files.push(path);
            }
        }
    }

    fn add_directory(&mut self, path: PathBuf, metadata: &Metadata, mounted: &[PathBuf]) {
        let empty = OWN.iter().any(|own| path == Path::new(own))
            || mounted.contains(&path)
            || !may(&path, Access::READ_OK | Access::EXEC_OK);
        let is_split = mounted.iter().any(|point| point.starts_with(&path));
        if !empty && !is_split {
            self.layers.push(path);
            return;
        }
        self.directories.push(path.clone());
        if !empty && metadata.mode() & 0o002 == 0 {
            self.collect(&path, mounted);
        }
    }
}

fn may(path: &Path, access: Access) -> bool {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// The fifth field of each line (proc_pid_mountinfo(5)).
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let field = |line: &str| {
        let point = coracle_linux::procfs::unescape(line.split(' ').nth(4)?.as_bytes());
        Some(PathBuf::from(OsString::from_vec(point)))
    };
    mountinfo.lines().filter_map(field).collect()
}

fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        .map_err(|source| Error::file("opening up", path, source))
}

/// Makes a directory with the mode of the host's, unless it is there.
fn make_like(path: &Path, host: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let metadata =
        std::fs::symlink_metadata(host).map_err(|source| Error::file("reading", host, source))?;
    state::make_directory(path)?;
    set_mode(path, metadata.mode())
}

fn copy_link(from: &Path, to: &Path) -> Result<()> {
    let target = std::fs::read_link(from).map_err(|source| Error::file("reading", from, source))?;
    symlink(target, to).map_err(|source| Error::file("making", to, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read() {
        let text = "27 1 254:0 / / rw - ext4 /dev/vda rw\n43 27 7:1 / /a\\040b\\134c rw - ext4 /dev/loop1 rw\n";
        assert_eq!(
            mount_points(text),
            [PathBuf::from("/"), PathBuf::from("/a b\\c")]
        );
    }

    #[test]
    fn a_directory_is_a_layer_unless_something_is_mounted_in_it() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        for name in [
            "whole/inner",
            "split/mounted",
            "split/beside",
            "scratch/mounted",
            "scratch/theirs",
        ] {
            std::fs::create_dir_all(path(name)).expect("a directory");
        }
        std::fs::set_permissions(path("scratch"), Permissions::from_mode(0o1777)).expect("ours");
        std::fs::write(path("split/file"), "x").expect("a file");
        symlink("whole", path("link")).expect("a link");
        let mut parts = Parts::default();
        parts.collect(
            root.path(),
            &[path("split/mounted"), path("scratch/mounted")],
        );
        for list in [&mut parts.directories, &mut parts.layers] {
            list.sort();
        }
        assert_eq!(
            parts,
            Parts {
                directories: vec![path("scratch"), path("split"), path("split/mounted")],
                layers: vec![path("split/beside"), path("whole")],
                files: vec![path("split/file")],
                links: vec![path("link")],
            }
        );
    }
}
