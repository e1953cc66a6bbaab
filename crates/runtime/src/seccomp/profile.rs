//! Reading a profile file: the OCI form, or Docker's, which says for whom each rule is.
//!
//! Docker's form is the OCI form plus: `archMap` in place of `architectures`; in a rule `name` in place of `names`,
//! a `comment`, and `includes` and `excludes` by capability, architecture and kernel version. Resolving it leaves the
//! OCI form. Podman writes an errno's name (`errno`, `defaultErrno`) beside its number: the number is used, and a name
//! alone is refused. Other unknown fields are passed over, as those of the OCI form are.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Architecture, Error};

/// Whom a profile is resolved for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The capabilities that the container's processes can have: its bounding set, as Docker has it.
    pub capabilities: &'a HashSet<Capability>,
    /// The kernel's own architecture.
    pub architecture: Architecture,
    /// The running kernel.
    pub kernel: KernelVersion,
}

impl<'a> Context<'a> {
    /// For this host: its architecture and its running kernel.
    ///
    /// # Errors
    /// [`Error::NativeArchitecture`], [`Error::KernelRelease`].
    pub fn host(capabilities: &'a HashSet<Capability>) -> Result<Self, Error> {
        Ok(Self {
            capabilities,
            architecture: Architecture::native()?,
            kernel: KernelVersion::running()?,
        })
    }
}

/// The two numbers that Docker's `minKernel` compares. Used for that document field alone: features are probed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion {
    /// First number of the release.
    pub major: u32,
    /// Second number of the release.
    pub minor: u32,
}

impl KernelVersion {
    /// The running kernel's, from uname(2).
    ///
    /// # Errors
    /// [`Error::KernelRelease`] if the release does not begin with two numbers.
    pub fn running() -> Result<Self, Error> {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Self::parse(&release).ok_or(Error::KernelRelease { release })
    }

    /// The two numbers that `text` begins with (`6.18.4-arch1` is 6.18).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        Some(Self {
            major: major.parse().ok()?,
            minor: rest[..digits].parse().ok()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    arch_map: Option<Vec<ArchitectureMap>>,
    default_errno: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno: Option<String>,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Filter {
    fn names_architecture(&self, context: &Context<'_>) -> Option<bool> {
        let arches = self.arches.as_deref().filter(|arches| !arches.is_empty())?;
        Some(
            arches
                .iter()
                .any(|name| name == context.architecture.docker()),
        )
    }

    fn kernel_reached(&self, context: &Context<'_>) -> Result<Option<bool>, Error> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let least = KernelVersion::parse(text).ok_or_else(|| Error::Field {
            field: "minKernel",
            value: text.into(),
            expected: "two numbers, as in 4.8",
        })?;
        Ok(Some(context.kernel >= least))
    }

    fn capabilities<'a>(&'a self, context: &'a Context<'_>) -> impl Iterator<Item = bool> + 'a {
        // A name that this binary does not know is a capability that the container does not have.
        let has = |name: &String| {
            name.parse()
                .is_ok_and(|capability| context.capabilities.contains(&capability))
        };
        self.caps
            .iter()
            .flatten()
            .map(move |name| match name.strip_prefix("CAP_") {
                Some(rest) => has(&rest.into()),
                None => false,
            })
    }

    /// As `includes`: everything asked for must be there.
    fn includes(&self, context: &Context<'_>) -> Result<bool, Error> {
        Ok(self.names_architecture(context) != Some(false)
            && self.capabilities(context).all(|has| has)
            && self.kernel_reached(context)? != Some(false))
    }

    /// As `excludes`: one match is enough.
    fn excludes(&self, context: &Context<'_>) -> Result<bool, Error> {
        Ok(self.names_architecture(context) == Some(true)
            || self.capabilities(context).any(|has| has)
            || self.kernel_reached(context)? == Some(true))
    }
}

