//! A document's rules, by number: read once, flat, with one allocation a list.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
};

use super::syscalls::{ARM_PRIVATE, X32_BIT, lookup};
use super::{Architecture, Error};

/// `SECCOMP_RET_*` for an action of the document.
pub(super) fn action_value(
    action: Action,
    errno: Option<u32>,
    subject: impl Fn() -> String,
) -> Result<u32, Error> {
    let max = match action {
        Action::ScmpActErrno => 4095, // MAX_ERRNO: the kernel cuts there.
        Action::ScmpActTrace => 0xffff,
        _ if errno.is_some() => {
            return Err(Error::ErrnoNotTaken {
                subject: subject(),
                action,
            });
        }
        _ => return Ok(action.as_u32(None)),
    };
    match errno {
        Some(value) if value > max => Err(Error::ErrnoRange {
            subject: subject(),
            action,
            value,
            max,
        }),
        _ => Ok(action.as_u32(errno)),
    }
}

/// One comparison of a rule.
#[derive(Clone, Copy)]
pub(super) struct Condition {
    pub(super) argument: u32,
    pub(super) operator: Operator,
    pub(super) value: u64,
    pub(super) value_two: u64,
}

/// What its conditions (a range of all conditions) lead to.
struct Rule {
    conditions: (usize, usize),
    action: u32,
}

/// The rules of a document for some architectures.
pub(super) struct Rules {
    conditions: Vec<Condition>,
    rules: Vec<Rule>,
    /// For each architecture (by its discriminant) `number << 32 | index of the rule`, sorted.
    pub(super) keys: [Vec<u64>; 6],
    /// The largest ordinary number that any rule names.
    pub(super) largest: [Option<u32>; 6],
    /// Whether any rule asks an agent.
    pub(super) notifies: bool,
}

impl Rules {
    /// Reads what `profile` says for `architectures`.
    pub(super) fn read(
        profile: &LinuxSeccomp,
        architectures: &[Architecture],
    ) -> Result<Self, Error> {
        let mut this = Self {
            conditions: vec![],
            rules: vec![],
            keys: Default::default(),
            largest: [None; 6],
            notifies: false,
        };
        for (position, entry) in profile.syscalls().iter().flatten().enumerate() {
            let names = entry.names();
            if names.is_empty() || names.iter().any(String::is_empty) {
                return Err(Error::NoName { rule: position });
            }
            let action = action_value(entry.action(), entry.errno_ret(), || names[0].clone())?;
            if entry.action() == Action::ScmpActNotify {
                if names.iter().any(|name| name == "write") {
                    return Err(Error::NotifyImpossible {
                        subject: "write".into(),
                    });
                }
                this.notifies = true;
            }
            let first = this.rules.len();
            this.add(
                entry.args().as_deref().unwrap_or_default(),
                action,
                &names[0],
            )?;
            for numbers in names.iter().filter_map(|name| lookup(name)) {
                for &architecture in architectures {
                    let Some(number) = numbers.on(architecture) else {
                        continue;
                    };
                    let index = architecture as usize;
                    if !is_fixed(architecture, number) {
                        this.largest[index] = this.largest[index].max(Some(number));
                    }
                    let keys = &mut this.keys[index];
                    keys.extend(
                        (first..this.rules.len()).map(|rule| u64::from(number) << 32 | rule as u64),
                    );
                }
            }
        }
        for keys in &mut this.keys {
            keys.sort_unstable();
        }
        Ok(this)
    }

    /// One rule, or one for each condition where several are about the same argument.
    fn add(&mut self, arguments: &[LinuxSeccompArg], action: u32, name: &str) -> Result<(), Error> {
        let start = self.conditions.len();
        let mut seen = [false; 6];
        let mut repeated = false;
        for argument in arguments {
            let index = argument.index();
            let slot = seen.get_mut(index).ok_or_else(|| Error::ArgumentIndex {
                syscall: name.into(),
                index,
            })?;
            repeated |= std::mem::replace(slot, true);
            self.conditions.push(Condition {
                argument: index as u32,
                operator: argument.op(),
                value: argument.value(),
                value_two: argument.value_two().unwrap_or(0),
            });
        }
        let end = self.conditions.len();
        if repeated {
            self.rules.extend((start..end).map(|at| Rule {
                conditions: (at, at + 1),
                action,
            }));
        } else {
            self.rules.push(Rule {
                conditions: (start, end),
                action,
            });
        }
        Ok(())
    }

    pub(super) fn rule(&self, key: u64) -> (&[Condition], u32) {
        let rule = &self.rules[key as u32 as usize];
        (
            &self.conditions[rule.conditions.0..rule.conditions.1],
            rule.action,
        )
    }
}

/// Numbers that were given out once and for all, above those that still grow.
pub(super) fn is_fixed(architecture: Architecture, number: u32) -> bool {
    fixed_range(architecture).is_some_and(|(first, end)| (first..end).contains(&number))
}

pub(super) fn fixed_range(architecture: Architecture) -> Option<(u32, u32)> {
    match architecture {
        Architecture::X32 => Some((X32_BIT + 512, X32_BIT + 548)),
        Architecture::Arm => Some((ARM_PRIVATE, ARM_PRIVATE + 0x1_0000)),
        _ => None,
    }
}
