//! Mount options in the words of fstab and of the OCI document.

use coracle_linux::mount::{
    ATIME, Attributes, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, RELATIME,
    STRICTATIME,
};

use crate::Error;

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// What a list of options means.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Options {
    /// `Some(recursive)` for a bind.
    pub(super) bind: Option<bool>,
    pub(super) attributes: Attributes,
    /// `rro` and its kind.
    pub(super) recursive_attributes: Attributes,
    /// One of `MS_*`, with whether it is recursive.
    pub(super) propagation: Option<(u64, bool)>,
    /// `Some(recursive)` for `idmap` and `ridmap`.
    pub(super) idmap: Option<bool>,
    /// It begins with what the image has in its place.
    pub(super) copy_up: bool,
    /// What the file system itself gets.
    pub(super) data: Vec<(String, Option<String>)>,
}

/// One word: attributes to set and to clear.
fn attribute(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "noatime" => (NOATIME, ATIME),
        "strictatime" => (STRICTATIME, ATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (RELATIME, ATIME),
        _ => return None,
    })
}

/// The propagation that a word asks for, recursive or not.
pub(super) fn propagation(word: &str) -> Option<(u64, bool)> {
    let (name, recursive) = match word.strip_prefix('r') {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let value = match name {
        "private" => MS_PRIVATE,
        "slave" => MS_SLAVE,
        "shared" => MS_SHARED,
        "unbindable" => MS_UNBINDABLE,
        _ => return None,
    };
    Some((value, recursive))
}

/// Whether it lets mounts made inside out to the host.
pub(super) fn is_shared(propagation: u64) -> bool {
    propagation == MS_SHARED
}

/// The propagation of what is not told otherwise.
pub(super) const PRIVATE: u64 = MS_PRIVATE;

fn apply(attributes: &mut Attributes, (set, clear): (u64, u64)) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
    // The kernel wants all of the access time's bits cleared when one is set.
    if attributes.set & ATIME != 0 {
        attributes.clear |= ATIME;
    }
}

/// Parses the options of the mount on `target`.
pub(super) fn parse(target: &str, words: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    let no = |word: &str, why: &str| {
        Err(Error::invalid(
            format!("option {word:?} of the mount on {target}"),
            why,
        ))
    };
    for word in words {
        match word.as_str() {
            "" | "defaults" | "async" | "nolazytime" | "nomand" | "loud" | "norelative" => {}
            "bind" => options.bind = options.bind.or(Some(false)),
            "rbind" => options.bind = Some(true),
            "idmap" => options.idmap = options.idmap.or(Some(false)),
            "ridmap" => options.idmap = Some(true),
            "remount" => return no(word, "a container's mounts are made, not changed"),
            "tmpcopyup" => options.copy_up = true,
            word => {
                if let Some(change) = attribute(word) {
                    apply(&mut options.attributes, change);
                } else if let Some(propagation) = propagation(word) {
                    options.propagation = Some(propagation);
                } else if let Some(change) = word.strip_prefix('r').and_then(attribute) {
                    apply(&mut options.recursive_attributes, change);
                } else if let Some((key, value)) = word.split_once('=') {
                    options.data.push((key.to_owned(), Some(value.to_owned())));
                } else {
                    options.data.push((word.to_owned(), None));
                }
            }
        }
    }
    if options.bind.is_some() && options.copy_up {
        return no("tmpcopyup", "only a tmpfs can begin so");
    }
    if options.bind.is_some()
        && let Some((key, _)) = options.data.first()
    {
        return no(key, "a bind mount has no options of a file system");
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse("/x", &words).expect("valid options")
    }

    #[test]
    fn options_mean_what_mount_8_says() {
        let options = parsed(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(options.attributes.set, NOSUID | STRICTATIME);
        assert_eq!(options.attributes.clear & ATIME, ATIME);
        assert_eq!(options.data.len(), 2);
        assert_eq!(options.bind, None);
    }

    #[test]
    fn the_last_of_two_contrary_options_counts() {
        assert_eq!(
            parsed(&["ro", "rw"]).attributes,
            Attributes {
                clear: RDONLY,
                ..Attributes::default()
            }
        );
        assert_eq!(
            parsed(&["rw", "ro"]).attributes,
            Attributes {
                set: RDONLY,
                ..Attributes::default()
            }
        );
        assert_eq!(parsed(&["noatime", "relatime"]).attributes.set & ATIME, 0);
    }

    #[test]
    fn recursive_words_are_told_from_plain_ones() {
        let options = parsed(&["rbind", "rro", "rslave", "ro"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.recursive_attributes.set, RDONLY);
        assert_eq!(options.attributes.set, RDONLY);
        assert_eq!(options.propagation, Some((MS_SLAVE, true)));
        assert_eq!(
            parsed(&["bind", "relatime"]).recursive_attributes,
            Attributes::default()
        );
    }

    #[test]
    fn a_bind_with_options_of_a_file_system_is_refused() {
        assert!(parse("/x", &["bind".to_owned(), "size=1m".to_owned()]).is_err());
        assert!(parse("/x", &["remount".to_owned()]).is_err());
    }
}
