//! The root file system, detached: a directory, or an overlay over layers.
//!
//! ```text
//! layer files    fsopen("erofs"), or a kept copy ► mount ─┐
//! layer dirs     open_tree(OPEN_TREE_CLONE) ────► mount ─┤ each id-mapped by the container's user namespace
//! upper's parent open_tree(OPEN_TREE_CLONE) ────► mount ─┘
//!                                                   └──► fsopen("overlay"), lowerdir+ …, upperdir, workdir ──► the root
//! ```
//!
//! Before Linux 6.15 overlay takes only mounts of the caller's mount namespace: there a thread attaches them in one that
//! ends with it.
//!
//! Overlay writes to its upper with the ids of whoever created it. Under an id mapping the host's root is nobody there, so the
//! overlay has to be created with the file system ids of the container's root, or it is silently read-only. Changing those
//! drops capabilities from the effective set, which are put back before the creation.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_linux::mount::{Attributes, NODEV, RDONLY, set_attributes};
use coracle_linux::{namespace, process};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, mkdirat, openat, symlinkat};
use rustix::io::{Errno, read};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, mount, mount_change, move_mount, open_tree,
};
use rustix::process::{chdir, getegid, geteuid};

use super::binds::CLONE;
use crate::request::{IdMapping, Lower, Ownership, Root};
use crate::resolve::outside;
use crate::{Error, KeptLayers};

/// A root that was made.
pub(super) struct Made {
    /// The detached mount.
    pub(super) root: OwnedFd,
    /// Mounts that it has references of its own to: of each layer, and of the upper.
    pub(super) spent: Vec<OwnedFd>,
}

/// Makes the root. `namespace` is the container's user namespace, if it has one.
pub(super) fn root(
    root: &Root,
    namespace: Option<BorrowedFd<'_>>,
    ids: &IdMapping,
    initial: bool,
) -> Result<Made, Error> {
    match root {
        Root::Directory { path, ownership } => {
            let mount = open_tree(CWD, path, CLONE | OpenTreeFlags::AT_RECURSIVE)
                .map_err(|source| Error::host("opening the root directory", path, source))?;
            let idmap = namespace.filter(|_| *ownership == Ownership::Inside);
            let attributes = Attributes {
                propagation: PRIVATE,
                ..Attributes::default()
            };
            set_attributes(mount.as_fd(), true, attributes, idmap)
                .map_err(|source| Error::host("mapping the ids of", path, source))?;
            Ok(Made {
                root: mount,
                spent: Vec::new(),
            })
        }
        Root::Overlay {
            lowers,
            upper,
            work,
            volatile,
            ownership,
            kept,
        } => {
            let idmap = namespace.filter(|_| *ownership == Ownership::Inside);
            let lowers = layers(lowers, kept.as_ref(), idmap)?;
            let overlay = Overlay::open(lowers, upper, work, *volatile, idmap, !initial)?;
            let creator = match (idmap, ids) {
                (Some(_), IdMapping::Own { uids, gids } | IdMapping::Join { uids, gids, .. }) => {
                    match (outside(uids, 0), outside(gids, 0)) {
                        (Some(uid), Some(gid)) => Some((uid, gid)),
                        _ => {
                            return Err(Error::invalid(
                                "the root",
                                "an overlay with the image's own ids needs a user namespace that has id 0",
                            ));
                        }
                    }
                }
                _ => None,
            };
            overlay.make(creator)
        }
    }
}

const PRIVATE: u64 = 1 << 18;

/// An overlay with everything opened.
struct Overlay<'a> {
    /// Roots of the layers, topmost first.
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// The mount that both are on, which goes away with its descriptor.
    writable: OwnedFd,
    /// Where on it they are.
    upper_rest: PathBuf,
    work_rest: PathBuf,
    upper_path: &'a Path,
    volatile: bool,
    /// Overlay's own attributes are kept in `user.overlay.*`.
    user_attributes: bool,
}

