//! Capabilities of the document as bit sets.

use coracle_linux::capability::{self, Set};
use coracle_linux::kernel;
use oci_spec::runtime::{Capabilities as Names, Capability, LinuxCapabilities};

use super::Host;
use crate::Error;
use crate::plan::Capabilities;
use crate::state::Clamp;

/// Every capability that this kernel knows, in the document's words.
pub(crate) fn all() -> Vec<Capability> {
    let last = kernel::last_capability();
    capability::NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| *number as u32 <= last)
        // The two lists are of the same kernel interface.
        .filter_map(|(_, name)| name.trim_start_matches("CAP_").parse().ok())
        .collect()
}

/// Without a member, a set is empty: nothing is inherited that nobody asked for.
pub(super) fn resolve(
    document: Option<&LinuxCapabilities>,
    host: &Host,
    own_user_namespace: bool,
    clamp: bool,
    clamped: &mut Vec<Clamp>,
) -> Result<Capabilities, Error> {
    let get = |pick: fn(&LinuxCapabilities) -> &Option<Names>| {
        set(document.and_then(|sets| pick(sets).as_ref()))
    };
    let mut sets = Capabilities {
        bounding: get(LinuxCapabilities::bounding),
        effective: get(LinuxCapabilities::effective),
        permitted: get(LinuxCapabilities::permitted),
        inheritable: get(LinuxCapabilities::inheritable),
        ambient: get(LinuxCapabilities::ambient),
    };
    if !own_user_namespace {
        // In a user namespace of its own the container's root has all; here nobody can give more than we have.
        let missing =
            (sets.permitted.0 | sets.inheritable.0 | sets.ambient.0) & !host.capabilities.0;
        for (number, name) in capability::NAMES.iter().enumerate() {
            if missing >> number & 1 == 1 {
                if !clamp {
                    return Err(Error::invalid(
                        format!("process.capabilities {name}"),
                        "the caller does not have it itself and the container has no user namespace of its own",
                    ));
                }
                clamped.push(Clamp {
                    what: (*name).to_owned(),
                    asked: 1,
                    given: 0,
                });
            }
        }
        for set in [
            &mut sets.effective,
            &mut sets.permitted,
            &mut sets.inheritable,
            &mut sets.ambient,
        ] {
            set.0 &= host.capabilities.0;
        }
    }
    Ok(sets)
}

/// Those that this kernel does not have are left out: nobody can have them.
fn set(names: Option<&Names>) -> Set {
    let mut set = Set::default();
    let last = kernel::last_capability();
    for name in names.into_iter().flatten() {
        if let Some(number) = capability::number(&name.to_string()).filter(|number| *number <= last)
        {
            set.insert(number);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_document_has_its_number() {
        let all = all();
        assert_eq!(all.len() as u32, kernel::last_capability() + 1);
        for (number, capability) in all.iter().enumerate() {
            assert_eq!(
                capability::number(&capability.to_string()),
                Some(number as u32),
                "{capability}"
            );
        }
    }
}
