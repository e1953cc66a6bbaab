//! An ordinary user for the rootless tests, who exists only for the commands that run as him.
//!
//! Root gives each command a private mount namespace in which /etc/passwd, group, subuid and subgid are replaced by
//! copies that know the user; the host's files are never written, and the last command's end takes everything away.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::{host, skip};

const ID: u32 = 47_011;
const NAME: &str = "coracle-test";
const FIRST_SUBORDINATE: u32 = 1_610_612_736;

const ENTER: &str = r#"
d=$1; shift
for f in passwd group subuid subgid; do mount --bind "$d/$f" "/etc/$f" || exit 99; done
exec setpriv --reuid 47011 --regid 47011 --clear-groups --inh-caps=-all env -i HOME="$d/home" USER=coracle-test \
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TERM="${TERM:-dumb}" "$@"
"#;

/// Hands `dir` to the user, and gives the words that run the binary as him. `None` after a visible skip.
pub(crate) fn prepare(dir: &Path, binary: &Path, ranges: bool) -> Option<Vec<OsString>> {
    if !rustix::process::geteuid().is_root() {
        // The one who runs the tests is an ordinary user already.
        if !ranges {
            skip("needs root, to make a user without subordinate ids");
            return None;
        }
        fs::create_dir(dir.join("home")).expect("a fresh folder");
        return Some(vec![binary.into()]);
    }
    for program in ["unshare", "setpriv", "newuidmap", "newgidmap"] {
        if !host::has_program(program) {
            return None;
        }
    }
    if !Path::new("/etc/subuid").exists() || !Path::new("/etc/subgid").exists() {
        skip("the host has no /etc/subuid and /etc/subgid");
        return None;
    }
    let allowed = fs::read_to_string("/proc/sys/user/max_user_namespaces")
        .is_ok_and(|text| text.trim() != "0");
    if !allowed {
        skip("user.max_user_namespaces is 0");
        return None;
    }
    let write = |name: &str, mine: String| {
        let mut text = fs::read_to_string(Path::new("/etc").join(name)).expect("it exists");
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        fs::write(dir.join(name), text + &mine).expect("the folder is ours");
    };
    write(
        "passwd",
        format!("{NAME}:x:{ID}:{ID}::/nonexistent:/bin/sh\n"),
    );
    write("group", format!("{NAME}:x:{ID}:\n"));
    let range = if ranges {
        format!("{NAME}:{FIRST_SUBORDINATE}:65536\n")
    } else {
        String::new()
    };
    write("subuid", range.clone());
    write("subgid", range);
    // A checkout below /root is out of the user's reach.
    let copy = dir.join("coracle");
    fs::copy(binary, &copy).expect("the binary can be copied");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("it is ours");
    for sub in ["home", "s", "r"] {
        fs::create_dir(dir.join(sub)).expect("a fresh folder");
        chown(dir.join(sub), Some(ID), Some(ID)).expect("root can");
    }
    chown(dir, Some(ID), Some(ID)).expect("root can");
    let words = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        ENTER,
        "enter",
    ];
    let mut program: Vec<OsString> = words.iter().map(OsString::from).collect();
    program.push(dir.into());
    program.push(copy.into());
    Some(program)
}
