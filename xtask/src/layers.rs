//! The layering check: an arrow between crates only ever points down.
//!
//! ```text
//! L5  fuzz
//! L4  cli  api  registry
//! L3  engine
//! L2  store  image  network  checkpoint      image → store, checkpoint → store
//! L1  runtime  monitor  cgroup               runtime → cgroup
//! L0  oci  linux
//! ```
//!
//! Sideways only as drawn (and checkpoint → runtime, which points down anyway). Besides: `unsafe` only in `linux`, tokio
//! not reachable from anything below L2, and neither the black-box tests nor xtask link a crate of the engine; but the
//! tests trace the binary through `linux`, where alone ptrace(2) can be called.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

use serde_json::Value;

use crate::{unsafe_code, workspace};

const PREFIX: &str = "coracle-";

const LAYERS: [(&str, u8); 14] = [
    ("oci", 0),
    ("linux", 0),
    ("runtime", 1),
    ("monitor", 1),
    ("cgroup", 1),
    ("store", 2),
    ("image", 2),
    ("network", 2),
    ("checkpoint", 2),
    ("engine", 3),
    ("cli", 4),
    ("api", 4),
    ("registry", 4),
    ("fuzz", 5),
];

const SIDEWAYS: [(&str, &str); 3] = [
    ("image", "store"),
    ("checkpoint", "store"),
    ("runtime", "cgroup"),
];

/// Members that stand beside the layers and may depend on none of them.
const OUTSIDE: [&str; 2] = ["coracle-tests", "xtask"];

/// But for this: what traces processes.
const TRACING: (&str, &str) = ("coracle-tests", "coracle-linux");

/// Runs the whole check on this workspace and prints each violation.
pub(crate) fn run() -> bool {
    let metadata = match metadata() {
        Ok(metadata) => metadata,
        Err(reason) => {
            eprintln!("error: cannot read the workspace's metadata: {reason}");
            return false;
        }
    };
    let mut found = violations(&metadata);
    match unsafe_code::violations(&workspace()) {
        Ok(places) => found.extend(places),
        Err(reason) => found.push(reason),
    }
    for violation in &found {
        eprintln!("layers: {violation}");
    }
    if found.is_empty() {
        println!("layers: every edge points down");
    }
    found.is_empty()
}

fn metadata() -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .map_err(|error| format!("{cargo:?}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Every rule that the document of `cargo metadata` breaks, as sentences.
fn violations(metadata: &Value) -> Vec<String> {
    let members: BTreeSet<&str> = texts(&metadata["workspace_members"]).collect();
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let name_of = |id: &str| {
        packages
            .get(id)
            .and_then(|package| package["name"].as_str())
    };
    let mut found = Vec::new();
    if members.is_empty() {
        found.push("the metadata names no workspace members".to_owned());
    }
    for member in &members {
        let Some(name) = name_of(member) else {
            found.push(format!("the metadata lacks the package {member}"));
            continue;
        };
        let edges = packages[member]["dependencies"]
            .as_array()
            .into_iter()
            .flatten();
        // The name before a rename, and whatever the kind: a test that needs a higher crate is in the wrong crate.
        let edges: BTreeSet<&str> = edges.filter_map(|edge| edge["name"].as_str()).collect();
        if OUTSIDE.contains(&name) {
            let inner = edges
                .iter()
                .filter(|to| to.starts_with(PREFIX) && !OUTSIDE.contains(to))
                .filter(|to| (name, **to) != TRACING);
            found.extend(inner.map(|to| format!("{name} → {to}: it may only see the binary")));
            continue;
        }
        let Some((from, layer)) = layer_of(name) else {
            found.push(format!(
                "{name} has no layer: give it one in xtask/src/layers.rs"
            ));
            continue;
        };
        for edge in edges {
            let Some((to, below)) = layer_of(edge) else {
                if edge.starts_with(PREFIX) || OUTSIDE.contains(&edge) {
                    found.push(format!("{name} → {edge}: it has no layer"));
                }
                continue;
            };
            if below >= layer && !SIDEWAYS.contains(&(from, to)) {
                found.push(format!(
                    "{name} (L{layer}) → {edge} (L{below}) does not point down"
                ));
            }
        }
        if layer < 2
            && let Some(path) = path_to(metadata, member, "tokio", &name_of)
        {
            found.push(format!("tokio is reachable below L2: {}", path.join(" → ")));
        }
    }
    found
}

fn layer_of(package: &str) -> Option<(&'static str, u8)> {
    let short = package.strip_prefix(PREFIX)?;
    LAYERS.into_iter().find(|(name, _)| *name == short)
}

/// The shortest way from package `from` to a package called `target`, by normal and build dependencies.
fn path_to<'m>(
    metadata: &'m Value,
    from: &'m str,
    target: &str,
    name_of: &dyn Fn(&str) -> Option<&'m str>,
) -> Option<Vec<String>> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(id) = queue.pop_front() {
        if name_of(id) == Some(target) {
            let mut path = vec![id];
            while let Some(before) = came_from.get(path[path.len() - 1]) {
                path.push(before);
            }
            let names = path
                .iter()
                .rev()
                .map(|id| name_of(id).unwrap_or(id).to_owned());
            return Some(names.collect());
        }
        let edges = nodes
            .get(id)
            .and_then(|node| node["deps"].as_array())
            .into_iter()
            .flatten();
        for edge in edges {
            let kinds = edge["dep_kinds"].as_array();
            let linked = kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"));
            let Some(to) = edge["pkg"].as_str().filter(|_| linked) else {
                continue;
            };
            if to != from && !came_from.contains_key(to) {
                came_from.insert(to, id);
                queue.push_back(to);
            }
        }
    }
    None
}

