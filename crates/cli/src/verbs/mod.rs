//! The verbs. One file each: what may be typed, one call of the engine, and how the answer is shown.
//!
//! [`ENTRIES`] is the whole language: it is searched by hand and only the verb that was typed builds its options, because
//! building sixty takes ten times as long as starting the program. Help, manual pages and completions come from the same
//! table.

mod attach;
mod commit;
mod completion;
mod conform;
mod container_prune;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod export;
mod filter;
mod history;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod logs;
mod man;
mod pause;
mod port;
mod ps;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod stats;
mod stop;
mod system_df;
mod system_prune;
mod tag;
mod top;
mod unpause;
mod update;
mod version;
mod volume_create;
mod volume_inspect;
mod volume_ls;
mod volume_prune;
mod volume_rm;
mod wait;

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::door::Door;
use crate::error::Error;
use crate::output;

pub(crate) use version::print as print_version;

/// One verb: its options as typed, and what it does.
pub(crate) trait Verb: clap::Args + Sized {
    /// Resolves what was typed, calls the engine and renders; gives the exit code.
    fn run(self, door: &Door) -> Result<u8, Error>;
}

/// Where help lists a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// The verbs of a container's life.
    Containers,
    /// What looks at containers.
    Inspection,
    /// Images.
    Images,
    /// Volumes.
    Volumes,
    /// The rest.
    Engine,
}

impl Section {
    const ALL: [(Section, &'static str); 5] = [
        (Section::Containers, "Containers"),
        (Section::Inspection, "Looking at containers"),
        (Section::Images, "Images"),
        (Section::Volumes, "Volumes"),
        (Section::Engine, "Engine"),
    ];
}

/// A verb in the table.
pub(crate) struct Entry {
    /// Every way to type it; the first is the name it goes by.
    names: &'static [&'static str],
    section: Section,
    /// What follows the name.
    usage: &'static str,
    about: &'static str,
    arguments: fn(Command) -> Command,
    run: fn(&ArgMatches, &Door) -> Result<u8, Error>,
}

const fn entry<V: Verb>(
    section: Section,
    names: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
) -> Entry {
    Entry {
        names,
        section,
        usage,
        about,
        arguments: V::augment_args,
        run: enter::<V>,
    }
}

fn enter<V: Verb>(matches: &ArgMatches, door: &Door) -> Result<u8, Error> {
    let verb = V::from_arg_matches(matches).map_err(|error| usage_error(&error, ""))?;
    verb.run(door)
}

use Section::{Containers, Engine, Images, Inspection, Volumes};

