//! The root file system of a request: checked, and for a child that has to make it itself, put into its words.

use std::ffi::CString;
use std::path::Path;

use coracle_linux::descriptor::Slot;
use coracle_linux::mount::NODEV;

use super::string;
use crate::Error;
use crate::plan::Source;
use crate::request::{Lower, Root};

/// The most layers that overlay takes.
const LOWERS: usize = 500;
/// The kernel's limit on a value of fsconfig(2).
pub(super) const VALUE: usize = 255;

pub(super) fn check(root: &Root) -> Result<(), Error> {
    if let Root::Overlay {
        lowers,
        upper,
        work,
        ..
    } = root
    {
        if lowers.is_empty() {
            return Err(Error::invalid(
                "the root",
                "an overlay needs at least one layer",
            ));
        }
        if lowers.len() > LOWERS {
            return Err(Error::invalid(
                format!("the root with {} layers", lowers.len()),
                format!("the kernel's overlay takes at most {LOWERS}; flatten the image"),
            ));
        }
        if upper == work || upper.starts_with(work) || work.starts_with(upper) {
            return Err(Error::invalid(
                "the root",
                "upper and work lie in each other",
            ));
        }
    }
    Ok(())
}

/// The root as the child of an ordinary user makes it itself.
pub(super) fn made_by_child(root: &Root) -> Result<Source, Error> {
    let text = |path: &Path| -> Result<CString, Error> {
        let text = path
            .to_str()
            .ok_or_else(|| Error::invalid(format!("{path:?}"), "it is not UTF-8"))?;
        if text.len() > VALUE {
            return Err(Error::invalid(
                text,
                "without privileges a path of the root has at most 255 bytes; use a shorter directory",
            ));
        }
        string("path", text)
    };
    match root {
        Root::Directory { path, .. } => Ok(Source::Path {
            path: text(path)?,
            recursive: true,
            made: Slot::new(),
        }),
        Root::Overlay {
            lowers,
            upper,
            work,
            volatile,
            ..
        } => {
            let mut config = vec![
                (c"source".to_owned(), Some(c"overlay".to_owned())),
                (c"userxattr".to_owned(), None),
            ];
            for lower in lowers {
                let Lower::Directory(path) = lower else {
                    return Err(Error::invalid(
                        "the root",
                        "a layer in one file can only be mounted by a privileged caller; unpack layers into directories",
                    ));
                };
                config.push((c"lowerdir+".to_owned(), Some(text(path)?)));
            }
            config.push((c"upperdir".to_owned(), Some(text(upper)?)));
            config.push((c"workdir".to_owned(), Some(text(work)?)));
            if *volatile {
                config.push((c"volatile".to_owned(), None));
            }
            Ok(Source::New {
                kind: c"overlay".to_owned(),
                config,
                attributes: NODEV,
                made: Slot::new(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Ownership;

    #[test]
    fn an_overlay_past_the_kernels_limit_is_refused_with_the_limit() {
        let root = |count| Root::Overlay {
            lowers: vec![Lower::Directory("/l".into()); count],
            upper: "/u/upper".into(),
            work: "/u/work".into(),
            volatile: false,
            ownership: Ownership::Outside,
            kept: None,
        };
        assert!(check(&root(500)).is_ok());
        assert!(
            check(&root(501))
                .expect_err("refused")
                .to_string()
                .contains("at most 500")
        );
        assert!(check(&root(0)).is_err());
    }
}
