//! The default filter in the kernel: this test binary runs itself as a child that goes under it.

use std::collections::HashSet;
use std::process::Command;

use coracle_linux::seccomp::install;
use coracle_linux::{keyring, namespace};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use super::{Architecture, Context, KernelVersion, compile, default_profile};

/// Set in the child alone.
const CHILD: &str = "CORACLE_SECCOMP_TEST_CHILD";
const CLONE_NEWUSER: u64 = 0x1000_0000;

#[test]
fn default_filter_holds_in_the_kernel() {
    if std::env::var_os(CHILD).is_some() {
        return under_the_filter();
    }
    let binary = std::env::current_exe().expect("own path");
    let name = std::thread::current()
        .name()
        .expect("tests have names")
        .to_owned();
    let output = Command::new(binary)
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("the test binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?}\n{text}\n{errors}",
        output.status
    );
    if errors.contains("SKIP: ") {
        eprint!("{errors}");
        return;
    }
    assert!(
        text.contains("held everywhere"),
        "the child did not get to its end:\n{text}\n{errors}"
    );
}

fn under_the_filter() {
    let native = match Architecture::native() {
        Ok(native) => native,
        Err(error) => return eprintln!("SKIP: default_filter_holds_in_the_kernel: {error}"),
    };
    let capabilities = HashSet::new();
    let kernel = KernelVersion::running().expect("uname");
    let profile = default_profile(&Context {
        capabilities: &capabilities,
        architecture: native,
        kernel,
    });
    let program = compile(&profile, native).expect("compiles");
    rustix::thread::set_no_new_privs(true).expect("no_new_privs");
    let before = rustix::process::getpid();
    match install(&program.instructions, program.flags) {
        Ok(listener) => assert!(listener.is_none()),
        Err(Errno::NOSYS) => {
            return eprintln!(
                "SKIP: default_filter_holds_in_the_kernel: this kernel has no seccomp(2)"
            );
        }
        Err(error) => panic!("the kernel refused the program: {error}"),
    }
    assert_eq!(rustix::process::getpid(), before);
    assert_eq!(namespace::unshare(CLONE_NEWUSER), Err(Errno::PERM));
    assert_eq!(keyring::join_new_session(), Err(Errno::PERM));
    assert_eq!(
        rustix::mount::unmount("/", rustix::mount::UnmountFlags::empty()),
        Err(Errno::PERM)
    );
    // Threads still start, though clone3 is answered with ENOSYS, and processes too.
    assert_eq!(std::thread::spawn(|| 7).join().expect("a thread runs"), 7);
    let of = |family| socket(AddressFamily::from_raw(family), SocketType::DGRAM, None).map(drop);
    assert_eq!(of(38), Err(Errno::PERM), "AF_ALG");
    assert_eq!(of(40), Err(Errno::PERM), "AF_VSOCK");
    assert_eq!(of(1), Ok(()), "AF_UNIX");
    println!("held everywhere");
}