impl<'a> Overlay<'a> {
    fn open(
        lowers: Vec<OwnedFd>,
        upper_path: &'a Path,
        work_path: &Path,
        volatile: bool,
        idmap: Option<BorrowedFd<'_>>,
        user_attributes: bool,
    ) -> Result<Self, Error> {
        let (common, upper_rest, work_rest) = common(upper_path, work_path);
        // One mount for both, which overlay insists on.
        let writable = open_tree(CWD, &common, CLONE)
            .map_err(|source| Error::host("opening", &common, source))?;
        map(writable.as_fd(), idmap, &common, Attributes::default())?;
        let open = |rest: &Path, path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&writable, rest, flags, Mode::empty())
                .map_err(|source| Error::host("opening", path, source))
        };
        Ok(Self {
            lowers,
            upper: open(&upper_rest, upper_path)?,
            work: open(&work_rest, work_path)?,
            writable,
            upper_rest,
            work_rest,
            upper_path,
            volatile,
            user_attributes,
        })
    }

    fn make(self, creator: Option<(u32, u32)>) -> Result<Made, Error> {
        match self.make_detached(creator) {
            Ok(root) => {
                let mut spent = self.lowers;
                spent.push(self.writable);
                Ok(Made { root, spent })
            }
            Err(failure) if failure.is_for_want_of_a_newer_kernel() => {
                let root = self
                    .make_attached(creator)
                    .map_err(|failure| self.refused(failure.source, failure.message))?;
                // What was attached once went with its namespace, and cannot be attached again.
                Ok(Made {
                    root,
                    spent: Vec::new(),
                })
            }
            Err(failure) => Err(self.refused(failure.source, failure.message)),
        }
    }

    fn refused(&self, source: Errno, mut message: String) -> Error {
        // What the kernel says of this goes to its own log only.
        if accessat(
            &self.work,
            c"work/incompat/volatile",
            Access::EXISTS,
            AtFlags::empty(),
        )
        .is_ok()
        {
            message = "it was volatile before".to_owned();
        }
        Error::Overlay {
            upper: self.upper_path.to_owned(),
            layers: self.lowers.len(),
            message,
            source,
        }
    }

    /// By descriptors (Linux 6.13) of mounts that are in no mount namespace (Linux 6.15).
    fn make_detached(&self, creator: Option<(u32, u32)>) -> Result<OwnedFd, Failure> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let said = |source| Failure {
            source,
            message: log(&context),
        };
        fsconfig_set_string(&context, c"source", c"overlay").map_err(said)?;
        for lower in &self.lowers {
            fsconfig_set_fd(&context, c"lowerdir+", lower).map_err(said)?;
        }
        fsconfig_set_fd(&context, c"upperdir", &self.upper).map_err(said)?;
        fsconfig_set_fd(&context, c"workdir", &self.work).map_err(said)?;
        for (key, value) in self.options() {
            match value {
                Some(value) => fsconfig_set_string(&context, key, value),
                None => fsconfig_set_flag(&context, key),
            }
            .map_err(said)?;
        }
        {
            let _creator = Creator::become_(creator)?;
            fsconfig_create(&context).map_err(said)?;
        }
        Ok(fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )?)
    }

    /// No redirects and no copies of metadata alone: a layer that is made from the upper must mean the same elsewhere.
    fn options(&self) -> Vec<(&'static str, Option<&'static str>)> {
        let mut options = vec![
            ("redirect_dir", Some("nofollow")),
            ("metacopy", Some("off")),
            ("index", Some("off")),
        ];
        if self.user_attributes {
            options.push(("userxattr", None));
        }
        if self.volatile {
            options.push(("volatile", None));
        }
        options
    }

    /// By mount(2), of mounts in a namespace that nobody else sees: a thread of its own makes one and attaches them there.
    /// Relative names of one or two letters keep 500 layers within the page that options may have.
    fn make_attached(&self, creator: Option<(u32, u32)>) -> Result<OwnedFd, Failure> {
        let names: Vec<String> = (0..self.lowers.len()).map(|n| n.to_string()).collect();
        let mut data = format!("lowerdir={},upperdir=u,workdir=w", names.join(":"));
        for (key, value) in self.options() {
            data.push(',');
            data.push_str(key);
            if let Some(value) = value {
                data.push('=');
                data.push_str(value);
            }
        }
        // One page, with the null.
        if data.len() >= 4096 {
            return Err(Failure {
                source: Errno::TOOBIG,
                message: "too many layers for this kernel's mount(2)".to_owned(),
            });
        }
        let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
        let attach = || -> Result<OwnedFd, Errno> {
            // Gives this thread a working directory of its own, too.
            namespace::unshare_mounts()?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change(c"/", private)?;
            // A place that every root has, and that nothing here is looked up below.
            let flags = MountFlags::empty();
            mount(c"tmpfs", c"/proc", c"tmpfs", flags, c"mode=700")?;
            chdir(c"/proc")?;
            let mode = Mode::from_raw_mode(0o755);
            let attach = |mount: &OwnedFd, name: &str| {
                mkdirat(CWD, name, mode)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(mount, c"", CWD, name, flags)
            };
            for (lower, name) in self.lowers.iter().zip(&names) {
                attach(lower, name)?;
            }
            attach(&self.writable, "writable")?;
            // Links instead of names, which could hold the commas and colons of the options' own syntax.
            symlinkat(Path::new("writable").join(&self.upper_rest), CWD, c"u")?;
            symlinkat(Path::new("writable").join(&self.work_rest), CWD, c"w")?;
            mkdirat(CWD, c"root", mode)?;
            {
                let _creator = Creator::become_(creator)?;
                mount(c"overlay", c"root", c"overlay", flags, data.as_c_str())?;
            }
            open_tree(CWD, c"root", CLONE)
        };
        Ok(coracle_linux::process::in_thread(attach)??)
    }
}

