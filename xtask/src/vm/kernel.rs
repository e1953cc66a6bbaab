//! Debian's kernels, from their packages: the image, the modules that a machine like ours may want, and the few of them
//! without which it does not reach its disks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::cache::Cache;
use super::userland::Tools;
use super::{Problem, Result, passes};

/// A kernel to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// What the command line calls it.
    pub(super) name: &'static str,
    release: &'static str,
}

/// All of them, the oldest first.
pub(super) const CHOICES: [Choice; 3] = [
    Choice {
        name: "6.1",
        release: "bookworm",
    },
    Choice {
        name: "6.12",
        release: "trixie",
    },
    Choice {
        name: "newest",
        release: "sid",
    },
];

/// Folders and files below `kernel/` of the modules that are kept; the rest is hardware that QEMU does not show.
const KEPT: [&str; 25] = [
    "arch",
    "block",
    "crypto",
    "fs",
    "lib",
    "mm",
    "net",
    "virt",
    "security",
    "drivers/block/loop",
    "drivers/block/brd",
    "drivers/block/virtio_blk",
    "drivers/block/zram",
    "drivers/block/nbd",
    "drivers/char/virtio_console",
    "drivers/char/hw_random",
    "drivers/md/dm-",
    "drivers/net/net_failover",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vxlan",
    "drivers/net/dummy",
    "drivers/net/ifb",
    "drivers/virtio",
];

/// What must be there before the root file system is, in the order of loading where no module says that it needs another:
/// checksums and quota formats are asked for by name.
const EARLY: [&str; 8] = [
    "crc32c_generic",
    "quota_v2",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "ext4",
    "erofs",
];

/// A kernel that is ready to be booted.
pub(super) struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    /// Takes it from the cache or makes it.
    pub(super) fn prepare(choice: Choice, cache: &Cache, tools: &Tools) -> Result<Kernel> {
        let make = |dir: &Path| make(choice, dir, cache, tools);
        let dir = cache.entry(&format!("kernel-{}", choice.name), make)?;
        Ok(Kernel { dir })
    }

    pub(super) fn image(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    pub(super) fn modules(&self) -> PathBuf {
        self.dir.join("modules.erofs")
    }

    pub(super) fn early(&self) -> PathBuf {
        self.dir.join("early")
    }

    /// As `uname -r` will say it.
    pub(super) fn version(&self) -> Result<String> {
        let path = self.dir.join("version");
        fs::read_to_string(&path).problem(|| format!("cannot read {}", path.display()))
    }
}

fn make(choice: Choice, dir: &Path, cache: &Cache, tools: &Tools) -> Result<()> {
    eprintln!(
        "==> taking kernel {} from Debian {}",
        choice.name, choice.release
    );
    let apt = Apt::open(
        &cache.path(&format!("apt-{}", choice.release)),
        choice.release,
    )?;
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).problem(|| format!("cannot make {}", unpacked.display()))?;
    apt.unpack(&["linux-image-amd64"], is_kernel, &unpacked)?;
    let from = ["usr/lib/modules", "lib/modules"]
        .iter()
        .find_map(|parent| only_child(&unpacked.join(parent)))
        .ok_or_else(|| {
            format!(
                "kernel {} has no modules where they ought to be",
                choice.name
            )
        })?;
    let version = from
        .file_name()
        .expect("it is a child")
        .to_string_lossy()
        .into_owned();
    let image = [
        unpacked.join(format!("boot/vmlinuz-{version}")),
        from.join("vmlinuz"),
    ];
    let image = image
        .iter()
        .find(|path| path.exists())
        .ok_or_else(|| format!("kernel {version} has no vmlinuz where it ought to be"))?;
    let lib = dir.join("stage/lib/modules");
    let modules = lib.join(&version);
    keep(&from, &modules)?;
    let stage = dir.join("stage");
    passes(
        tools
            .command("depmod")
            .arg("-b")
            .args([&stage])
            .arg(&version),
    )?;
    tools.erofs(&lib, &dir.join("modules.erofs"))?;
    uncompress(image, &dir.join("vmlinux"), tools)?;
    load_early(&modules, &dir.join("early"), tools)?;
    let finish = || {
        fs::write(dir.join("version"), &version)?;
        fs::remove_dir_all(&unpacked)?;
        fs::remove_dir_all(&stage)
    };
    finish().problem(|| format!("cannot complete {}", dir.display()))
}

/// Takes the kernel itself out of a bzImage: QEMU starts it by its PVH entry, and the emulated processor need not
/// uncompress it, which takes longer than all else that a kernel does until its first process.
///
/// The header is Documentation/arch/x86/boot.rst's: `setup_sects` at 0x1f1, `payload_offset` and `payload_length` at
/// 0x248. The payload ends with its uncompressed size.
fn uncompress(image: &Path, into: &Path, tools: &Tools) -> Result<()> {
    let bytes = fs::read(image).problem(|| format!("cannot read {}", image.display()))?;
    let payload = payload(&bytes).ok_or_else(|| format!("{} is no bzImage", image.display()))?;
    let program = match payload {
        [0xfd, b'7', b'z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => {
            return Err(format!(
                "{} is compressed in an unknown way",
                image.display()
            ));
        }
    };
    let packed = into.with_extension("packed");
    fs::write(&packed, payload).problem(|| format!("cannot write {}", packed.display()))?;
    let from = fs::File::open(&packed).problem(|| format!("cannot open {}", packed.display()))?;
    let to = fs::File::create(into).problem(|| format!("cannot make {}", into.display()))?;
    passes(tools.command(program).arg("-dc").stdin(from).stdout(to))?;
    fs::remove_file(&packed).problem(|| format!("cannot remove {}", packed.display()))
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let start = (usize::from(*image.get(0x1f1)?) + 1) * 512 + number(0x248)?;
    image.get(start..start + number(0x24c)?.checked_sub(4)?)
}

