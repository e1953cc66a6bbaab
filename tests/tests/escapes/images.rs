//! Images and archives: paths that leave them, links, modes, sizes that lie, and names that are paths.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use coracle_tests::tar::{Entry, Tar};
use coracle_tests::{Engine, busybox_layer, docker_archive, host, sha256};
use serde_json::json;

use crate::stage::{everywhere, marker, names_in, sh_in, try_load};

/// Does `attempt` as root and as an ordinary user, each with a folder that nothing may be made or changed in; `attempt`
/// gets its path.
fn beside_a_victim(attempt: impl Fn(&Engine, &Path)) {
    everywhere(|engine, stance| {
        if !stance.is_empty() {
            return;
        }
        let victim = engine.make_dir("victim");
        fs::write(victim.join("file"), "untouched").expect("it is ours");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::set_permissions(victim.join("file"), fs::Permissions::from_mode(0o606))
            .expect("it is ours");
        let before = fs::metadata(victim.join("file")).expect("it is ours");
        attempt(engine, &victim);
        let after = fs::metadata(victim.join("file")).expect("still there");
        let facts = |meta: &fs::Metadata| {
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.nlink(),
            )
        };
        assert_eq!(names_in(&victim), ["file"]);
        assert_eq!(facts(&after), facts(&before));
        assert_eq!(
            fs::read_to_string(victim.join("file")).expect("still there"),
            "untouched"
        );
        assert!(host::mounts_under(&victim).is_empty());
    });
}

/// Docker before 1.3.2 followed links while it unpacked (also CVE-2014-9356: absolute ones, CVE-2021-32760: modes of files
/// behind them, CVE-2025-47290: a directory that becomes a link between two looks).
#[test]
fn cve_2014_6407_a_layer_writes_only_into_itself() {
    beside_a_victim(|engine, victim| {
        let path = victim.display().to_string();
        let up = format!("../../../../../../../../../..{path}");
        let mut index = 0;
        let mut try_layers = |layers: &mut [&mut Tar]| {
            index += 1;
            let name = format!("traversal{index}");
            if try_load(engine, &name, layers, &json!({"Env": ["PATH=/bin"]})).code == 0 {
                sh_in(
                    engine,
                    "",
                    &format!("{name}:1"),
                    "ls -R /way /out 2>/dev/null; true",
                )
                .not_out("untouched");
            }
        };
        for aim in [path.as_str(), up.as_str()] {
            // Through a link of the same layer, and of the layer below.
            try_layers(&mut [Tar::new()
                .symlink("way", aim)
                .file("way/made", 0o4755, b"x")
                .dir("way/dir", 0o777)]);
            try_layers(&mut [
                Tar::new().symlink("way", aim),
                Tar::new()
                    .file("way/made", 0o4755, b"x")
                    .file("way/file", 0o4777, b"x"),
            ]);
            // A directory that becomes a link.
            try_layers(&mut [Tar::new()
                .dir("way", 0o755)
                .symlink("way", aim)
                .file("way/made", 0o755, b"x")]);
            // Hard links: to the file, and to a link on it, which then gets another mode.
            let file = format!("{aim}/file");
            try_layers(&mut [Tar::new().hard_link("way", &file).file("way", 0o4777, b"x")]);
            try_layers(&mut [Tar::new()
                .symlink("to", &file)
                .hard_link("way", "to")
                .file("way", 0o4777, b"x")]);
            try_layers(&mut [Tar::new().symlink("out", aim).hard_link("way", "out/file")]);
            // Whiteouts of what is behind a link.
            try_layers(&mut [
                Tar::new().symlink("way", aim),
                Tar::new().file("way/.wh.file", 0o644, b""),
            ]);
            try_layers(&mut [
                Tar::new().symlink("way", aim),
                Tar::new().file("way/.wh..wh..opq", 0o644, b""),
            ]);
            // Paths that leave by themselves.
            try_layers(&mut [Tar::new().file(&format!("{up}/made"), 0o644, b"x")]);
            try_layers(&mut [Tar::new().file(&format!("{path}/made"), 0o644, b"x")]);
            try_layers(&mut [Tar::new()
                .file("./../../../made", 0o644, b"x")
                .file(".wh...", 0o644, b"")
                .file(".wh..", 0o644, b"")]);
            let mut pax = Tar::new();
            let mut entry = Entry::new(b'0', "innocent", 0o644);
            entry.pax = vec![("path".into(), format!("{up}/made").into_bytes())];
            pax.entry(&entry, b"x");
            let mut entry = Entry::new(b'2', "innocent-link", 0o644);
            entry.pax = vec![
                ("linkpath".into(), aim.as_bytes().to_vec()),
                ("path".into(), b"way".to_vec()),
            ];
            pax.entry(&entry, b"").file("way/made", 0o644, b"x");
            try_layers(&mut [&mut pax]);
        }
    });
}

