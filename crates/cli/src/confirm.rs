//! The question before a `prune`, and what a `prune` says afterwards.

use std::io::{self, Write as _};

use crate::error::Error;
use crate::output;
use crate::units;

/// Asks unless `force`; anything but yes ends the command with success and nothing done.
pub(crate) fn confirm(force: bool, warning: &str) -> Result<bool, Error> {
    if force {
        return Ok(true);
    }
    let ask = |source| Error::Terminal {
        action: "ask for confirmation (--force does not ask)",
        source,
    };
    let mut err = io::stderr().lock();
    write!(
        err,
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    )
    .and_then(|()| err.flush())
    .map_err(ask)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(ask)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// What was removed and how much was won.
pub(crate) fn reclaimed(parts: &[(&str, Vec<String>)], bytes: u64) -> Result<(), Error> {
    let mut text = String::new();
    for (title, names) in parts {
        if !names.is_empty() {
            text.push_str(&format!("{title}:\n{}\n\n", names.join("\n")));
        }
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        units::human_size4(bytes)
    ));
    output::print(&text)
}
