//! Which devices a container may use: an ordered list of rules, the OCI form, and how cgroup v1 is told.
//!
//! Meaning: a request for access to a device is allowed if, for each of its accesses (read, write, mknod), the **last**
//! rule that matches device and access allows it, or no rule matches. So a list normally starts with "deny everything".
//! cgroup v2 gets exactly that as an eBPF program (`device_program`). cgroup v1 keeps one default and a list of
//! exceptions to it, so a rule that carves a hole into an exception cannot be expressed: that is refused, since the
//! kernel would ignore such a line without a word.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// Kinds of device nodes that a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Block and character devices.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// Kinds of access, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceAccess {
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// Making a node.
    pub mknod: bool,
}

impl DeviceAccess {
    /// All three.
    pub const ALL: DeviceAccess = DeviceAccess {
        read: true,
        write: true,
        mknod: true,
    };
    /// `mknod` only.
    pub const MKNOD: DeviceAccess = DeviceAccess {
        read: false,
        write: false,
        mknod: true,
    };

    /// Reads "rwm" or a part of it.
    pub fn parse(text: &str) -> Option<DeviceAccess> {
        let mut access = DeviceAccess::default();
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        Some(access)
    }

    /// Neither of them.
    pub fn is_empty(self) -> bool {
        self == DeviceAccess::default()
    }

    fn combine(self, other: DeviceAccess, with: fn(bool, bool) -> bool) -> DeviceAccess {
        DeviceAccess {
            read: with(self.read, other.read),
            write: with(self.write, other.write),
            mknod: with(self.mknod, other.mknod),
        }
    }

    pub(crate) fn and(self, other: DeviceAccess) -> DeviceAccess {
        self.combine(other, |a, b| a && b)
    }

    pub(crate) fn or(self, other: DeviceAccess) -> DeviceAccess {
        self.combine(other, |a, b| a || b)
    }

    pub(crate) fn without(self, other: DeviceAccess) -> DeviceAccess {
        self.combine(other, |a, b| a && !b)
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Kind of device.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Kinds of access.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// A rule for everything.
    pub const fn all(allow: bool) -> DeviceRule {
        DeviceRule {
            allow,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        }
    }

    /// Allows a character device.
    pub const fn allow_char(
        major: Option<u32>,
        minor: Option<u32>,
        access: DeviceAccess,
    ) -> DeviceRule {
        DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major,
            minor,
            access,
        }
    }

    /// Allows a block device.
    pub const fn allow_block(
        major: Option<u32>,
        minor: Option<u32>,
        access: DeviceAccess,
    ) -> DeviceRule {
        DeviceRule {
            allow: true,
            kind: DeviceKind::Block,
            major,
            minor,
            access,
        }
    }

    /// Whether the rule is for every device and access, so that no rule before it matters.
    pub fn is_universal(&self) -> bool {
        *self == DeviceRule::all(self.allow)
    }

    /// Every device that `other` is for, this rule is for too (accesses aside).
    fn covers(&self, other: &DeviceRule) -> bool {
        (self.kind == DeviceKind::All || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    /// The devices that both rules are for (accesses aside), as (kind, major, minor).
    fn intersection(&self, other: &DeviceRule) -> Option<(DeviceKind, Option<u32>, Option<u32>)> {
        let kind = match (self.kind, other.kind) {
            (DeviceKind::All, kind) | (kind, DeviceKind::All) => kind,
            (a, b) if a == b => a,
            _ => return None,
        };
        let number = |a: Option<u32>, b: Option<u32>| match (a, b) {
            (None, number) | (number, None) => Some(number),
            (a, b) if a == b => Some(a),
            _ => None,
        };
        Some((
            kind,
            number(self.major, other.major)?,
            number(self.minor, other.minor)?,
        ))
    }

    /// The line that v1 takes in `devices.allow` and `devices.deny`.
    fn line(&self) -> String {
        let kind = match self.kind {
            DeviceKind::All => return "a".into(),
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number =
            |number: Option<u32>| number.map_or_else(|| "*".into(), |number| number.to_string());
        format!(
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            if self.allow { "allow" } else { "deny" },
            self.line()
        )
    }
}

/// An ordered list of rules; see the module for what it means. Empty: every device that the parent cgroup allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceRules {
    rules: Vec<DeviceRule>,
}

/// What v1 is told: a default, then exceptions to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LegacyDevices {
    /// Whether a device without an exception is allowed.
    pub allow_by_default: bool,
    /// Lines for `devices.allow` (if denied by default) or `devices.deny` (if allowed).
    pub exceptions: Vec<String>,
}

impl DeviceRules {
    /// No rule: for privileged containers, and for user namespaces of ordinary users, who cannot restrict devices and
    /// need not, since the kernel lets no device node be made or used there.
    pub fn unrestricted() -> DeviceRules {
        DeviceRules::default()
    }