/// Why it could not be made, and the kernel's own words on it, if it has any.
#[derive(Debug)]
struct Failure {
    source: Errno,
    message: String,
}

impl From<Errno> for Failure {
    fn from(source: Errno) -> Self {
        Self {
            source,
            message: String::new(),
        }
    }
}

impl Failure {
    /// Descriptors are "not supported" before 6.5, and those that are only a place (`O_PATH`) "bad" before 6.13; a mount
    /// that is in no mount namespace is invalid without a word before 6.15.
    fn is_for_want_of_a_newer_kernel(&self) -> bool {
        match self.source {
            Errno::OPNOTSUPP | Errno::BADF => true,
            Errno::INVAL => self.message.is_empty() || self.message.contains("Unknown parameter"),
            _ => false,
        }
    }
}

/// What the kernel has to say about a file system context that failed.
fn log(context: &OwnedFd) -> String {
    let mut all = String::new();
    let mut buffer = [0u8; 512];
    while let Ok(length) = read(context, &mut buffer) {
        if !all.is_empty() {
            all.push_str("; ");
        }
        // "e " for an error, "w " for a warning.
        all.push_str(
            String::from_utf8_lossy(&buffer[..length])
                .trim_start_matches(['e', 'w', 'i', ' '])
                .trim(),
        );
    }
    all
}

