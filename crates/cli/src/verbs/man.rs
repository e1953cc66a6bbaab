//! `man`: the manual, one page a verb.

use std::path::Path;

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Where the pages are written; made if missing
    #[arg(value_name = "DIRECTORY")]
    directory: String,
}

impl super::Verb for Man {
    fn run(self, _door: &Door) -> Result<u8, Error> {
        let directory = Path::new(&self.directory);
        std::fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
        let pages = pages()?;
        for (name, page) in &pages {
            let file = directory.join(name);
            std::fs::write(&file, page).map_err(Error::file("write", file))?;
        }
        output::line(format_args!("{} pages in {}", pages.len(), self.directory))?;
        Ok(0)
    }
}

/// File name and text of each page.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Error> {
    let root = super::tree().disable_help_subcommand(true);
    let mut commands = vec![("coracle".to_owned(), root.clone())];
    commands.extend(super::ENTRIES.iter().map(|entry| {
        let name = format!("coracle-{}", entry.names[0].replace(' ', "-"));
        (name, super::describe(entry, entry.names[0]))
    }));
    let mut pages = Vec::with_capacity(commands.len());
    for (name, command) in commands {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .date("")
            .source(format!("coracle {}", env!("CARGO_PKG_VERSION")))
            .manual("Coracle")
            .render(&mut page)
            .map_err(Error::file("render", format!("{name}.1")))?;
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_names_its_options() {
        let pages = pages().expect("renders");
        assert_eq!(pages.len(), super::super::ENTRIES.len() + 1);
        let (_, run) = pages
            .iter()
            .find(|(name, _)| name == "coracle-run.1")
            .expect("run has a page");
        let run = String::from_utf8_lossy(run);
        assert!(
            run.contains("\\-\\-memory") && run.contains("SYNOPSIS"),
            "{run}"
        );
    }
}
