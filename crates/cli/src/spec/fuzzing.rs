//! See [`crate::fuzzing::options`].

use std::path::PathBuf;

use coracle_engine::request::{Mount, MountKind};

use super::{Caller, device, environment, limits, mount, namespace};

/// One text as the value of each option that has a grammar.
pub(crate) fn options(text: &str) {
    let caller = Caller {
        directory: PathBuf::from("/work"),
        variable: |name| (name == "HOME").then(|| "/home/ann".into()),
    };
    let mounts = [
        mount::parse_volume(text, &caller),
        mount::parse_mount(text, &caller),
        mount::parse_tmpfs(text),
    ];
    mounts.into_iter().flatten().for_each(|mount| sound(&mount));
    let texts = [text.to_owned()];
    for device in device::devices(&texts).into_iter().flatten() {
        assert!(device.host.is_absolute() && device.container.starts_with('/'));
    }
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // Whether it is one of these is not known; what is refused is refused in words.
    let _ = device::rules(lines.clone());
    let _ = (namespace::published(text), namespace::hosts(&texts));
    let _ = (
        namespace::network(Some(text)),
        namespace::mode(Some(text), &[]),
    );
    let _ = (namespace::user(Some(text), false), limits::ulimits(&texts));
    let _ = (namespace::addresses(lines), super::restart(text));
    if let Ok(ports) = namespace::exposed(text) {
        assert!(!ports.is_empty() && ports.len() <= 65_535);
    }
    for line in environment::lines(text).into_iter().flatten() {
        assert!(!line.is_empty() && !line.starts_with('#'));
        if let Ok(variable) = environment::variable(line, &caller) {
            let name = variable.split('=').next().unwrap_or_default();
            assert!(!name.is_empty() && !name.contains(char::is_whitespace));
        }
    }
}

fn sound(mount: &Mount) {
    assert!(mount.target.starts_with('/') && mount.target != "/");
    match &mount.kind {
        MountKind::Bind { source, .. } => assert!(source.is_absolute(), "{source:?}"),
        MountKind::Volume {
            name: Some(name), ..
        } => {
            // It becomes the name of a directory.
            assert!(!name.contains('/') && !matches!(name.as_str(), "." | ".."));
        }
        _ => {}
    }
}