/// Names in the archive itself: Docker took an image's id for a path (CVE-2014-9358), and read layers through links.
#[test]
fn cve_2014_9358_names_in_an_archive_are_not_paths_of_the_host() {
    beside_a_victim(|engine, victim| {
        let (_, marker) = marker(engine);
        let path = victim.display().to_string();
        let up = format!("../../../../../../../../../..{path}");
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "history": [{"created_by": "x"}],
            "rootfs": {"type": "layers", "diff_ids": [sha256(busybox_layer())]},
        });
        let config = serde_json::to_vec(&config).expect("JSON");
        let load = |tar: &mut Tar| {
            let file = engine.make_file("evil.tar", tar.finish());
            let seen = engine.run(&format!("load -i {}", file.display()));
            assert!(!seen.stderr.contains("of the host"), "{seen:?}");
            fs::remove_file(file).expect("it is ours");
            seen.code
        };
        for name in [
            format!("{up}/made"),
            format!("{path}/made"),
            "../made".into(),
            marker.clone(),
        ] {
            for (config_name, layer_name) in
                [(name.as_str(), "layer.tar"), ("config.json", name.as_str())]
            {
                let manifest = json!([{"Config": config_name, "RepoTags": ["evil:1"], "Layers": [layer_name]}]);
                let mut tar = Tar::new();
                // Only named, and there in fact.
                load(Tar::new().file("manifest.json", 0o644, manifest.to_string().as_bytes()));
                tar.file(config_name, 0o644, &config)
                    .file(layer_name, 0o644, busybox_layer());
                load(tar.file("manifest.json", 0o644, manifest.to_string().as_bytes()));
            }
        }
        // Members that are links to files of the host: what they hold must not become a layer or an error's text.
        for member in ["config.json", "layer.tar", "manifest.json"] {
            let manifest = json!([{"Config": "config.json", "RepoTags": ["linked:1"], "Layers": ["layer.tar"]}]);
            let mut tar = Tar::new();
            for (name, content) in [
                ("config.json", &config[..]),
                ("layer.tar", busybox_layer()),
                ("manifest.json", manifest.to_string().as_bytes()),
            ] {
                match name == member {
                    true => tar.symlink(name, &marker),
                    false => tar.file(name, 0o644, content),
                };
            }
            // A layer that the store has by its digest already is not looked at.
            let code = load(&mut tar);
            assert!(code != 0 || member == "layer.tar", "{member} is a link");
            engine
                .run("run --rm linked:1 cat /marker")
                .not_out("of the host");
        }
    });
}

/// Files with sizes that lie, or names without end, take no memory for it (also CVE-2017-14992: padding of a layer).
#[test]
fn sizes_that_lie_are_refused() {
    beside_a_victim(|engine, _| {
        for size in [(1_u64 << 33) - 1, 1 << 32, 4096] {
            let mut layer = Tar::new();
            let entry = Entry {
                size: Some(size),
                ..Entry::new(b'0', "lies", 0o644)
            };
            layer.entry(&entry, b"short");
            let seen = try_load(
                engine,
                &format!("lies{size}"),
                &mut [&mut layer],
                &json!({}),
            );
            assert!(
                seen.code != 0 && seen.took.as_secs() < 10,
                "{size}: {seen:?}"
            );
        }
        let mut layer = Tar::new();
        let mut entry = Entry::new(b'x', "pax", 0o644);
        entry.size = Some((1 << 33) - 1);
        layer.entry(&entry, b"9 path=x\n");
        let seen = try_load(engine, "pax", &mut [&mut layer], &json!({}));
        assert!(seen.code != 0 && seen.took.as_secs() < 10, "{seen:?}");
    });
}

/// A name or an id that is a path would be a file of the host's (CVE-2026-33945 in Incus, CVE-2025-0750 in CRI-O:
/// unmounting and overwriting by name).
#[test]
fn cve_2026_33945_names_of_things_are_not_paths() {
    beside_a_victim(|engine, victim| {
        let path = victim.display().to_string();
        let up = format!("../../../../../../../../..{path}/made");
        for name in [
            up.as_str(),
            "../made",
            "..",
            ".",
            "a/../../b",
            "",
            "-x",
            "a\nb",
        ] {
            for line in [
                vec!["create", "--name", name, "busybox", "true"],
                vec!["volume", "create", name],
                vec!["rename", "busybox", name],
                vec!["inspect", name],
                vec!["logs", name],
                vec!["rm", name],
                vec!["volume", "rm", name],
                vec!["volume", "inspect", name],
                vec!["rmi", name],
                vec!["tag", "busybox", name],
                vec!["exec", name, "true"],
                vec!["cp", "busybox:/x", name],
            ] {
                let seen = engine.command(&line).run();
                assert_ne!(seen.code, 0, "{line:?}: {seen:?}");
            }
            let mount = format!("type=volume,source={name},target=/x");
            engine
                .command(["run", "--rm", "--mount", &mount, "busybox", "true"])
                .run();
        }
        assert_eq!(engine.ok("ps -aq"), "");
    });
}

/// The parts of an image are what their digests say.
#[test]
fn layers_that_are_not_what_the_image_names_are_refused() {
    let engine = Engine::new();
    let mut other = Tar::new();
    let other = other.file("f", 0o644, b"another").finish();
    let file = docker_archive(
        &engine.dir().join("a.tar"),
        "swapped:1",
        &[busybox_layer(), &other],
        &json!({}),
    );
    // One byte of the layer's content.
    let mut bytes = fs::read(&file.path).expect("it is ours");
    let at = bytes
        .windows(7)
        .rposition(|window| window == b"another")
        .expect("it is in there");
    bytes[at] = b'A';
    fs::write(&file.path, bytes).expect("it is ours");
    engine.refuses(&format!("load -i {}", file.path.display()));
    assert_ne!(engine.run("run --rm swapped:1 true").code, 0);
}
