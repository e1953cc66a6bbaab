//! Names of containers: one symbolic link a name that says an id, so that finding and claiming one costs the same with
//! one container as with a thousand.
//!
//! Invariant: making the link claims the name, at once and with its content, and fails if it is there; a name whose container
//! is gone (a command was killed between two steps) is free and taken over.

use coracle_oci::{ContainerId, ContainerName};

use crate::error::{Error, Result};
use crate::state::{self, Paths};

/// Whose name this is; `None` if it is free.
pub(crate) fn owner(paths: &Paths, name: &str) -> Result<Option<ContainerId>> {
    if name.parse::<ContainerName>().is_err() {
        return Ok(None);
    }
    let holder = state::read_claim(&paths.names().join(name))?;
    Ok(holder.filter(|id| paths.config(id).exists()))
}

/// Gives the name to the container, if it is free.
pub(crate) fn claim(paths: &Paths, name: &str, id: &ContainerId) -> Result<()> {
    let parsed: ContainerName = name
        .parse()
        .map_err(|error| Error::refused(format!("{error}")))?;
    let file = paths.names().join(parsed.as_str());
    // Twice at most: the second time after a name without a container has been cleared away.
    for _ in 0..2 {
        if state::claim(&file, id)? {
            return Ok(());
        }
        if let Some(holder) = state::read_claim(&file)?
            && is_held(paths, &holder)?
        {
            return Err(Error::NameInUse {
                name: name.into(),
                id: holder.short().into(),
            });
        }
        state::delete_file(&file)?;
    }
    Err(Error::refused_with(
        format!("the name \"{name}\" is being taken by other commands at this moment"),
        "try again",
    ))
}

/// A creation under way holds its directory's lock: its claim counts though config.json is not there yet.
fn is_held(paths: &Paths, holder: &ContainerId) -> Result<bool> {
    let made = paths.config(holder).exists();
    Ok(made
        || matches!(
            state::Lock::look(&paths.container(holder))?,
            Err(state::Held)
        ))
}

/// Frees the name if it is this container's.
pub(crate) fn release(paths: &Paths, name: &str, id: &ContainerId) -> Result<()> {
    let file = paths.names().join(name);
    match state::read_claim(&file)? {
        Some(holder) if holder == *id => state::delete_file(&file),
        _ => Ok(()),
    }
}

/// Deletes a name that [`owner`] found free, unless a creation under way has just claimed it.
pub(crate) fn drop_leftover(paths: &Paths, name: &str) -> Result<()> {
    let file = paths.names().join(name);
    match state::read_claim(&file)? {
        Some(holder) if is_held(paths, &holder)? => Ok(()),
        _ => state::delete_file(&file),
    }
}

/// A name made up from the id: a quality, a boat, and in the rare case of a clash some digits.
pub(crate) fn made_up(id: &ContainerId, attempt: usize) -> String {
    let bytes = id.as_str().as_bytes();
    let number = bytes
        .iter()
        .skip(attempt * 8)
        .take(8)
        .fold(0usize, |sum, byte| sum * 31 + usize::from(*byte));
    let base = format!(
        "{}_{}",
        QUALITIES[number % QUALITIES.len()],
        BOATS[(number / QUALITIES.len()) % BOATS.len()]
    );
    match attempt {
        0..=3 => base,
        _ => format!("{base}_{}", &id.as_str()[..8]),
    }
}

const QUALITIES: [&str; 48] = [
    "able", "agile", "amber", "ample", "apt", "azure", "bold", "brave", "brisk", "calm", "clever",
    "cosy", "crisp", "deft", "eager", "early", "fair", "fleet", "fond", "fresh", "gentle", "glad",
    "grand", "hardy", "keen", "kind", "light", "lively", "loyal", "lucid", "mellow", "merry",
    "mild", "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "ready",
    "serene", "sleek", "sober", "steady", "swift", "true",
];

const BOATS: [&str; 48] = [
    "ark", "barge", "bark", "bateau", "brig", "canoe", "caravel", "carrack", "cat", "clipper",
    "cog", "coracle", "corvette", "curragh", "cutter", "dhow", "dinghy", "dory", "dugout", "ferry",
    "felucca", "frigate", "galley", "gig", "gondola", "hulk", "junk", "kayak", "keel", "ketch",
    "launch", "liner", "longship", "lugger", "packet", "pinnace", "pirogue", "pram", "punt",
    "raft", "sampan", "schooner", "scow", "skiff", "sloop", "trawler", "wherry", "yawl",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: directory.path().join("root"),
            run: directory.path().join("run"),
        };
        for made in [paths.containers(), paths.names()] {
            state::make_directory(&made).unwrap();
        }
        (directory, paths)
    }

    fn container(paths: &Paths, byte: u8, finished: bool) -> ContainerId {
        let id = ContainerId::from_bytes([byte; 32]);
        state::make_directory(&paths.container(&id)).unwrap();
        if finished {
            state::replace(&paths.config(&id), b"{}").unwrap();
        }
        id
    }

    #[test]
    fn a_name_in_use_is_refused_and_free_again_after_release() {
        let (_directory, paths) = paths();
        let (one, two) = (container(&paths, 1, true), container(&paths, 2, true));
        claim(&paths, "web", &one).unwrap();
        assert_eq!(owner(&paths, "web").unwrap(), Some(one.clone()));
        assert!(matches!(
            claim(&paths, "web", &two),
            Err(Error::NameInUse { .. })
        ));
        release(&paths, "web", &two).unwrap();
        assert_eq!(owner(&paths, "web").unwrap(), Some(one.clone()));
        release(&paths, "web", &one).unwrap();
        claim(&paths, "web", &two).unwrap();
    }

    #[test]
    fn a_name_left_by_a_killed_creation_is_taken_over() {
        let (_directory, paths) = paths();
        let dead = container(&paths, 3, false);
        claim(&paths, "web", &dead).unwrap();
        assert_eq!(owner(&paths, "web").unwrap(), None);
        let next = container(&paths, 4, true);
        claim(&paths, "web", &next).unwrap();
        assert_eq!(owner(&paths, "web").unwrap(), Some(next));
    }

    #[test]
    fn a_name_of_a_creation_under_way_is_refused() {
        let (_directory, paths) = paths();
        let busy = container(&paths, 5, false);
        let _lock = state::Lock::wait(&paths.container(&busy)).unwrap();
        claim(&paths, "web", &busy).unwrap();
        let next = container(&paths, 6, true);
        assert!(matches!(
            claim(&paths, "web", &next),
            Err(Error::NameInUse { .. })
        ));
    }

    #[test]
    fn made_up_names_fit_the_rule_for_names() {
        for byte in 0..=255 {
            for attempt in [0, 1, 9] {
                let name = made_up(&ContainerId::from_bytes([byte; 32]), attempt);
                assert!(name.parse::<ContainerName>().is_ok(), "{name}");
            }
        }
    }
}