/// All verbs, in the order of help.
static ENTRIES: &[Entry] = &[
    entry::<run::Run>(
        Containers,
        &["run", "container run"],
        "[OPTIONS] IMAGE [COMMAND [ARGUMENT…]]",
        "Run a program in a new container",
    ),
    entry::<create::Create>(
        Containers,
        &["create", "container create"],
        "[OPTIONS] IMAGE [COMMAND [ARGUMENT…]]",
        "Make a container without starting it",
    ),
    entry::<start::Start>(
        Containers,
        &["start", "container start"],
        "[OPTIONS] CONTAINER…",
        "Start containers",
    ),
    entry::<stop::Stop>(
        Containers,
        &["stop", "container stop"],
        "[OPTIONS] CONTAINER…",
        "Stop containers",
    ),
    entry::<restart::Restart>(
        Containers,
        &["restart", "container restart"],
        "[OPTIONS] CONTAINER…",
        "Stop containers and start them again",
    ),
    entry::<kill::Kill>(
        Containers,
        &["kill", "container kill"],
        "[OPTIONS] CONTAINER…",
        "Send a signal to containers",
    ),
    entry::<pause::Pause>(
        Containers,
        &["pause", "container pause"],
        "CONTAINER…",
        "Freeze all processes of containers",
    ),
    entry::<unpause::Unpause>(
        Containers,
        &["unpause", "container unpause"],
        "CONTAINER…",
        "Let frozen containers go on",
    ),
    entry::<wait::Wait>(
        Containers,
        &["wait", "container wait"],
        "[OPTIONS] CONTAINER…",
        "Wait until containers end, and print their exit codes",
    ),
    entry::<rm::Rm>(
        Containers,
        &["rm", "container rm", "container remove"],
        "[OPTIONS] CONTAINER…",
        "Remove containers",
    ),
    entry::<exec::Exec>(
        Containers,
        &["exec", "container exec"],
        "[OPTIONS] CONTAINER COMMAND [ARGUMENT…]",
        "Run a program in a running container",
    ),
    entry::<attach::Attach>(
        Containers,
        &["attach", "container attach"],
        "[OPTIONS] CONTAINER",
        "Connect to a running container's input and output",
    ),
    entry::<cp::Cp>(
        Containers,
        &["cp", "container cp"],
        "[OPTIONS] CONTAINER:PATH PATH|- | PATH|- CONTAINER:PATH",
        "Copy files out of or into a container",
    ),
    entry::<rename::Rename>(
        Containers,
        &["rename", "container rename"],
        "CONTAINER NAME",
        "Give a container another name",
    ),
    entry::<update::Update>(
        Containers,
        &["update", "container update"],
        "[OPTIONS] CONTAINER…",
        "Change limits of containers while they run",
    ),
    entry::<container_prune::ContainerPrune>(
        Containers,
        &["container prune"],
        "[OPTIONS]",
        "Remove all stopped containers",
    ),
    entry::<ps::Ps>(
        Inspection,
        &["ps", "container ls", "container list", "container ps", "ls"],
        "[OPTIONS]",
        "List containers",
    ),
    entry::<inspect::Inspect>(
        Inspection,
        &["inspect"],
        "[OPTIONS] NAME…",
        "Show all about containers, images or volumes",
    ),
    entry::<inspect::InspectContainer>(
        Inspection,
        &["container inspect"],
        "[OPTIONS] CONTAINER…",
        "Show all about containers",
    ),
    entry::<logs::Logs>(
        Inspection,
        &["logs", "container logs"],
        "[OPTIONS] CONTAINER",
        "Show what a container wrote",
    ),
    entry::<top::Top>(
        Inspection,
        &["top", "container top"],
        "CONTAINER",
        "List the processes of a container",
    ),
    entry::<stats::Stats>(
        Inspection,
        &["stats", "container stats"],
        "[OPTIONS] [CONTAINER…]",
        "Show what containers use",
    ),
    entry::<port::Port>(
        Inspection,
        &["port", "container port"],
        "CONTAINER [PORT[/PROTOCOL]]",
        "List published ports",
    ),
    entry::<diff::Diff>(
        Inspection,
        &["diff", "container diff"],
        "CONTAINER",
        "List the files that a container added, changed or deleted",
    ),
    entry::<events::Events>(
        Inspection,
        &["events", "system events"],
        "[OPTIONS]",
        "Show what happens",
    ),
    entry::<images::Images>(
        Images,
        &["images", "image ls", "image list"],
        "[OPTIONS] [REFERENCE]",
        "List images",
    ),
    entry::<load::Load>(
        Images,
        &["load", "image load"],
        "[OPTIONS]",
        "Load images from an archive",
    ),
    entry::<save::Save>(
        Images,
        &["save", "image save"],
        "[OPTIONS] IMAGE…",
        "Save images to an archive",
    ),
    entry::<import::Import>(
        Images,
        &["import", "image import"],
        "[OPTIONS] FILE|- [REFERENCE]",
        "Make an image from an archive of files",
    ),
    entry::<commit::Commit>(
        Images,
        &["commit", "container commit"],
        "[OPTIONS] CONTAINER [REFERENCE]",
        "Make an image from a container's changes",
    ),
    entry::<export::Export>(
        Images,
        &["export", "container export"],
        "[OPTIONS] CONTAINER",
        "Write a container's files as an archive",
    ),
    entry::<tag::Tag>(
        Images,
        &["tag", "image tag"],
        "IMAGE REFERENCE",
        "Give an image another name",
    ),
    entry::<rmi::Rmi>(
        Images,
        &["rmi", "image rm", "image remove"],
        "[OPTIONS] IMAGE…",
        "Remove images",
    ),
    entry::<history::History>(
        Images,
        &["history", "image history"],
        "[OPTIONS] IMAGE",
        "Show how an image was made",
    ),
    entry::<inspect::InspectImage>(
        Images,
        &["image inspect"],
        "[OPTIONS] IMAGE…",
        "Show all about images",
    ),
    entry::<image_prune::ImagePrune>(
        Images,
        &["image prune"],
        "[OPTIONS]",
        "Remove images that nothing uses",
    ),
    entry::<volume_create::VolumeCreate>(
        Volumes,
        &["volume create"],
        "[OPTIONS] [NAME]",
        "Make a volume",
    ),
    entry::<volume_ls::VolumeLs>(
        Volumes,
        &["volume ls", "volume list"],
        "[OPTIONS]",
        "List volumes",
    ),
    entry::<volume_inspect::VolumeInspect>(
        Volumes,
        &["volume inspect"],
        "[OPTIONS] VOLUME…",
        "Show all about volumes",
    ),
    entry::<volume_rm::VolumeRm>(
        Volumes,
        &["volume rm", "volume remove"],
        "[OPTIONS] VOLUME…",
        "Remove volumes",
    ),
    entry::<volume_prune::VolumePrune>(
        Volumes,
        &["volume prune"],
        "[OPTIONS]",
        "Remove volumes that no container uses",
    ),
    entry::<info::Info>(
        Engine,
        &["info", "system info"],
        "[OPTIONS]",
        "Show what this host offers and how the engine uses it",
    ),
    entry::<system_df::SystemDf>(
        Engine,
        &["system df"],
        "[OPTIONS]",
        "Show how much disk is used",
    ),
    entry::<system_prune::SystemPrune>(
        Engine,
        &["system prune"],
        "[OPTIONS]",
        "Remove all that is not used",
    ),
    entry::<conform::Conform>(
        Engine,
        &["conform"],
        "[OPTIONS]",
        "Test on this host that limits and isolation hold",
    ),
    entry::<version::Version>(Engine, &["version"], "[OPTIONS]", "Show the version"),
    entry::<completion::Completion>(
        Engine,
        &["completion"],
        "SHELL",
        "Print a completion script for a shell",
    ),
    entry::<man::Man>(
        Engine,
        &["man"],
        "DIRECTORY",
        "Write the manual pages into a directory",
    ),
];

