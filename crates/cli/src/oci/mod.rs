//! `coracle oci`, the door for those who drive an OCI runtime: Podman, Docker, containerd, Slurm.
//!
//! The command line is runc's, since that is what they send; docs/oci-runtime.md is the contract. A door of its own: options,
//! log, exit codes and state are not those of `coracle`'s verbs. One file a verb, which parses, calls
//! [`coracle_engine::bundle`] once, and renders.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod globals;
mod inherited;
mod kill;
mod list;
mod log;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command};
use coracle_engine::bundle::Bundles;

use self::globals::First;
use self::log::Log;
use crate::error::Error;
use crate::output;

/// The first word that leads here.
pub(crate) const WORD: &str = "oci";
/// The end of a program's name that leads here.
pub(crate) const SUFFIX: &str = "-oci";

/// What a verb works with.
pub(crate) struct Runtime {
    bundles: Bundles,
}

/// How a verb is told from others: its name, what it is for, its options, and what it does.
struct Entry {
    name: &'static str,
    about: &'static str,
    arguments: fn(Command) -> Command,
    run: fn(&ArgMatches, &Runtime) -> Result<u8, Error>,
}

/// A verb of the runtime.
trait Verb: Args {
    /// Does it; gives the exit code.
    fn run(self, runtime: &Runtime) -> Result<u8, Error>;
}

const fn entry<V: Verb>(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        about,
        arguments: V::augment_args,
        run: |matches, runtime| {
            V::from_arg_matches(matches)
                .map_err(|error| usage(&error))?
                .run(runtime)
        },
    }
}

const ENTRIES: [Entry; 18] = [
    entry::<create::Create>(
        "create",
        "Make a container from a bundle; its process waits for start",
    ),
    entry::<start::Start>("start", "Start a created container"),
    entry::<state::State>("state", "Print the state of a container"),
    entry::<kill::Kill>("kill", "Send a signal to a container"),
    entry::<delete::Delete>("delete", "Delete a container"),
    entry::<run::Run>(
        "run",
        "Create, start and, in the foreground, delete a container",
    ),
    entry::<exec::Exec>("exec", "Run one more process in a container"),
    entry::<list::List>("list", "List the containers"),
    entry::<ps::Ps>("ps", "List the processes of a container"),
    entry::<pause::Pause>("pause", "Freeze a container"),
    entry::<pause::Resume>("resume", "Thaw a container"),
    entry::<update::Update>("update", "Change the limits of a container"),
    entry::<events::Events>(
        "events",
        "Print what a container uses, and when it runs out of memory",
    ),
    entry::<features::Features>("features", "Print what this runtime can do"),
    entry::<spec::Spec>("spec", "Write a config.json to begin with"),
    entry::<checkpoint::Checkpoint>("checkpoint", "Refused: not available yet"),
    entry::<checkpoint::Restore>("restore", "Refused: not available yet"),
    entry::<globals::Help>("help", "Print this help"),
];

/// The whole door. `arguments` are those behind the program's name, or behind the word `oci`.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut arguments = arguments.peekable();
    let (globals, first) = match globals::take(&mut arguments) {
        Ok(taken) => taken,
        Err(error) => return fail(&Log::default(), &error, 1),
    };
    let verb = match first {
        First::Verb(verb) => verb,
        First::Version => return shown(globals::version()),
        First::Help => return shown(overview()),
    };
    let log = Log::new(&globals);
    let words: Vec<OsString> = arguments.collect();
    let Some(entry) = ENTRIES.iter().find(|entry| entry.name == verb) else {
        let error = Error::usage(
            format!("{verb:?} is no command of the OCI runtime"),
            "`coracle oci --help` lists the commands",
        );
        return fail(&log, &error, 1);
    };
    // What no code of the process's own tells.
    let otherwise = if entry.name == "exec" { 255 } else { 1 };
    let mut command = (entry.arguments)(Command::new(entry.name).about(entry.about))
        .no_binary_name(true)
        .override_usage(format!("coracle oci {} [OPTIONS] …", entry.name));
    let matches = match command.try_get_matches_from_mut(words) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            return shown(error.render().to_string());
        }
        Err(error) => return fail(&log, &usage(&error), otherwise),
    };
    let runtime = match globals.bundles() {
        Ok(bundles) => Runtime { bundles },
        Err(error) => return fail(&log, &error, otherwise),
    };
    let result = (entry.run)(&matches, &runtime);
    for warning in runtime.bundles.take_warnings() {
        log.warn(&warning);
    }
    result.unwrap_or_else(|error| fail(&log, &error, otherwise))
}

fn shown(text: String) -> u8 {
    output::print(&text).map_or_else(|error| fail(&Log::default(), &error, 1), |()| 0)
}

/// Tells an error; gives the exit code.
fn fail(log: &Log, error: &Error, otherwise: u8) -> u8 {
    let mut message = sentence(error);
    if let Error::Engine(error) = error
        && error.exit_code() == 127
    {
        // Docker and Podman tell a command that is not there from other failures by these words.
        message.push_str(": executable file not found in $PATH");
    }
    log.error(&message);
    match error {
        // Its file holds what 126 and 127 mean here as everywhere.
        Error::Engine(error) if error.exit_code() != 125 => error.exit_code(),
        _ => otherwise,
    }
}

/// An error with its causes and hint in one line, as callers read it from the log.
fn sentence(error: &Error) -> String {
    let mut line = String::new();
    for part in error.render().lines() {
        let (separator, text) = match part.split_once(": ") {
            Some(("error", text)) => ("", text.to_owned()),
            Some(("caused by", text)) => (": ", text.to_owned()),
            Some(("hint", text)) => ("", format!(" ({text})")),
            _ => (" ", part.to_owned()),
        };
        line.push_str(separator);
        line.push_str(&text);
    }
    line
}

fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let problem = text.split("\n\n").next().unwrap_or_default();
    let problem = problem.trim_start_matches("error: ");
    Error::usage(
        problem.split_whitespace().collect::<Vec<_>>().join(" "),
        "`coracle oci COMMAND --help` shows what it takes",
    )
}

fn overview() -> String {
    let mut text = String::from(
        "An OCI runtime: containers from bundles, without a daemon\n\nUsage: coracle oci [OPTIONS] COMMAND …\n\nCommands:\n",
    );
    for entry in &ENTRIES {
        text.push_str(&format!("  {:<11} {}\n", entry.name, entry.about));
    }
    text.push_str(globals::HELP);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verbs_options_are_sound() {
        for entry in &ENTRIES {
            (entry.arguments)(Command::new(entry.name)).debug_assert();
        }
    }

    #[test]
    fn an_error_is_one_line() {
        let source = std::io::Error::from_raw_os_error(2);
        let error = Error::File {
            action: "read",
            path: "/x".into(),
            source,
        };
        assert_eq!(
            sentence(&error),
            "cannot read /x: No such file or directory (os error 2)"
        );
        assert_eq!(sentence(&Error::usage("no", "do")), "no (do)");
    }
}