/// The packages that a kernel is made of; `linux-image` alone until 6.12.
fn is_kernel(package: &str) -> bool {
    [
        "linux-image-",
        "linux-base-",
        "linux-binary-",
        "linux-modules-",
    ]
    .iter()
    .filter_map(|prefix| package.strip_prefix(prefix)?.chars().next())
    .any(|first| first.is_ascii_digit())
}

fn only_child(folder: &Path) -> Option<PathBuf> {
    let mut children = fs::read_dir(folder).ok()?;
    Some(children.next()?.ok()?.path())
}

/// Moves the modules that are [`KEPT`], and the lists that depmod reads, from `from` to `into`.
fn keep(from: &Path, into: &Path) -> Result<()> {
    let walk = || -> std::io::Result<()> {
        let mut folders = vec![PathBuf::from("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(from.join(&folder))? {
                let entry = entry?;
                let name = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    folders.push(name);
                } else if is_kept(&name) {
                    let target = into.join(&name);
                    fs::create_dir_all(target.parent().expect("it is in a folder"))?;
                    fs::rename(entry.path(), target)?;
                }
            }
        }
        for list in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            fs::rename(from.join(list), into.join(list))?;
        }
        Ok(())
    };
    walk().problem(|| format!("cannot sort the modules of {}", from.display()))
}

fn is_kept(module: &Path) -> bool {
    let Ok(name) = module.strip_prefix("kernel") else {
        return false;
    };
    let name = name.to_string_lossy();
    KEPT.iter().any(|kept| {
        let rest = name.strip_prefix(kept);
        rest.is_some_and(|rest| kept.contains('/') || rest.starts_with('/'))
    })
}

/// Puts the modules that are [`EARLY`], with those that they need before them, uncompressed and numbered into `folder`.
fn load_early(modules: &Path, folder: &Path, tools: &Tools) -> Result<()> {
    fs::create_dir(folder).problem(|| format!("cannot make {}", folder.display()))?;
    let list = modules.join("modules.dep");
    let text = fs::read_to_string(&list).problem(|| format!("cannot read {}", list.display()))?;
    for (number, file) in order(&text, &EARLY).iter().enumerate() {
        let from = modules.join(file);
        let name = format!("{number:02}-{}.ko", module_name(file));
        let into = folder.join(&name);
        if file.ends_with(".xz") {
            let out = fs::File::create(&into).problem(|| format!("cannot make {name}"))?;
            passes(tools.command("xz").arg("-dc").arg(&from).stdout(out))?;
        } else {
            fs::copy(&from, &into).problem(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// From the text of `modules.dep` (`FILE: WHAT IT NEEDS…`, the nearest first): the files of `wanted`, each after what it
/// needs. A name that is not there is built in.
fn order(dependencies: &str, wanted: &[&str]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for name in wanted {
        let line = dependencies.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|file| module_name(file) == *name)
        });
        let Some((file, needs)) = line.and_then(|line| line.split_once(':')) else {
            continue;
        };
        for file in needs.split_whitespace().rev().chain([file]) {
            if seen.insert(file) {
                files.push(file.to_owned());
            }
        }
    }
    files
}

/// `virtio_blk` of `kernel/drivers/block/virtio_blk.ko.xz`.
fn module_name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let text = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
                    kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\n\
                    kernel/fs/erofs/erofs.ko.xz: kernel/lib/crc16.ko.xz\n";
        let names: Vec<String> = order(text, &["ext4", "virtio_pci", "erofs"])
            .iter()
            .map(|file| module_name(file).to_owned())
            .collect();
        assert_eq!(names, ["crc16", "jbd2", "ext4", "erofs"]);
    }

    #[test]
    fn kernels_packages_are_told_from_what_only_names_them() {
        let names = [
            "linux-image-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-base",
            "linux-modules-7.2.13+deb14-amd64",
        ];
        let kernels: Vec<&&str> = names.iter().filter(|name| is_kernel(name)).collect();
        assert_eq!(kernels, [&names[1], &names[3]]);
    }

    #[test]
    fn payload_is_where_the_header_says() {
        let mut image = vec![0u8; 0x1000];
        image[0x1f1] = 3;
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&9u32.to_le_bytes());
        image[2048 + 16..2048 + 25].copy_from_slice(b"abcdeSIZE");
        assert_eq!(payload(&image), Some(&b"abcde"[..]));
        assert_eq!(payload(&image[..2050]), None);
    }

    #[test]
    fn graphics_are_not_kept_and_networks_are() {
        assert!(is_kept(Path::new("kernel/drivers/net/veth.ko.xz")));
        assert!(is_kept(Path::new("kernel/net/bridge/bridge.ko")));
        assert!(!is_kept(Path::new("kernel/drivers/gpu/drm/drm.ko")));
        assert!(!is_kept(Path::new("kernel/drivers/net/ethernet/e1000.ko")));
    }
}