/// Words that only begin a verb.
const GROUPS: &[(&str, &str)] = &[
    ("container", "Containers"),
    ("image", "Images"),
    ("volume", "Volumes"),
    ("system", "The engine as a whole"),
];

/// Finds the verb that begins with `first`, parses what follows and runs it.
pub(crate) fn dispatch(
    first: &str,
    rest: impl Iterator<Item = OsString>,
    door: &Door,
) -> Result<u8, Error> {
    let mut rest = rest.peekable();
    if first == conform::INSIDE {
        return conform::inside(rest);
    }
    let mut typed = first.to_owned();
    if GROUPS.iter().any(|(group, _)| *group == first) {
        match rest.next_if(|word| !word.as_encoded_bytes().starts_with(b"-")) {
            Some(word) => typed = format!("{first} {}", word.to_string_lossy()),
            None => return output::print(&group_help(first)).map(|()| 0),
        }
    }
    if typed == "help" {
        let words: Vec<String> = rest
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        return output::print(&help_about(&words)?).map(|()| 0);
    }
    let entry = find(&typed).ok_or_else(|| unknown(&typed))?;
    let mut command = prepare((entry.arguments)(Command::new(entry.names[0]))).no_binary_name(true);
    match command.try_get_matches_from_mut(rest) {
        Ok(matches) => (entry.run)(&matches, door),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            output::print(&help(entry)).map(|()| 0)
        }
        Err(error) => Err(usage_error(&error, &typed)),
    }
}

fn find(typed: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.names.contains(&typed))
}

/// Turns what clap says into the one form of errors.
fn usage_error(error: &clap::Error, typed: &str) -> Error {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let problem = paragraphs
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
    let tip = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: ").map(str::to_owned))
        // That a value may follow `--` is true and helps nobody here.
        .filter(|tip| !tip.starts_with("to pass"));
    Error::usage(
        problem,
        tip.unwrap_or_else(|| format!("`coracle {typed} --help` shows what it takes")),
    )
}

fn unknown(typed: &str) -> Error {
    let names = ENTRIES
        .iter()
        .flat_map(|entry| entry.names.iter().copied())
        .chain(GROUPS.iter().map(|(group, _)| *group));
    let nearest = names.map(|name| (distance(typed, name), name)).min();
    let hint = match nearest {
        Some((distance, name)) if distance <= 1 + typed.chars().count() / 4 => {
            format!("did you mean `coracle {name}`?")
        }
        _ => "`coracle --help` lists the commands".to_owned(),
    };
    Error::usage(format!("there is no command {typed:?}"), hint)
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Makes a command parse as Docker's do: a boolean takes `=true` or `=false`, any value may begin with a dash, the last
/// of a repeated option stands, and `-h` is help unless the verb has another use for it.
pub(crate) fn prepare(command: Command) -> Command {
    let command = with_help(command).args_override_self(true);
    command.mut_args(|argument| {
        if argument.is_positional() {
            return argument;
        }
        match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_parser(clap::builder::BoolishValueParser::new())
                .default_value("false")
                .default_missing_value("true"),
            ArgAction::Set | ArgAction::Append => argument.allow_hyphen_values(true),
            _ => argument,
        }
    })
}

fn with_help(command: Command) -> Command {
    let taken = command
        .get_arguments()
        .any(|argument| argument.get_short() == Some('h'));
    let help = Arg::new("help")
        .long("help")
        .action(ArgAction::Help)
        .help("Show this help");
    command
        .disable_help_flag(true)
        .arg(if taken { help } else { help.short('h') })
}

