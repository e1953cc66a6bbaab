//! `--filter KEY=VALUE`, which several lists take.

use crate::error::Error;

/// Splits filters and refuses keys that the list does not know.
pub(super) fn parse(texts: &[String], known: &[&str]) -> Result<Vec<(String, String)>, Error> {
    let one = |text: &String| match text.split_once('=') {
        Some((key, value)) if known.contains(&key) => {
            Ok((key.to_owned(), value.trim_start_matches('=').to_owned()))
        }
        Some((key, _)) => Err(format!(
            "there is no filter {key:?}; there are {}",
            known.join(", ")
        )),
        None => Err(format!("{text:?} is not KEY=VALUE")),
    };
    texts
        .iter()
        .map(one)
        .collect::<Result<_, String>>()
        .map_err(Error::value("--filter"))
}
