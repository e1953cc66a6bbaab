//! What the tests need from the system beyond Rust, and how it gets there: through apt where we are root and apt is
//! there; named otherwise, and the tests that need it skip visibly.

use std::path::Path;
use std::process::Command;

/// A program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 11] = [
    ("busybox", "busybox-static"),
    ("newuidmap", "uidmap"),
    ("setpriv", "util-linux"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("fsck.erofs", "erofs-utils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("cc", "gcc"),
    ("tar", "tar"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// Installs what is missing; says what could not be.
pub(crate) fn install() {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    let libc_missing = !has_static_libc();
    let missing: Vec<&str> = missing
        .into_iter()
        .chain(libc_missing.then_some("libc6-dev"))
        .collect();
    if missing.is_empty() {
        return;
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !is_installed("apt-get") {
        eprintln!("missing for some tests, install them with your package manager: {list}");
        return;
    }
    eprintln!("installing for the tests: {list}");
    if apt(
        &["install", "-y", "-qq", "--no-install-recommends"],
        &missing,
    ) {
        return;
    }
    // A fresh machine has no package lists; a package that does not exist must not keep the others away.
    apt(&["update", "-qq"], &[]);
    if !apt(
        &["install", "-y", "-qq", "--no-install-recommends"],
        &missing,
    ) {
        for package in missing {
            if !apt(
                &["install", "-y", "-qq", "--no-install-recommends"],
                &[package],
            ) {
                eprintln!("{package} cannot be installed; the tests that need it will be skipped");
            }
        }
    }
}

fn apt(args: &[&str], packages: &[&str]) -> bool {
    Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The run's own output ends with its counts; what apt says goes beside it.
        .stdout(std::io::stderr())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether `program` is in PATH or where administrators' programs are.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|folder| folder.join(program).is_file())
}

fn has_static_libc() -> bool {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/lib", "/usr/lib64"].iter().any(|lib| {
        Path::new(lib).join(&triple).join("libc.a").exists()
            || Path::new(lib).join("libc.a").exists()
    })
}