    /// What Docker and runc give every container: nodes may be made, and null, zero, full, random, urandom, tty,
    /// console, ptmx and pseudo-terminals used.
    pub fn docker_default() -> DeviceRules {
        let mut rules = vec![
            DeviceRule::all(false),
            DeviceRule::allow_char(None, None, DeviceAccess::MKNOD),
            DeviceRule::allow_block(None, None, DeviceAccess::MKNOD),
        ];
        let used = [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
        ];
        rules.extend(used.map(|(major, minor)| {
            DeviceRule::allow_char(Some(major), Some(minor), DeviceAccess::ALL)
        }));
        rules.push(DeviceRule::allow_char(Some(136), None, DeviceAccess::ALL));
        DeviceRules { rules }
    }

    /// Takes the rules of an OCI document.
    ///
    /// # Errors
    /// [`Error::InvalidDeviceRule`] for a kind, number or access that is none.
    pub fn from_oci(devices: &[LinuxDeviceCgroup]) -> Result<DeviceRules> {
        let mut rules = DeviceRules::default();
        for device in devices {
            let invalid = |reason: &str| Error::InvalidDeviceRule {
                rule: format!("{} {device}", if device.allow() { "allow" } else { "deny" }),
                reason: reason.to_owned(),
            };
            let kind = match device.typ().unwrap_or_default() {
                LinuxDeviceType::A => DeviceKind::All,
                LinuxDeviceType::B => DeviceKind::Block,
                LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
                LinuxDeviceType::P => {
                    return Err(invalid("a FIFO is not a device that can be restricted"));
                }
            };
            // -1 is how older documents write "any".
            let number = |number: Option<i64>| match number {
                None | Some(-1) => Ok(None),
                Some(number) => u32::try_from(number)
                    .ok()
                    .filter(|number| i32::try_from(*number).is_ok())
                    .map(Some)
                    .ok_or_else(|| invalid("the device number is out of range")),
            };
            let access = match device.access().as_deref() {
                // A rule without access is for all of it, as runc and crun read it.
                None | Some("") => DeviceAccess::ALL,
                Some(access) => DeviceAccess::parse(access)
                    .ok_or_else(|| invalid("access is made of the letters r, w and m"))?,
            };
            let (major, minor) = (number(device.major())?, number(device.minor())?);
            rules.rules.push(DeviceRule {
                allow: device.allow(),
                kind,
                major,
                minor,
                access,
            });
        }
        Ok(rules)
    }

    /// Adds a rule; it takes precedence over those before it.
    pub fn push(&mut self, rule: DeviceRule) {
        self.rules.push(rule);
    }

    /// The rules in order.
    pub fn rules(&self) -> &[DeviceRule] {
        &self.rules
    }