fn texts(array: &Value) -> impl Iterator<Item = &str> {
    array
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Metadata with one package per name; an edge is `(from, to, kind)`.
    fn workspace_of(members: &[&str], others: &[&str], edges: &[(&str, &str, &str)]) -> Value {
        let kind = |kind: &str| {
            if kind.is_empty() {
                Value::Null
            } else {
                json!(kind)
            }
        };
        let all: Vec<&str> = members.iter().chain(others).copied().collect();
        let packages: Vec<Value> = all
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|edge| edge.0 == *name)
                    .map(|edge| json!({"name": edge.1, "kind": kind(edge.2)}))
                    .collect();
                json!({"id": format!("{name} 1"), "name": name, "dependencies": deps})
            })
            .collect();
        let nodes: Vec<Value> = all
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|edge| edge.0 == *name)
                    .map(|edge| {
                        json!({"pkg": format!("{} 1", edge.1), "dep_kinds": [{"kind": kind(edge.2)}]})
                    })
                    .collect();
                json!({"id": format!("{name} 1"), "deps": deps})
            })
            .collect();
        let members: Vec<String> = members.iter().map(|name| format!("{name} 1")).collect();
        json!({"workspace_members": members, "packages": packages, "resolve": {"nodes": nodes}})
    }

    #[test]
    fn edges_down_and_the_named_sideways_ones_are_allowed() {
        let members = [
            "coracle-cli",
            "coracle-engine",
            "coracle-image",
            "coracle-store",
            "coracle-runtime",
            "coracle-cgroup",
            "coracle-linux",
            "xtask",
            "coracle-tests",
        ];
        let metadata = workspace_of(
            &members,
            &["tokio", "serde"],
            &[
                ("coracle-cli", "coracle-engine", ""),
                ("coracle-cli", "coracle-linux", ""),
                ("coracle-image", "coracle-store", ""),
                ("coracle-image", "tokio", ""),
                ("coracle-runtime", "coracle-cgroup", ""),
                ("coracle-linux", "serde", ""),
                ("xtask", "coracle-tests", ""),
            ],
        );
        assert_eq!(violations(&metadata), Vec::<String>::new());
    }

    #[test]
    fn each_planted_violation_is_found() {
        let cases: [(&str, &str, &str, &str); 9] = [
            ("coracle-linux", "coracle-engine", "", "does not point down"),
            ("coracle-linux", "coracle-oci", "", "does not point down"),
            ("coracle-store", "coracle-image", "", "does not point down"),
            (
                "coracle-cgroup",
                "coracle-runtime",
                "",
                "does not point down",
            ),
            (
                "coracle-engine",
                "coracle-cli",
                "dev",
                "does not point down",
            ),
            (
                "coracle-monitor",
                "coracle-network",
                "build",
                "does not point down",
            ),
            ("coracle-engine", "coracle-helpers", "", "it has no layer"),
            ("coracle-engine", "coracle-tests", "dev", "it has no layer"),
            (
                "coracle-tests",
                "coracle-engine",
                "",
                "it may only see the binary",
            ),
        ];
        for (from, to, kind, expected) in cases {
            let metadata = workspace_of(&[from, to], &[], &[(from, to, kind)]);
            let found = violations(&metadata);
            assert!(
                found.iter().any(|line| {
                    line.contains(from) && line.contains(to) && line.contains(expected)
                }),
                "{from} → {to}: {found:?}"
            );
        }
    }

    #[test]
    fn crate_without_a_layer_is_found() {
        let found = violations(&workspace_of(&["coracle-utils"], &[], &[]));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("coracle-utils has no layer"));
    }

    #[test]
    fn tokio_behind_a_library_is_found_below_layer_two_only() {
        let edges = [("coracle-monitor", "hyper", ""), ("hyper", "tokio", "")];
        let found = violations(&workspace_of(
            &["coracle-monitor"],
            &["hyper", "tokio"],
            &edges,
        ));
        assert_eq!(
            found,
            ["tokio is reachable below L2: coracle-monitor → hyper → tokio"]
        );
        let edges = [("coracle-network", "hyper", ""), ("hyper", "tokio", "")];
        let found = violations(&workspace_of(
            &["coracle-network"],
            &["hyper", "tokio"],
            &edges,
        ));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn tokio_that_only_tests_use_is_not_reachable() {
        let edges = [("coracle-monitor", "tokio", "dev")];
        let found = violations(&workspace_of(&["coracle-monitor"], &["tokio"], &edges));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn metadata_without_members_is_not_a_pass() {
        assert_eq!(violations(&json!({})).len(), 1);
    }
}