/// Reads a profile file's bytes, in either form, and resolves it for `context`.
///
/// # Errors
/// [`Error::Parse`] for anything but such a document, [`Error::Both`] and [`Error::Field`] for a contradiction in it.
pub fn load_profile(json: &[u8], context: &Context<'_>) -> Result<LinuxSeccomp, Error> {
    let mut whole: serde_json::Map<String, Value> =
        serde_json::from_slice(json).map_err(Error::Parse)?;
    let listed = whole
        .get("architectures")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    // Docker's own parts are taken out; what is left is the OCI form without its rules.
    let mut docker = serde_json::Map::new();
    for field in ["archMap", "defaultErrno", "syscalls"] {
        docker.extend(whole.remove(field).map(|value| (field.to_owned(), value)));
    }
    let mut profile: LinuxSeccomp =
        serde_json::from_value(Value::Object(whole)).map_err(Error::Parse)?;
    let document: Document = serde_json::from_value(Value::Object(docker)).map_err(Error::Parse)?;

    let number = errno_number(
        "defaultErrno",
        document.default_errno,
        profile.default_errno_ret(),
    )?;
    profile.set_default_errno_ret(number);
    let map = document.arch_map.unwrap_or_default();
    if listed && !map.is_empty() {
        return Err(Error::Both {
            first: "architectures",
            second: "archMap",
        });
    }
    if let Some(entry) = map
        .into_iter()
        .find(|entry| entry.architecture == context.architecture.document())
    {
        let subordinate = entry.sub_architectures.unwrap_or_default();
        profile.set_architectures(Some(
            std::iter::once(entry.architecture)
                .chain(subordinate)
                .collect(),
        ));
    }
    let mut rules = vec![];
    for entry in document.syscalls.unwrap_or_default() {
        rules.extend(entry.resolve(context)?);
    }
    profile.set_syscalls(Some(rules));
    Ok(profile)
}

/// The number, where it is not left to a name alone.
fn errno_number(
    field: &'static str,
    name: Option<String>,
    number: Option<u32>,
) -> Result<Option<u32>, Error> {
    match name.filter(|name| !name.is_empty()) {
        Some(value) if number.is_none() => Err(Error::Field {
            field,
            value,
            expected: "the errno's number as well, in errnoRet or defaultErrnoRet",
        }),
        _ => Ok(number),
    }
}

