//! Resource limits and the out-of-memory score.

use coracle_linux::procfs::Proc;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit, getrlimit};

use super::Host;
use crate::Error;
use crate::state::Clamp;

/// A hard limit that the parent raises, since only it may.
#[derive(Debug)]
pub(crate) struct Raise {
    pub(crate) resource: Resource,
    pub(crate) limit: Rlimit,
    pub(crate) name: String,
}

pub(super) struct Resolved {
    /// What the child sets in the end.
    pub(super) exact: Vec<(Resource, Rlimit)>,
    pub(super) raise: Vec<Raise>,
}

pub(super) fn resolve(
    limits: &[PosixRlimit],
    clamp: bool,
    clamped: &mut Vec<Clamp>,
    host: &Host,
) -> Result<Resolved, Error> {
    let mut resolved = Resolved {
        exact: Vec::new(),
        raise: Vec::new(),
    };
    for limit in limits {
        let name = limit.typ().to_string();
        let resource = resource(limit.typ());
        let (mut soft, mut hard) = (finite(limit.soft()), finite(limit.hard()));
        if exceeds(soft, hard) {
            return Err(Error::invalid(
                format!("process.rlimits {name}"),
                "the soft limit is above the hard one",
            ));
        }
        let own = getrlimit(resource);
        if exceeds(hard, own.maximum) {
            if host.may_raise_limits() {
                let limit = Rlimit {
                    current: own.current,
                    maximum: hard,
                };
                resolved.raise.push(Raise {
                    resource,
                    limit,
                    name,
                });
            } else if clamp {
                clamped.push(Clamp {
                    what: name,
                    asked: number(hard),
                    given: number(own.maximum),
                });
                hard = own.maximum;
                if exceeds(soft, hard) {
                    soft = hard;
                }
            } else {
                return Err(Error::invalid(
                    format!("process.rlimits {name}"),
                    format!(
                        "the hard limit {} is above ours, {}, and raising it needs CAP_SYS_RESOURCE",
                        number(hard),
                        number(own.maximum)
                    ),
                ));
            }
        }
        resolved.exact.push((
            resource,
            Rlimit {
                current: soft,
                maximum: hard,
            },
        ));
    }
    Ok(resolved)
}

/// `RLIM_INFINITY` is all ones.
fn finite(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn number(value: Option<u64>) -> i64 {
    value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// `None` is no limit.
fn exceeds(value: Option<u64>, limit: Option<u64>) -> bool {
    match (value, limit) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(value), Some(limit)) => value > limit,
    }
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// The score that is asked for, when it is not the one that the process would have anyway.
pub(super) fn oom_score_adj(document: &Process) -> Result<Option<i32>, Error> {
    let Some(asked) = document.oom_score_adj() else {
        return Ok(None);
    };
    if !(-1000..=1000).contains(&asked) {
        return Err(Error::invalid(
            format!("process.oomScoreAdj {asked}"),
            "it lies between -1000 and 1000",
        ));
    }
    Ok((own_oom_score_adj()? != asked).then_some(asked))
}

/// Ours.
pub(crate) fn own_oom_score_adj() -> Result<i32, Error> {
    let path = format!(
        "{}/oom_score_adj",
        rustix::process::getpid().as_raw_nonzero()
    );
    let fail = |source| Error::host("reading", format!("/proc/{path}"), source);
    let text = Proc::host().map_err(fail)?.read(&path).map_err(fail)?;
    text.trim()
        .parse()
        .map_err(|_| fail(rustix::io::Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_above_every_limit() {
        assert!(exceeds(None, Some(u64::MAX - 1)));
        assert!(!exceeds(None, None));
        assert!(!exceeds(Some(5), None));
        assert!(exceeds(Some(6), Some(5)));
        assert!(!exceeds(Some(5), Some(5)));
    }
}
