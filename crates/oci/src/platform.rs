//! Platforms: what an image was built for, and which of several a host runs best.
//!
//! Names are Go's, as the image specification wants them (`amd64`, `arm64`), and other spellings are brought to them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::shorten;

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected OS/ARCHITECTURE[/VARIANT], for example linux/arm64/v8")]
pub struct PlatformError(String);

/// Operating system, architecture and variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `riscv64` ….
    pub architecture: String,
    /// `v7`, `v8`, `v3` …; none is the architecture's base level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform from its parts, each brought to its usual spelling.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, implied) = normal_architecture(architecture);
        let variant = match variant.map(str::to_ascii_lowercase) {
            Some(variant) if variant.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(format!("v{variant}"))
            }
            Some(variant) if !variant.is_empty() => Some(variant),
            _ => implied.map(str::to_owned),
        };
        Platform {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
        }
    }

    /// What this binary's host runs. On x86-64 the variant is the micro-architecture level that the CPU has.
    pub fn host() -> Platform {
        let mut host = Platform::new("linux", std::env::consts::ARCH, None);
        #[cfg(target_arch = "x86_64")]
        {
            host.variant = Some(format!("v{}", x86_level()));
        }
        if host.architecture == "arm64" && host.variant.is_none() {
            host.variant = Some("v8".to_owned());
        }
        host
    }

    /// How well a host of this platform runs `candidate`: none is not at all, higher is better.
    ///
    /// A higher level of the same architecture runs what was built for a lower one; a candidate without a variant
    /// counts as the lowest level. A 64-bit Arm or x86 host also runs 32-bit programs, less well.
    pub fn rank(&self, candidate: &Platform) -> Option<u32> {
        if self.os != candidate.os {
            return None;
        }
        let other = match (self.architecture.as_str(), candidate.architecture.as_str()) {
            (ours, theirs) if ours == theirs => {
                let (ours, theirs) = (self.level(), candidate.level());
                return (theirs <= ours).then_some(100 + theirs);
            }
            ("amd64", "386") => 1,
            ("arm64", "arm") => candidate.level(),
            _ => return None,
        };
        Some(other)
    }

    fn level(&self) -> u32 {
        let base = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        match self
            .variant
            .as_deref()
            .map(|variant| variant.trim_start_matches('v'))
        {
            None => base,
            // "v8.1" and the like: only the major level decides what runs.
            Some(digits) => digits
                .split('.')
                .next()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(base),
        }
    }
}

fn normal_architecture(name: &str) -> (String, Option<&'static str>) {
    let lower = name.to_ascii_lowercase();
    let (normal, variant) = match lower.as_str() {
        "x86_64" | "x86-64" => ("amd64", None),
        "i386" | "i686" | "x86" => ("386", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "powerpc64le" => ("ppc64le", None),
        other => (other, None),
    };
    (normal.to_owned(), variant)
}

#[cfg(target_arch = "x86_64")]
fn x86_level() -> u32 {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
    let third = has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let fourth = has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    match (second, third, fourth) {
        (true, true, true) => 4,
        (true, true, false) => 3,
        (true, false, _) => 2,
        (false, ..) => 1,
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// `linux/amd64`, `linux/arm/v7`, or an architecture alone (then the system is Linux).
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let sound = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !parts.iter().all(sound) {
            return Err(PlatformError(shorten(text)));
        }
        match parts[..] {
            ["linux"] => Ok(Platform::host()),
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(PlatformError(shorten(text))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    #[test]
    fn spellings_are_normalised() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("Linux/ARM/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/386", "linux/386"),
        ] {
            assert_eq!(platform(text).to_string(), normal);
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_best_runnable_level_ranks_highest() {
        let host = platform("linux/amd64/v3");
        assert!(host.rank(&platform("linux/amd64/v3")) > host.rank(&platform("linux/amd64")));
        assert!(host.rank(&platform("linux/amd64")) > host.rank(&platform("linux/386")));
        assert_eq!(host.rank(&platform("linux/amd64/v4")), None);
        assert_eq!(host.rank(&platform("linux/arm64")), None);
        assert_eq!(host.rank(&platform("windows/amd64")), None);
        let arm = platform("linux/arm64/v8");
        assert!(arm.rank(&platform("linux/arm64")) > arm.rank(&platform("linux/arm/v7")));
        assert!(arm.rank(&platform("linux/arm/v7")) > arm.rank(&platform("linux/arm/v6")));
        assert_eq!(
            platform("linux/arm/v6").rank(&platform("linux/arm/v7")),
            None
        );
    }

    #[test]
    fn host_runs_images_of_its_own_base_level() {
        let host = Platform::host();
        assert!(
            host.rank(&Platform::new("linux", std::env::consts::ARCH, None))
                .is_some()
        );
    }
}