impl Entry {
    /// The rule in the OCI form, if it is for this container.
    fn resolve(self, context: &Context<'_>) -> Result<Option<LinuxSyscall>, Error> {
        let names = match (
            self.name.filter(|name| !name.is_empty()),
            self.names.unwrap_or_default(),
        ) {
            (Some(_), names) if !names.is_empty() => {
                return Err(Error::Both {
                    first: "name",
                    second: "names",
                });
            }
            (Some(name), _) => vec![name],
            (None, names) => names,
        };
        let excluded = self
            .excludes
            .map_or(Ok(false), |filter| filter.excludes(context))?;
        let included = self
            .includes
            .map_or(Ok(true), |filter| filter.includes(context))?;
        if excluded || !included {
            return Ok(None);
        }
        let mut rule = LinuxSyscall::default();
        rule.set_names(names);
        rule.set_action(self.action);
        rule.set_errno_ret(errno_number("errno", self.errno, self.errno_ret)?);
        rule.set_args(self.args.filter(|args| !args.is_empty()));
        Ok(Some(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        json: &str,
        capabilities: &[Capability],
        architecture: Architecture,
    ) -> Result<LinuxSeccomp, Error> {
        let capabilities = capabilities.iter().copied().collect();
        let kernel = KernelVersion {
            major: 5,
            minor: 10,
        };
        load_profile(
            json.as_bytes(),
            &Context {
                capabilities: &capabilities,
                architecture,
                kernel,
            },
        )
    }

    /// The names of the rules that are left of one rule `a` with these filters.
    fn left(filters: &str, capabilities: &[Capability], architecture: Architecture) -> usize {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",{filters}}}]}}"#
        );
        load(&json, capabilities, architecture)
            .expect("profile")
            .syscalls()
            .as_ref()
            .map_or(0, Vec::len)
    }

    #[test]
    fn oci_form_is_taken_as_it_is() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86"],
            "flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/agent","listenerMetadata":"m",
            "syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":13,
              "args":[{"index":0,"value":40,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let expected: LinuxSeccomp = serde_json::from_str(json).expect("OCI form");
        assert_eq!(
            load(json, &[], Architecture::X86_64).expect("profile"),
            expected
        );
    }

    #[test]
    fn rules_are_for_those_whom_the_filters_name() {
        use Architecture::{Aarch64, X86_64};
        use Capability::{SysAdmin, SysPtrace};
        for (filters, capabilities, architecture, expected) in [
            (r#""includes":{}"#, &[][..], X86_64, 1),
            (
                r#""includes":null,"excludes":null,"comment":"x""#,
                &[],
                X86_64,
                1,
            ),
            (r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#, &[], X86_64, 0),
            (
                r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#,
                &[SysAdmin],
                X86_64,
                1,
            ),
            (
                r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_SYS_PTRACE"]}"#,
                &[SysAdmin],
                X86_64,
                0,
            ),
            (
                r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_SYS_PTRACE"]}"#,
                &[SysAdmin, SysPtrace],
                X86_64,
                1,
            ),
            (
                r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#,
                &[SysAdmin],
                X86_64,
                0,
            ),
            (
                r#""excludes":{"caps":["CAP_SYS_ADMIN","CAP_SYS_PTRACE"]}"#,
                &[SysAdmin],
                X86_64,
                0,
            ),
            (r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#, &[], X86_64, 1),
            (
                r#""includes":{"caps":["CAP_OF_TOMORROW"]}"#,
                &[SysAdmin],
                X86_64,
                0,
            ),
            (r#""includes":{"arches":["amd64","x32"]}"#, &[], X86_64, 1),
            (r#""includes":{"arches":["amd64","x32"]}"#, &[], Aarch64, 0),
            (r#""excludes":{"arches":["arm64"]}"#, &[], Aarch64, 0),
            (r#""excludes":{"arches":["arm64"]}"#, &[], X86_64, 1),
            (r#""includes":{"minKernel":"4.8"}"#, &[], X86_64, 1),
            (r#""includes":{"minKernel":"5.10"}"#, &[], X86_64, 1),
            (r#""includes":{"minKernel":"5.11"}"#, &[], X86_64, 0),
            (r#""excludes":{"minKernel":"5.10"}"#, &[], X86_64, 0),
        ] {
            assert_eq!(
                left(filters, capabilities, architecture),
                expected,
                "{filters} {capabilities:?}"
            );
        }
    }

    #[test]
    fn arch_map_gives_the_architectures_of_the_native_one() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[
            {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
            {"architecture":"SCMP_ARCH_RISCV64","subArchitectures":null}],
            "syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":[]}]}"#;
        let of = |architecture| {
            load(json, &[], architecture)
                .expect("profile")
                .architectures()
                .clone()
        };
        assert_eq!(
            of(Architecture::X86_64),
            Some(vec![
                Arch::ScmpArchX86_64,
                Arch::ScmpArchX86,
                Arch::ScmpArchX32
            ])
        );
        assert_eq!(of(Architecture::Riscv64), Some(vec![Arch::ScmpArchRiscv64]));
        assert_eq!(of(Architecture::Aarch64), None);
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for (json, message) in [
            ("", "cannot be read"),
            ("[]", "cannot be read"),
            ("{}", "cannot be read"),
            (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "cannot be read"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                    "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
                "both",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW",
                    "syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "both",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW",
                    "syscalls":[{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}]}"#,
                "minKernel",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW",
                    "syscalls":[{"names":["b"],"action":"SCMP_ACT_ERRNO","errno":"ENOSYS"}]}"#,
                "errno",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS"}"#,
                "defaultErrno",
            ),
        ] {
            let error = load(json, &[], Architecture::X86_64).expect_err(json);
            assert!(error.to_string().contains(message), "{json}: {error}");
        }
    }

    #[test]
    fn kernel_releases_are_read_as_distributions_write_them() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        assert_eq!(KernelVersion::parse("6.18.4-arch1"), version(6, 18));
        assert_eq!(KernelVersion::parse("3.12-1-amd64"), version(3, 12));
        assert_eq!(KernelVersion::parse("4.8"), version(4, 8));
        assert_eq!(KernelVersion::parse("six.1"), None);
        assert_eq!(KernelVersion::parse("6"), None);
        KernelVersion::running().expect("this kernel's release");
    }
}
