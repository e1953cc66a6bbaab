//! Who runs: `user[:group]` by the passwd and group files of the container's own root.
//!
//! The root is hostile: the files are opened under its handle (no link leads out), a device or FIFO in their place is
//! not read, and only so much of them. Rules as in Docker: a name must be there, a number need not and is never a
//! name; a user's groups are those that list it; an explicit group replaces them.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// More than any image has; the rest is not read.
const MOST: u64 = 16 << 20;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks `user` up in the root; `extra` are further groups.
pub(crate) fn look_up(root: BorrowedFd<'_>, user: &str, extra: &[String]) -> Result<Identity> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    resolve(&passwd, &group, user, extra)
}

fn read(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let failed = |error| Error::file("reading the container's", Path::new(path), error);
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(String::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(failed)?.st_mode);
    if kind != FileType::RegularFile {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    File::from(fd)
        .take(MOST)
        .read_to_end(&mut text)
        .map_err(|source| Error::file("reading the container's", Path::new(path), source))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

pub(crate) fn resolve(passwd: &str, group: &str, user: &str, extra: &[String]) -> Result<Identity> {
    let (user, explicit) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    // A number is never a name: an image could call root 1000 (CVE-2016-3697), or what is no number here, because it is too
    // large, and elsewhere is one (CVE-2024-40635, CVE-2026-46680).
    if number.is_none() && looks_like_number(user) {
        return Err(not_an_id("user", user));
    }
    let entry = match number {
        Some(uid) => users(passwd).find(|entry| entry.uid == uid),
        None => users(passwd).find(|entry| entry.name == user),
    };
    let (uid, primary, home, name) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home, entry.name),
        (None, Some(uid)) => (uid, 0, "", ""),
        (None, None) => {
            return Err(Error::refused_with(
                format!("no user {user:?} in the container's /etc/passwd"),
                "name one that is there, or give a number",
            ));
        }
    };
    let gid = match explicit.filter(|group| !group.is_empty()) {
        Some(name) => group_id(group, name)?,
        None => primary,
    };
    let mut all: Vec<u32> = match explicit {
        Some(_) => Vec::new(),
        None => groups(group)
            .filter(|(_, _, members)| {
                !name.is_empty() && members.split(',').any(|member| member == name)
            })
            .map(|(_, gid, _)| gid)
            .collect(),
    };
    for name in extra {
        all.push(group_id(group, name)?);
    }
    // A process that drops its primary group must not thereby leave what that group is denied (CVE-2022-36109).
    all.push(gid);
    all.sort_unstable();
    all.dedup();
    let home = match home {
        "" if uid == 0 => "/root",
        "" => "/",
        home => home,
    };
    Ok(Identity {
        uid,
        gid,
        groups: all,
        home: home.into(),
    })
}

/// An id by its number, as Docker bounds it: no id is negative as the kernel's signed type (-1 means "as before").
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

fn looks_like_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn not_an_id(what: &str, text: &str) -> Error {
    Error::refused_with(
        format!("the {what} {text:?} is a number, but not the number of a {what}"),
        "give a number from 0 to 2147483647, or a name",
    )
}

fn group_id(group: &str, name: &str) -> Result<u32> {
    if let Some(gid) = id(name) {
        return Ok(gid);
    }
    if looks_like_number(name) {
        return Err(not_an_id("group", name));
    }
    let found = groups(group)
        .find(|(other, _, _)| *other == name)
        .map(|(_, gid, _)| gid);
    found.ok_or_else(|| {
        Error::refused_with(
            format!("no group {name:?} in the container's /etc/group"),
            "name one that is there, or give a number",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:www:/var/www:/bin/false\nbroken\n77:x:5:5::/seven:\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:\nlogs:x:50:web,other\nmail:x:51:other\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let identity = |uid, gid, groups: &[u32], home: &str| Identity {
            uid,
            gid,
            groups: groups.into(),
            home: home.into(),
        };
        for (user, expected) in [
            ("", identity(0, 0, &[0], "/root")),
            ("web", identity(33, 44, &[44, 50], "/var/www")),
            ("33", identity(33, 44, &[44, 50], "/var/www")),
            ("web:mail", identity(33, 51, &[51], "/var/www")),
            ("web:7", identity(33, 7, &[7], "/var/www")),
            ("1234", identity(1234, 0, &[0], "/")),
            ("77", identity(77, 0, &[0], "/")),
        ] {
            assert_eq!(
                resolve(PASSWD, GROUP, user, &[]).unwrap(),
                expected,
                "{user}"
            );
        }
        let extra = resolve(PASSWD, GROUP, "web", &["mail".into(), "9".into()]).unwrap();
        assert_eq!(extra.groups, [9, 44, 50, 51]);
    }

    #[test]
    fn a_number_is_never_a_name() {
        let passwd = "1000:x:0:0::/:\n4294967296:x:0:0::/:\n-1:x:0:0::/:\n2147483648:x:0:0::/:\n";
        assert_eq!(resolve(passwd, "", "1000", &[]).unwrap().uid, 1000);
        for user in [
            "4294967296",
            "4294967295",
            "2147483648",
            "-1",
            "18446744073709551616",
        ] {
            assert!(resolve(passwd, "", user, &[]).is_err(), "{user}");
            assert!(
                resolve(passwd, "", &format!("1000:{user}"), &[]).is_err(),
                "{user}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(resolve(PASSWD, GROUP, "nobody", &[]).is_err());
        assert!(resolve(PASSWD, GROUP, "web:nogroup", &[]).is_err());
        assert!(resolve(PASSWD, GROUP, "web", &["nogroup".into()]).is_err());
    }

    #[test]
    fn a_missing_passwd_still_has_a_root() {
        assert_eq!(resolve("", "", "", &[]).unwrap().home, "/root");
    }
}