    /// Whether there is no rule at all.
    pub fn is_unrestricted(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a request is allowed; the definition that both kernel forms are tested against.
    pub fn allows(&self, kind: DeviceKind, major: u32, minor: u32, access: DeviceAccess) -> bool {
        let single = [
            DeviceAccess {
                read: access.read,
                ..DeviceAccess::default()
            },
            DeviceAccess {
                write: access.write,
                ..DeviceAccess::default()
            },
            DeviceAccess {
                mknod: access.mknod,
                ..DeviceAccess::default()
            },
        ];
        let request = DeviceRule {
            allow: true,
            kind,
            major: Some(major),
            minor: Some(minor),
            access,
        };
        single.into_iter().filter(|bit| !bit.is_empty()).all(|bit| {
            self.rules
                .iter()
                .rev()
                .find(|rule| rule.covers(&request) && !rule.access.and(bit).is_empty())
                .is_none_or(|rule| rule.allow)
        })
    }

    /// The form for v1.
    ///
    /// # Errors
    /// [`Error::InvalidDeviceRule`] when v1 has no way to say it.
    pub(crate) fn legacy(&self) -> Result<LegacyDevices> {
        let mut allow_by_default = true;
        let mut exceptions: Vec<DeviceRule> = Vec::new();
        for rule in self.rules.iter().flat_map(split_by_kind) {
            if rule.access.is_empty() {
                continue;
            }
            if rule.is_universal() {
                allow_by_default = rule.allow;
                exceptions.clear();
            } else if rule.allow != allow_by_default {
                exceptions.push(rule);
            } else {
                // The rule takes back exceptions made before it.
                for exception in &mut exceptions {
                    if rule.intersection(exception).is_none()
                        || exception.access.and(rule.access).is_empty()
                    {
                        continue;
                    }
                    if !rule.covers(exception) {
                        return Err(Error::InvalidDeviceRule {
                            rule: rule.to_string(),
                            reason: format!(
                                "cgroup v1 cannot take a part back from the earlier, wider rule \"{exception}\"; list single devices there, or put this rule first"
                            ),
                        });
                    }
                    exception.access = exception.access.without(rule.access);
                }
                exceptions.retain(|exception| !exception.access.is_empty());
            }
        }
        merge_overlaps(&mut exceptions);
        let exceptions = exceptions.iter().map(DeviceRule::line).collect();
        Ok(LegacyDevices {
            allow_by_default,
            exceptions,
        })
    }
}

/// v1 reads every line that begins with "a" as "everything", whatever follows: only the universal rule may use it.
fn split_by_kind(rule: &DeviceRule) -> Vec<DeviceRule> {
    if rule.kind != DeviceKind::All || rule.is_universal() {
        return vec![*rule];
    }
    [DeviceKind::Block, DeviceKind::Char]
        .map(|kind| DeviceRule { kind, ..*rule })
        .to_vec()
}

/// v1 wants one exception to grant all of a request (read and write, say), so accesses that several exceptions give to
/// the same devices are gathered in one for just those devices.
fn merge_overlaps(exceptions: &mut Vec<DeviceRule>) {
    let mut index = 0;
    while index < exceptions.len() {
        for other in 0..index {
            let (a, b) = (exceptions[other], exceptions[index]);
            let Some((kind, major, minor)) = a.intersection(&b) else {
                continue;
            };
            let access = a.access.or(b.access);
            let same = |e: &DeviceRule| (e.kind, e.major, e.minor) == (kind, major, minor);
            match exceptions.iter_mut().find(|e| same(e)) {
                Some(exception) => exception.access = exception.access.or(access),
                None if access == a.access || access == b.access => {}
                None => exceptions.push(DeviceRule {
                    kind,
                    major,
                    minor,
                    access,
                    ..a
                }),
            }
        }
        index += 1;
    }
    let mut kept: Vec<DeviceRule> = Vec::new();
    for exception in exceptions.drain(..) {
        let key = (exception.kind, exception.major, exception.minor);
        match kept.iter_mut().find(|e| (e.kind, e.major, e.minor) == key) {
            Some(same) => same.access = same.access.or(exception.access),
            None => kept.push(exception),
        }
    }
    *exceptions = kept;
}
