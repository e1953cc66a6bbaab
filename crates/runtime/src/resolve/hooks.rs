//! Hooks that run while the container is being made. Running them is the caller's business
//! ([`crate::Creating::before_pivot`]); here it is only known that there are some, and where they look for the root.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::Error;
use crate::request::Root;

/// Whether the process has to wait for hooks before it leaves the host's root.
pub(super) fn before_pivot(spec: &Spec) -> bool {
    let Some(hooks) = spec.hooks() else {
        return false;
    };
    #[allow(deprecated, reason = "the specification still has them run")]
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime(), hooks.create_container()]
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

/// Where the root is attached. Hooks find it where the document says that it is; for all else the place that is given up
/// anyway is as good, and needs no path to be resolved once more.
pub(super) fn attach_at(spec: &Spec, root: &Root) -> Result<CString, Error> {
    match root {
        Root::Directory { path, .. } if before_pivot(spec) && path != Path::new("/") => {
            super::string(
                "root.path",
                path.to_str()
                    .ok_or_else(|| Error::invalid("root.path", "it is not UTF-8"))?,
            )
        }
        _ => Ok(c"/".to_owned()),
    }
}
