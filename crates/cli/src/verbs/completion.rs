//! `completion`.
//!
//! The script for bash is our own: generated ones are 200 kB, and know no names of containers. The others come from clap.

use clap::Command;
use clap_complete::Shell;

use super::{ENTRIES, Entry, GROUPS};
use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: String,
}

impl super::Verb for Completion {
    fn run(self, _door: &Door) -> Result<u8, Error> {
        if self.shell == "bash" {
            return output::print(&bash()).map(|()| 0);
        }
        let shell: Shell = self.shell.parse().map_err(|_| {
            Error::usage(
                format!("there is no completion for {:?}", self.shell),
                "there are bash, elvish, fish, powershell and zsh",
            )
        })?;
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut super::tree(), "coracle", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}

const BEGIN: &str = r#"# Completion for bash: source it, or put it into /usr/share/bash-completion/completions/coracle
_coracle() {
    local cur=${COMP_WORDS[COMP_CWORD]} words=() word skip= verb opts= kind=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $skip ]]; then skip=; continue; fi
        case $word in
            --root|--run-root|--log-level|-l) [[ ${#words[@]} -eq 0 ]] && skip=1 ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done
    verb=${words[0]}
"#;

const END: &str = r#"    esac
    if [[ $cur != -* ]]; then
        case $kind in
            container) opts=$(coracle ps -a --format '{{.Names}}' 2>/dev/null) ;;
            image) opts=$(coracle images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null) ;;
            volume) opts=$(coracle volume ls -q 2>/dev/null) ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$opts" -- "$cur"))
}
complete -o default -F _coracle coracle
"#;

fn bash() -> String {
    let groups: Vec<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
    let mut script = String::from(BEGIN);
    script.push_str(&format!(
        "    case $verb in {}) verb=\"$verb ${{words[1]}}\" ;; esac\n    case $verb in\n",
        groups.join("|")
    ));
    for entry in ENTRIES {
        let names: Vec<_> = entry
            .names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let kind = kind(entry).map_or(String::new(), |kind| format!("; kind={kind}"));
        script.push_str(&format!(
            "        {}) opts=\"{}\"{kind} ;;\n",
            names.join("|"),
            options(entry)
        ));
    }
    for group in &groups {
        let prefix = format!("{group} ");
        let verbs: Vec<_> = names()
            .filter_map(|name| name.strip_prefix(prefix.as_str()))
            .collect();
        script.push_str(&format!(
            "        \"{group} \") opts=\"{}\" ;;\n",
            verbs.join(" ")
        ));
    }
    let first: Vec<_> = names()
        .filter(|name| !name.contains(' '))
        .chain(groups.iter().copied())
        .collect();
    script.push_str(&format!(
        "        \"\") opts=\"{} --help --version --root --run-root --log-level\" ;;\n",
        first.join(" ")
    ));
    script.push_str(END);
    script
}

fn names() -> impl Iterator<Item = &'static str> {
    ENTRIES.iter().flat_map(|entry| entry.names.iter().copied())
}

/// What the words after the options name, by the usage line.
fn kind(entry: &Entry) -> Option<&'static str> {
    [
        ("CONTAINER", "container"),
        ("IMAGE", "image"),
        ("VOLUME", "volume"),
    ]
    .iter()
    .find(|(word, _)| {
        entry
            .usage
            .split(|c: char| !c.is_ascii_uppercase())
            .any(|part| part == *word)
    })
    .map(|(_, kind)| *kind)
}

fn options(entry: &Entry) -> String {
    let command = (entry.arguments)(Command::new(entry.names[0]));
    let mut all: Vec<String> = command
        .get_arguments()
        .flat_map(|argument| {
            let long = argument.get_long_and_visible_aliases().unwrap_or_default();
            long.into_iter()
                .map(|long| format!("--{long}"))
                .collect::<Vec<_>>()
        })
        .collect();
    all.push("--help".into());
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_gets_every_verb_and_option_in_little_space() {
        let script = bash();
        assert!(script.len() < 32 << 10, "{}", script.len());
        for name in names() {
            assert!(script.contains(&format!("\"{name}\"")), "{name}");
        }
        let run = script
            .lines()
            .find(|line| line.contains("\"container run\""))
            .expect("run is there");
        assert!(
            run.contains("--memory ") && run.contains("--net ") && run.ends_with("kind=image ;;"),
            "{run}"
        );
        assert!(script.contains("\"rm\"|\"container rm\"|\"container remove\") opts=\"--force --volumes --help\"; kind=container"));
    }
}