/// The layers, each as a mount of its own.
fn layers(
    lowers: &[Lower],
    kept: Option<&KeptLayers>,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, Error> {
    let files: Vec<&Path> = lowers
        .iter()
        .filter_map(|lower| match lower {
            Lower::Erofs(file) => Some(file.as_path()),
            Lower::Directory(_) => None,
        })
        .collect();
    let mut mounted = match kept {
        Some(kept) if !files.is_empty() => kept.copies(&files)?,
        _ => files
            .into_iter()
            .map(mount_layer)
            .collect::<Result<_, _>>()?,
    }
    .into_iter();
    lowers
        .iter()
        .map(|lower| {
            let (path, mount) = match lower {
                Lower::Directory(path) => (path, open_tree(CWD, path, CLONE)),
                Lower::Erofs(path) => (path, mounted.next().ok_or(Errno::NOENT)),
            };
            let mount = mount.map_err(|source| Error::host("opening the layer", path, source))?;
            map(mount.as_fd(), idmap, path, Attributes::default())?;
            Ok(mount)
        })
        .collect()
}

/// Mounts a layer file, detached.
pub(crate) fn mount_layer(path: &Path) -> Result<OwnedFd, Error> {
    let fail = |source| Error::Layer {
        path: path.to_owned(),
        message: String::new(),
        source,
    };
    let context = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail)?;
    // Through a descriptor, since a value has at most 255 bytes and a path may have more.
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    fsconfig_set_string(
        &context,
        c"source",
        format!("/proc/self/fd/{}", file.as_raw_fd()),
    )
    .map_err(fail)?;
    fsconfig_create(&context).map_err(|source| Error::Layer {
        path: path.to_owned(),
        message: log(&context),
        source,
    })?;
    let attributes = MountAttrFlags::from_bits_retain((RDONLY | NODEV) as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

fn map(
    mount: BorrowedFd<'_>,
    idmap: Option<BorrowedFd<'_>>,
    path: &Path,
    attributes: Attributes,
) -> Result<(), Error> {
    // A clone of a shared mount is its peer; nothing done with ours shall reach the host.
    let attributes = Attributes {
        propagation: PRIVATE,
        ..attributes
    };
    set_attributes(mount, false, attributes, idmap)
        .map_err(|source| Error::host("mapping the ids of", path, source))
}

/// The deepest directory above both, and what leads from it to each.
fn common(upper: &Path, work: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let shared: PathBuf = upper
        .components()
        .zip(work.components())
        .take_while(|(left, right)| left == right)
        .map(|pair| pair.0)
        .collect();
    let rest = |path: &Path| {
        path.strip_prefix(&shared)
            .map_or_else(|_| path.to_owned(), Path::to_owned)
    };
    let (upper, work) = (rest(upper), rest(work));
    (
        if shared.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            shared
        },
        upper,
        work,
    )
}

/// The calling thread as the container's root, to file systems.
struct Creator {
    capabilities: Option<rustix::thread::CapabilitySets>,
}

impl Creator {
    fn become_(ids: Option<(u32, u32)>) -> Result<Self, Errno> {
        let Some((uid, gid)) = ids else {
            return Ok(Self { capabilities: None });
        };
        let capabilities = rustix::thread::capabilities(None)?;
        let creator = Self {
            capabilities: Some(capabilities),
        };
        process::set_file_system_ids(uid, gid)?;
        rustix::thread::set_capabilities(None, capabilities)?;
        Ok(creator)
    }
}

impl Drop for Creator {
    fn drop(&mut self) {
        let Some(capabilities) = self.capabilities else {
            return;
        };
        let back = process::set_file_system_ids(geteuid().as_raw(), getegid().as_raw())
            .and_then(|()| rustix::thread::set_capabilities(None, capabilities));
        if back.is_err() {
            // A thread that is somebody else than it thinks must not go on.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_and_work_are_reached_from_one_directory() {
        let (shared, upper, work) = common(Path::new("/var/c/upper"), Path::new("/var/c/work"));
        assert_eq!(
            (shared, upper, work),
            ("/var/c".into(), "upper".into(), "work".into())
        );
        let (shared, upper, work) = common(Path::new("/a/x/upper"), Path::new("/b/work"));
        assert_eq!(
            (shared, upper, work),
            ("/".into(), "a/x/upper".into(), "b/work".into())
        );
    }

    /// Whether this kernel cannot make an overlay of what is attached nowhere.
    fn needs_attached(failure: &Failure) -> bool {
        let needs = failure.is_for_want_of_a_newer_kernel();
        if needs {
            eprintln!(
                "SKIP: both_ways_make_the_same_root: detached: {}",
                failure.source
            );
        }
        needs
    }

    #[test]
    fn both_ways_make_the_same_root() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["low,:", "high"] {
            std::fs::create_dir(path(name)).expect("a layer");
            std::fs::write(path(name).join("same"), name).expect("a file");
        }
        let lowers = [
            Lower::Directory(path("high")),
            Lower::Directory(path("low,:")),
        ];
        for way in ["detached", "attached"] {
            let (upper, work) = (
                path(&format!("upper,:{way}")),
                path(&format!("work,:{way}")),
            );
            std::fs::create_dir(&upper).expect("upper");
            std::fs::create_dir(&work).expect("work");
            let opened = layers(&lowers, None, None)
                .and_then(|lowers| Overlay::open(lowers, &upper, &work, false, None, false));
            let overlay = match opened {
                Err(Error::Host {
                    source: Errno::PERM,
                    ..
                }) => {
                    eprintln!("SKIP: both_ways_make_the_same_root: not root");
                    return;
                }
                result => result.expect("layers"),
            };
            let made = match way {
                "detached" => overlay.make_detached(None),
                _ => overlay.make_attached(None),
            };
            let root = match made {
                Err(failure) if way == "detached" && needs_attached(&failure) => continue,
                result => result.expect(way),
            };
            let file = openat(
                &root,
                c"same",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .expect("the file");
            assert_eq!(
                std::io::read_to_string(std::fs::File::from(file)).expect("text"),
                "high",
                "{way}"
            );
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(openat(&root, c"new", flags, Mode::from_raw_mode(0o644)).expect("a new file"));
            assert!(upper.join("new").exists(), "{way}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
        assert!(
            !mounts.contains("upperdir=u,"),
            "what is attached is seen by nobody"
        );
    }
}
