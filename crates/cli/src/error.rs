//! The one error of this door, and the one place where errors are printed.
//!
//! The form is `error: …`, then `caused by: …` for each source that adds something, then at most one `hint: …`.

use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::output;
use crate::template::TemplateError;

/// Exit code of whatever this program itself could not do, as Docker's.
pub(crate) const ENGINE_FAILED: u8 = 125;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] coracle_engine::Error),
    /// The command line makes no sense.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An option's value makes no sense.
    #[error("the value of {option} is wrong: {problem}")]
    Value {
        /// As typed, with its dashes.
        option: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of the caller's could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard input, standard output or the terminal failed.
    #[error("cannot {action}")]
    Terminal {
        /// `write to standard output`, …
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An ordinary user's command could not become root of a user namespace.
    #[error("{doing} failed")]
    Rootless {
        /// The step.
        doing: &'static str,
        /// Why.
        #[source]
        source: rustix::io::Errno,
        /// What to do.
        hint: &'static str,
    },
    /// A `--format` is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Something below the engine that a door may use directly.
    #[error("{action}")]
    Below {
        /// What failed, on what.
        action: String,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
        /// What to do.
        hint: Option<String>,
    },
    /// Several of the things that were named failed; each is printed.
    #[error("several things failed")]
    Several(Vec<Error>),
}

impl Error {
    /// A usage error with a hint.
    pub(crate) fn usage(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            problem: problem.into(),
            hint: Some(hint.into()),
        }
    }

    /// Gives a parser's sentence the option it is about.
    pub(crate) fn value(option: &str) -> impl FnOnce(String) -> Self + use<> {
        let option = option.to_owned();
        move |problem| Self::Value { option, problem }
    }

    /// Gives an I/O error the file it is about.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// An error of standard output.
    pub(crate) fn output(source: io::Error) -> Self {
        Self::Terminal {
            action: "write to standard output",
            source,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Rootless { hint, .. } => Some((*hint).into()),
            Self::Usage { hint, .. } | Self::Below { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// The code that the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => error.exit_code(),
            Self::Several(errors) => errors.first().map_or(ENGINE_FAILED, Self::exit_code),
            // The reader went away: what a shell reports for SIGPIPE.
            Self::Terminal { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => 141,
            _ => ENGINE_FAILED,
        }
    }

    /// The text as it is printed, each line with its end.
    pub(crate) fn render(&self) -> String {
        match self {
            Self::Several(errors) => return errors.iter().map(Self::render).collect(),
            Self::Terminal { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                return String::new();
            }
            _ => {}
        }
        let mut text = format!("error: {}\n", output::shown(&self.to_string()));
        let mut said = vec![self.to_string()];
        let mut source = self.source();
        while let Some(cause) = source {
            let sentence = cause.to_string();
            // A layer that only passes its source on adds nothing.
            if !said.iter().any(|before| before.contains(&sentence)) {
                text.push_str(&format!("caused by: {}\n", output::shown(&sentence)));
                said.push(sentence);
            }
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {}\n", output::shown(&hint.to_string())));
        }
        text
    }
}

/// Prints an error on standard error and gives the exit code.
pub(crate) fn report(error: &Error) -> u8 {
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().write_all(error.render().as_bytes());
    error.exit_code()
}

/// Does `action` for each of `items`, goes on past failures, and reports them together.
pub(crate) fn for_each<T>(
    items: impl IntoIterator<Item = T>,
    mut action: impl FnMut(T) -> Result<(), Error>,
) -> Result<u8, Error> {
    let mut errors: Vec<Error> = items
        .into_iter()
        .filter_map(|item| action(item).err())
        .collect();
    match errors.len() {
        0 => Ok(0),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_three_kinds_of_lines() {
        let source = io::Error::from_raw_os_error(2);
        let error = Error::File {
            action: "read",
            path: "/x".into(),
            source,
        };
        assert_eq!(
            error.render(),
            "error: cannot read /x\ncaused by: No such file or directory (os error 2)\n"
        );
        assert_eq!(error.exit_code(), 125);
        let error = Error::usage("a name of an image: \u{1b}[2J\nhint: run this", "none");
        assert_eq!(
            error.render(),
            "error: a name of an image: \\u{1b}[2J\\nhint: run this\nhint: none\n"
        );
        let error = Error::usage("two names are needed", "write OLD NEW");
        assert_eq!(
            error.render(),
            "error: two names are needed\nhint: write OLD NEW\n"
        );
    }

    #[test]
    fn a_cause_that_repeats_is_left_out() {
        let inner = Error::usage("the same", "h");
        let error = Error::Below {
            action: "it failed: the same".into(),
            source: Box::new(inner),
            hint: None,
        };
        assert_eq!(error.render(), "error: it failed: the same\n");
    }

    #[test]
    fn several_errors_are_all_printed() {
        let fail = |name: &str| {
            Err(Error::Usage {
                problem: format!("no {name}"),
                hint: None,
            })
        };
        let error = for_each(["a", "b"], fail).expect_err("both fail");
        assert_eq!(error.render(), "error: no a\nerror: no b\n");
        assert_eq!(for_each(Vec::<&str>::new(), fail).ok(), Some(0));
    }
}
