//! The machine's own files: a small Debian 12 made of packages, without running any of their scripts.
//!
//! The programs in it also make the disks on this side ([`Tools`]), so that a host needs neither XFS's nor Btrfs's
//! tools. The root is a disk that can be written and not an overlay: an overlay may be stacked only twice, and the tests
//! want both for themselves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Apt;
use super::cache::Cache;
use super::{Problem, Result, passes};

/// The release that it is made of, whichever kernel runs it.
const RELEASE: &str = "bookworm";

const PACKAGES: [&str; 26] = [
    "base-files",
    "base-passwd",
    "bash",
    "btrfs-progs",
    "busybox-static",
    "coreutils",
    "dash",
    "e2fsprogs",
    "erofs-utils",
    "findutils",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
    "mawk",
    "mount",
    "nftables",
    "procps",
    "sed",
    "tar",
    "uidmap",
    "util-linux",
    "util-linux-extra",
    "xfsprogs",
    "xz-utils",
    "zstd",
];

/// What those depend on only for their scripts.
const UNWANTED: [&str; 14] = [
    "debconf",
    "dpkg",
    "init-system-helpers",
    "libfile-find",
    "libicu",
    "libnumber-compare",
    "libperl",
    "libpython",
    "libtext-glob",
    "media-types",
    "perl",
    "python",
    "usrmerge",
    "libsqlite3",
];

/// The ordinary user inside, and his group.
pub(super) const USER: u32 = 1000;

const FILES: [(&str, u32, &str); 8] = [
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         user:x:1000:1000:user:/home/user:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        0o644,
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\ndisk:x:6:\nshadow:x:42:\nuser:x:1000:\nnogroup:x:65534:\n",
    ),
    (
        "etc/shadow",
        0o600,
        "root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n",
    ),
    ("etc/subuid", 0o644, "user:100000:65536\n"),
    ("etc/subgid", 0o644, "user:100000:65536\n"),
    ("etc/hostname", 0o644, "coracle-vm\n"),
    (
        "etc/hosts",
        0o644,
        "127.0.0.1 localhost\n10.77.0.1 one\n10.77.0.2 two\n",
    ),
    ("etc/resolv.conf", 0o644, ""),
];

/// The programs in a userland, run on this side by their own dynamic loader.
pub(super) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// A command that runs `program` of the userland.
    pub(super) fn command(&self, program: &str) -> Command {
        let root = &self.root;
        let loader = root.join("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
        let mut path = ["usr/bin", "usr/sbin"]
            .map(|folder| root.join(folder).join(program))
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok())
            .unwrap_or_else(|| root.join(program));
        // `/usr/sbin/depmod` → `/bin/kmod`, whose name says which program it is.
        if let Ok(target) = path.read_link()
            && let Ok(inside) = target.strip_prefix("/")
        {
            path = root.join(inside);
        }
        let mut command = Command::new(loader);
        command
            .args(["--argv0", program, "--library-path"])
            .arg(root.join("usr/lib/x86_64-linux-gnu"))
            .arg(path);
        command
    }

    /// Makes a read-only EROFS image of `folder`, whose files all belong to root.
    pub(super) fn erofs(&self, folder: &Path, image: &Path) -> Result<()> {
        let mut command = self.command("mkfs.erofs");
        passes(
            command
                .args(["--quiet", "--all-root"])
                .args([image, folder]),
        )
    }
}

/// The finished userland.
pub(super) struct Userland {
    dir: PathBuf,
}

impl Userland {
    /// Takes it from the cache or makes it.
    pub(super) fn prepare(cache: &Cache) -> Result<Userland> {
        let make = |dir: &Path| make(dir, cache);
        Ok(Userland {
            dir: cache.entry("userland", make)?,
        })
    }

    pub(super) fn tools(&self) -> Tools {
        Tools {
            root: self.dir.join("root"),
        }
    }

    /// The disk with the given name: `root`, or one of [`DISKS`].
    pub(super) fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.img"))
    }
}

/// The empty disks, by the file systems on them.
pub(super) const DISKS: [&str; 3] = ["xfs", "ext4", "btrfs"];

fn make(dir: &Path, cache: &Cache) -> Result<()> {
    eprintln!("==> making the machines' own files from Debian {RELEASE}");
    let root = dir.join("root");
    lay_out(&root).problem(|| format!("cannot make {}", root.display()))?;
    let apt = Apt::open(&cache.path("apt-userland"), RELEASE)?;
    let wanted = |name: &str| !UNWANTED.iter().any(|unwanted| name.starts_with(unwanted));
    apt.unpack(&PACKAGES, wanted, &root)?;
    complete(&root).problem(|| format!("cannot complete {}", root.display()))?;
    let userland = Userland {
        dir: dir.to_owned(),
    };
    for disk in ["root"].iter().chain(&DISKS) {
        let path = userland.disk(disk);
        fs::File::create(&path)
            .and_then(|file| file.set_len(8 << 30))
            .problem(|| format!("cannot make {}", path.display()))?;
    }
    let tools = userland.tools();
    // Project quotas are a property of the file system on ext4, of the mount on XFS.
    let ext4 = [
        "-q",
        "-F",
        "-O",
        "quota,project",
        "-E",
        "assume_storage_prezeroed=1",
    ];
    let mut of_root = as_owner(tools.command("mke2fs"));
    passes(
        of_root
            .args(["-t", "ext4"])
            .args(ext4)
            .arg("-d")
            .args([&root, &userland.disk("root")]),
    )?;
    passes(
        tools
            .command("mke2fs")
            .args(["-t", "ext4"])
            .args(ext4)
            .arg(userland.disk("ext4")),
    )?;
    passes(
        tools
            .command("mkfs.xfs")
            .args(["-q", "-f"])
            .arg(userland.disk("xfs")),
    )?;
    passes(
        tools
            .command("mkfs.btrfs")
            .args(["-q", "-f"])
            .arg(userland.disk("btrfs")),
    )
}

/// The folders that no package has, and the links that make `/bin` and `/usr/bin` one.
fn lay_out(root: &Path) -> std::io::Result<()> {
    for folder in [
        "dev",
        "disks/btrfs",
        "disks/ext4",
        "disks/xfs",
        "etc",
        "home/user",
        "payload",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/lib/modules",
        "usr/lib64",
        "usr/sbin",
        "var/tmp",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    for (folder, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)] {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What the packages' scripts would have done.
fn complete(root: &Path) -> std::io::Result<()> {
    for (name, mode, text) in FILES {
        let path = root.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (link, target) in [("usr/bin/awk", "mawk"), ("usr/bin/sh", "dash")] {
        let link = root.join(link);
        if link.symlink_metadata().is_err() {
            symlink(target, link)?;
        }
    }
    // Nobody reads them here, and an image without them is made in half the time.
    for folder in [
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/info",
    ] {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

/// `command`, for which this user's files are root's.
fn as_owner(command: Command) -> Command {
    if rustix::process::geteuid().is_root() {
        return command;
    }
    let mut mapped = Command::new("unshare");
    mapped
        .arg("--map-root-user")
        .arg(command.get_program())
        .args(command.get_args());
    mapped
}
