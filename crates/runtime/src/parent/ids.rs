//! Writing the id maps of a new user namespace.

use std::fmt::Write as _;

use coracle_linux::procfs::Proc;

use crate::Error;
use crate::request::Map;

/// Writes both maps. Who may not map any id has to give up setgroups first, so that nobody gets around a group that denies
/// (CVE-2014-8989).
pub(super) fn write(
    proc: &Proc,
    pid: i32,
    uids: &[Map],
    gids: &[Map],
    any: bool,
) -> Result<(), Error> {
    let put = |name: &str, content: &str| {
        let path = format!("{pid}/{name}");
        proc.write(&path, content)
            .map_err(|source| Error::host("writing", format!("/proc/{path}"), source))
    };
    if !any {
        put("setgroups", "deny")?;
    }
    put("uid_map", &text(uids))?;
    put("gid_map", &text(gids))
}

/// The kernel's format: inside, outside, count.
fn text(maps: &[Map]) -> String {
    let mut text = String::with_capacity(maps.len() * 24);
    for map in maps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", map.inside, map.outside, map.count);
    }
    text
}