/// The command as help, manual and completion describe it, under one of its names.
fn describe(entry: &Entry, name: &'static str) -> Command {
    let last = name.rsplit(' ').next().unwrap_or(name);
    let command = with_help((entry.arguments)(Command::new(last)));
    command
        .about(entry.about)
        .override_usage(format!("coracle {name} {}", entry.usage))
        .bin_name(format!("coracle {name}"))
        .display_name(format!("coracle-{}", name.replace(' ', "-")))
}

/// `coracle VERB --help`.
fn help(entry: &Entry) -> String {
    let mut text = describe(entry, entry.names[0]).render_help().to_string();
    if let [_, others @ ..] = entry.names
        && !others.is_empty()
    {
        let others: Vec<_> = others
            .iter()
            .map(|name| format!("coracle {name}"))
            .collect();
        text.push_str(&format!("\nAlso: {}\n", others.join(", ")));
    }
    text
}

fn help_about(words: &[String]) -> Result<String, Error> {
    let typed = words.join(" ");
    if typed.is_empty() {
        return Ok(overview());
    }
    if GROUPS.iter().any(|(group, _)| *group == typed) {
        return Ok(group_help(&typed));
    }
    find(&typed).map(help).ok_or_else(|| unknown(&typed))
}

fn listing(entries: &[(&str, &str)]) -> String {
    let width = entries
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    entries
        .iter()
        .map(|(name, about)| format!("  {name:width$}  {about}\n"))
        .collect()
}

/// `coracle GROUP --help`.
fn group_help(group: &str) -> String {
    let about = GROUPS
        .iter()
        .find(|(name, _)| *name == group)
        .map_or("", |(_, about)| about);
    let prefix = format!("{group} ");
    let verbs: Vec<(&str, &str)> = ENTRIES
        .iter()
        .filter_map(|entry| {
            Some((
                entry
                    .names
                    .iter()
                    .find_map(|name| name.strip_prefix(&prefix))?,
                entry.about,
            ))
        })
        .collect();
    format!(
        "{about}\n\nUsage: coracle {group} COMMAND\n\nCommands:\n{}\n`coracle {group} COMMAND --help` says more about one.\n",
        listing(&verbs)
    )
}

/// `coracle --help`.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "Run containers: isolated by default, without a daemon\n\n\
         Usage: coracle [OPTIONS] COMMAND\n\n\
         Try:   coracle run --rm @host id\n",
    );
    for (section, title) in Section::ALL {
        let verbs: Vec<_> = ENTRIES
            .iter()
            .filter(|e| e.section == section)
            .map(|e| (e.names[0], e.about))
            .collect();
        text.push_str(&format!("\n{title}:\n{}", listing(&verbs)));
    }
    text.push_str(
        "\nOptions before the command:\n      \
             --root DIR         Where images, containers and volumes are kept\n      \
             --run-root DIR     Where the state of running containers is kept\n  \
         -l, --log-level LEVEL  How much is told: debug, info, warn, error\n  \
         -D, --debug            The same as --log-level debug\n  \
         -v, --version          Show the version\n  \
         -h, --help             Show this help\n\n\
         `coracle COMMAND --help` says more about one.\n",
    );
    text
}

/// The whole language as one command, for manual pages and completions.
fn tree() -> Command {
    let mut root = Command::new("coracle")
        .about("Run containers: isolated by default, without a daemon")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .help("Where images, containers and volumes are kept"),
        )
        .arg(
            Arg::new("run-root")
                .long("run-root")
                .value_name("DIR")
                .help("Where the state of running containers is kept"),
        )
        .arg(
            Arg::new("log-level")
                .long("log-level")
                .short('l')
                .value_name("LEVEL")
                .help("How much is told: debug, info, warn, error"),
        )
        .arg(
            Arg::new("debug")
                .long("debug")
                .short('D')
                .action(ArgAction::SetTrue)
                .help("The same as --log-level debug"),
        );
    for entry in ENTRIES {
        for name in entry.names.iter().filter(|name| !name.contains(' ')) {
            root = root.subcommand(describe(entry, name));
        }
    }
    for (group, about) in GROUPS {
        let mut command = Command::new(*group).about(*about);
        for entry in ENTRIES {
            for name in entry
                .names
                .iter()
                .filter(|name| name.split(' ').next() == Some(*group) && name.contains(' '))
            {
                command = command.subcommand(describe(entry, name));
            }
        }
        root = root.subcommand(command);
    }
    root
}

#[cfg(test)]
mod tests;
