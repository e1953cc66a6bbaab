//! Packages of any Debian release, through an apt that has lists, cache and state of its own: the system's are neither
//! read nor changed, and nothing is installed.
//!
//! Invariants: what is unpacked was verified by apt against the archive's keys; an expired Release is good enough,
//! because what is wanted is a kernel to test on and not the latest security fix.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Problem, Result, output, passes};
use crate::needs;

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt for one release.
pub(super) struct Apt {
    dir: PathBuf,
    release: &'static str,
}

/// What there must be for any of this, or the reason why it cannot be.
pub(super) fn missing() -> Option<String> {
    ["apt-get", "dpkg-deb", "tar"]
        .iter()
        .find(|program| !needs::is_installed(program))
        .map(|program| {
            format!("Debian's kernels are had through {program}, which is not installed")
        })
        .or_else(|| {
            let keys = !Path::new(KEYS).exists();
            keys.then(|| format!("no {KEYS}: install debian-archive-keyring"))
        })
}

impl Apt {
    /// Makes one in `dir` for `release` and reads the archive's lists.
    pub(super) fn open(dir: &Path, release: &'static str) -> Result<Apt> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).problem(|| format!("cannot make {}", sub.display()))?;
        }
        let path = dir.display();
        // Proxies and their like stay as the administrator set them.
        let transport = output(Command::new("apt-config").args(["dump", "Acquire"]))?;
        let settings = format!(
            "{transport}\n\
             Dir::State \"{path}\";\nDir::State::lists \"{path}/lists\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{path}/cache\";\nDir::Etc::sourcelist \"{path}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\nAcquire::Check-Valid-Until \"false\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"\";\nAPT::Architecture \"amd64\";\n\
             APT::Install-Recommends \"false\";\n"
        );
        let source = format!("deb [signed-by={KEYS}] {} {release} main\n", mirror()?);
        for (name, text) in [("apt.conf", settings), ("sources.list", source)] {
            let file = dir.join(name);
            fs::write(&file, text).problem(|| format!("cannot write {}", file.display()))?;
        }
        let apt = Apt {
            dir: dir.to_owned(),
            release,
        };
        passes(apt.get(&["update", "-qq"]))?;
        Ok(apt)
    }

    fn get(&self, args: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command
            .args(args)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    /// Unpacks those of `packages` and of what they depend on whose names `wanted` takes into `root`; gives their
    /// names.
    pub(super) fn unpack(
        &self,
        packages: &[&str],
        wanted: impl Fn(&str) -> bool,
        root: &Path,
    ) -> Result<Vec<String>> {
        let mut simulated = self.get(&["install", "-s", "-qq", "-y"]);
        let names = selected(&output(simulated.args(packages))?, wanted);
        if names.is_empty() {
            let release = self.release;
            return Err(format!(
                "{packages:?} of Debian {release} need no package that is known here"
            ));
        }
        let downloads = tempfile::tempdir_in(&self.dir)
            .problem(|| format!("cannot make a folder in {}", self.dir.display()))?;
        let mut download = self.get(&["download", "-qq"]);
        passes(download.args(&names).current_dir(downloads.path()))?;
        let mut files: Vec<PathBuf> = fs::read_dir(downloads.path())
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .problem(|| format!("cannot read {}", downloads.path().display()))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
        files.sort();
        for file in &files {
            unpack_file(file, root)?;
        }
        Ok(names)
    }
}

/// The packages that a simulated installation names: `Inst NAME (VERSION ARCHIVE [ARCHITECTURE])`.
fn selected(simulation: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .filter(|name| wanted(name))
        .map(str::to_owned)
        .collect()
}

/// As dpkg would, except that a folder stays the symbolic link that it is (`/bin` → `usr/bin`).
fn unpack_file(package: &Path, root: &Path) -> Result<()> {
    let mut contents = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .problem(|| "cannot run dpkg-deb".to_owned())?;
    let tar = contents.stdout.take().expect("it is piped");
    passes(
        Command::new("tar")
            .args(["-x", "-p", "--keep-directory-symlink", "-C"])
            .arg(root)
            .stdin(tar),
    )?;
    match contents.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("dpkg-deb on {}: {status}", package.display())),
        Err(error) => Err(format!("dpkg-deb on {}: {error}", package.display())),
    }
}

/// The Debian mirror that the system uses already; Debian's own where it uses none.
fn mirror() -> Result<String> {
    let known = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    Ok(known
        .lines()
        .find(|site| site.trim_end_matches('/').ends_with("/debian"))
        .unwrap_or("http://deb.debian.org/debian")
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_a_simulation_are_those_to_be_installed() {
        let text = "NOTE: This is only a simulation!\n\
                    Inst linux-base (4.12 Debian:12.1/stable [all])\n\
                    Inst linux-image-6.1.0-1-amd64 (6.1.1-1 Debian:12.1/stable [amd64]) []\n\
                    Conf linux-base (4.12 Debian:12.1/stable [all])\n";
        assert_eq!(
            selected(text, |name| name.starts_with("linux-image")),
            ["linux-image-6.1.0-1-amd64"]
        );
        assert_eq!(selected(text, |_| true).len(), 2);
    }
}
