//! The local store: load, import, list, tag, remove, inspect, history, save; and archives that mean harm.

use std::fs;

use coracle_tests::tar::{Entry, Tar};
use coracle_tests::{
    BUSYBOX, Engine, busybox_archive, busybox_layer, docker_archive, host, oci_layout, sha256, skip,
};
use serde_json::{Value, json};

#[test]
fn load_says_what_it_loaded_as_docker_does() {
    let engine = Engine::empty();
    let archive = busybox_archive(engine.dir());
    let said = engine.ok(&format!("load -i {}", archive.path.display()));
    assert_eq!(said, "Loaded image: busybox:latest");
    assert_eq!(
        engine.ok(&format!("inspect --format '{{{{.Id}}}}' {BUSYBOX}")),
        archive.id
    );
}

#[test]
fn load_reads_standard_input_and_quiet_prints_only_names() {
    let engine = Engine::empty();
    let archive = busybox_archive(engine.dir());
    let bytes = fs::read(&archive.path).expect("just written");
    engine
        .line("load -q")
        .stdin(&bytes)
        .run()
        .success()
        .out("busybox:latest");
    engine.ok("run --rm busybox true");
}

#[test]
fn load_takes_an_oci_archive() {
    let engine = Engine::empty();
    let layout = oci_layout(&engine.make_dir("l"), "some/name:v3", "tar+gzip");
    let archive = engine.dir().join("oci.tar");
    let made = std::process::Command::new("tar")
        .arg("-C")
        .arg(&layout.path)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status()
        .expect("tar is there");
    assert!(made.success());
    engine.ok(&format!("load -i {}", archive.display()));
    let id = engine.ok("images -q --no-trunc");
    assert_eq!(id, layout.id);
}

#[test]
fn import_makes_one_layer_with_the_changes_asked_for() {
    let engine = Engine::empty();
    let file = engine.make_file("root.tar", busybox_layer());
    let id = engine
        .command([
            "import",
            "-c",
            "CMD [\"echo\", \"from cmd\"]",
            "-c",
            "ENV PATH=/bin A=b",
            "-m",
            "made here",
            &file.display().to_string(),
            "imported:1",
        ])
        .run()
        .success();
    assert!(id.text().starts_with("sha256:"), "{id:?}");
    assert_eq!(engine.ok("run --rm imported:1"), "from cmd");
    assert_eq!(engine.ok("run --rm imported:1 sh -c 'echo $A'"), "b");
    engine.run("history imported:1").success().out("made here");
}

#[test]
fn import_reads_standard_input() {
    let engine = Engine::empty();
    engine
        .line("import - piped")
        .stdin(busybox_layer())
        .run()
        .success();
    assert_eq!(engine.ok("run --rm piped /bin/echo it"), "it");
}

#[test]
fn images_lists_in_dockers_columns() {
    let engine = Engine::new();
    let listed = engine.ok("images");
    let header: Vec<&str> = listed
        .lines()
        .next()
        .expect("a header")
        .split("  ")
        .collect();
    let header: Vec<&str> = header
        .into_iter()
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row: Vec<&str> = listed
        .lines()
        .nth(1)
        .expect("a row")
        .split_whitespace()
        .collect();
    assert_eq!(&row[..2], ["busybox", "latest"]);
    assert_eq!(row[2].len(), 12);
    assert_eq!(
        engine.ok("images --format '{{.Repository}}:{{.Tag}}'"),
        BUSYBOX
    );
    let json = engine.ok("images --format json");
    let value: Value = serde_json::from_str(&json).expect("one JSON document a line");
    assert_eq!(value["Repository"], "busybox");
}

#[test]
fn tag_adds_a_name_and_rmi_takes_names_before_the_image() {
    let engine = Engine::new();
    engine.ok("tag busybox other/name:v1");
    assert_eq!(engine.ok("run --rm other/name:v1 echo it"), "it");
    assert_eq!(engine.ok("images -q").lines().count(), 2);
    engine
        .run("rmi busybox")
        .success()
        .out("Untagged: busybox:latest")
        .not_out("Deleted:");
    engine.ok("run --rm other/name:v1 true");
    engine
        .run("rmi other/name:v1")
        .success()
        .out("Deleted: sha256:");
    assert_eq!(engine.ok("images -q"), "");
    engine.run("run --rm other/name:v1 true").code(125);
}

#[test]
fn image_in_use_is_kept_unless_forced() {
    let engine = Engine::new();
    engine.ok("create --name user busybox true");
    engine.refuses("rmi busybox").err("user");
    engine.ok("rm user");
    engine.ok("rmi busybox");
}

/// The layers that the engine keeps mounted: name and superblock of each; `None` without a namespace for them.
fn kept_layers(engine: &Engine) -> Option<Vec<(String, u64)>> {
    use coracle_linux::namespace::MountVisit;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let pin = std::fs::File::open(engine.run_root().join("layers")).ok()?;
    let look = || {
        let _visit = MountVisit::enter(pin.as_fd()).expect("root may enter it");
        let entries = std::fs::read_dir("/").expect("its root");
        entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, entry.metadata().expect("it is there").dev())
            })
            .collect()
    };
    Some(std::thread::scope(|scope| {
        scope.spawn(look).join().expect("no panic")
    }))
}

#[test]
fn layer_is_mounted_once_for_all_containers_and_until_it_is_removed() {
    if !host::root() {
        skip("only root mounts layer files");
        return;
    }
    let engine = Engine::new();
    assert_eq!(kept_layers(&engine), None, "nothing is mounted for a load");
    engine.ok(&format!("run --rm {BUSYBOX} true"));
    let Some(first) = kept_layers(&engine) else {
        skip("layers are directories on this kernel");
        return;
    };
    assert_eq!(first.len(), 1, "{first:?}");
    let runs: Vec<_> = (0..8)
        .map(|_| engine.command(["run", "--rm", BUSYBOX, "true"]).spawn())
        .collect();
    for run in runs {
        run.wait().success();
    }
    assert_eq!(
        kept_layers(&engine).as_ref(),
        Some(&first),
        "the same superblock serves all, and with it one page cache"
    );
    let mounts = host::mounts_under(engine.dir());
    assert_eq!(
        mounts,
        [engine.run_root().join("layers")],
        "one on the host"
    );
    engine.ok(&format!("rmi {BUSYBOX}"));
    assert_eq!(kept_layers(&engine), None, "the last layer takes it along");
    assert_eq!(
        host::mounts_under(engine.dir()),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn layer_that_was_unmounted_behind_our_back_is_mounted_again() {
    let engine = Engine::new();
    engine.ok(&format!("run --rm {BUSYBOX} true"));
    engine.unmount_layers();
    engine.ok(&format!("run --rm {BUSYBOX} true"));
}

#[test]
fn removal_gives_the_disk_back() {
    let engine = Engine::empty();
    let size = || {
        let output = std::process::Command::new("du")
            .arg("-sk")
            .arg(engine.root())
            .output()
            .expect("du is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .next()
            .and_then(|kb| kb.parse::<u64>().ok())
            .expect("a number")
    };
    engine.ok("images");
    let before = size();
    let big = vec![b'x'; 8 << 20];
    let mut tar = Tar::new();
    let layer = tar.file("big", 0o644, &big).finish();
    let file = docker_archive(&engine.dir().join("b.tar"), "big:1", &[&layer], &json!({}));
    engine.ok(&format!("load -i {}", file.path.display()));
    assert!(size() > before + 7000, "the layer is kept");
    engine.ok("rmi big:1");
    assert!(
        size() < before + 1000,
        "{} kB before, {} kB after",
        before,
        size()
    );
}

#[test]
fn inspect_of_an_image_has_dockers_fields() {
    let engine = Engine::new();
    let text = engine.ok("image inspect busybox");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let image = &value[0];
    assert_eq!(image["RepoTags"], json!([BUSYBOX]));
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(image["RootFS"]["Layers"][0], sha256(busybox_layer()));
    assert!(image["Size"].as_u64().expect("a number") > 100_000);
    assert_eq!(image["Created"], "2024-01-01T00:00:00Z");
}

#[test]
fn history_lists_layers_newest_first() {
    let engine = Engine::new();
    let listed = engine.ok("history busybox");
    assert!(listed.starts_with("IMAGE"), "{listed}");
    assert_eq!(listed.lines().count(), 2);
}

#[test]
fn save_and_load_give_the_same_image() {
    let engine = Engine::new();
    let file = engine.dir().join("saved.tar");
    engine.ok(&format!("save -o {} busybox", file.display()));
    let other = Engine::empty();
    other.ok(&format!("load -i {}", file.display()));
    let id = "image inspect --format '{{.Id}} {{.RootFS.Layers}}' busybox";
    assert_eq!(engine.ok(id), other.ok(id));
    assert_eq!(
        other.ok("run --rm busybox cat /etc/motd"),
        "a file of the image"
    );
}

#[test]
fn save_refuses_to_write_to_a_terminal_or_an_unknown_image() {
    let engine = Engine::new();
    engine.refuses("save nothing-here");
    let terminal = coracle_tests::Terminal::spawn(engine.line("save busybox"));
    assert_ne!(terminal.wait(), 0);
}

#[test]
fn prune_takes_only_what_has_no_name() {
    let engine = Engine::new();
    let layer = Tar::new().file("x", 0o644, b"1").finish();
    for round in 0..2 {
        let layer2 = Tar::new().file("y", 0o644, &[b'0' + round]).finish();
        let file = docker_archive(
            &engine.dir().join("a.tar"),
            "moving:1",
            &[&layer, &layer2],
            &json!({}),
        );
        engine.ok(&format!("load -i {}", file.path.display()));
    }
    assert_eq!(engine.ok("images -a -q").lines().count(), 3);
    engine.ok("image prune -f");
    assert_eq!(engine.ok("images -a -q").lines().count(), 2);
    engine.ok("run --rm busybox true");
}

#[test]
fn unknown_image_is_an_error_that_says_what_to_do() {
    let engine = Engine::empty();
    engine
        .run("run --rm no-such-image true")
        .code(125)
        .error_form(true)
        .err("no-such-image");
    engine.refuses("rmi no-such-image");
    engine.refuses("history no-such-image");
    engine.refuses("tag no-such-image other");
    engine.refuses("image inspect no-such-image");
    engine
        .run("run --rm 'BAD NAME' true")
        .code(125)
        .error_form(false);
}

#[test]
fn corrupt_archives_are_refused_and_nothing_stays() {
    let engine = Engine::empty();
    let archive = busybox_archive(engine.dir());
    let good = fs::read(&archive.path).expect("just written");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        (
            "no tar at all",
            b"hello, this is not a tar archive".repeat(40),
        ),
        ("cut in the middle", good[..middle].to_vec()),
        ("a bit flipped in the layer", flipped),
        ("gzip that ends early", {
            let whole = {
                use std::io::Write;
                let fast = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(&good).expect("memory");
                encoder.finish().expect("memory")
            };
            whole[..whole.len() / 2].to_vec()
        }),
    ];
    for (what, bytes) in cases {
        let file = engine.make_file("bad.tar", &bytes);
        let outcome = engine.run(&format!("load -i {}", file.display()));
        assert_ne!(outcome.code, 0, "{what}: {outcome:?}");
        outcome.error_form(false);
        assert_eq!(engine.ok("images -aq"), "", "{what}");
    }
    engine.ok(&format!("load -i {}", archive.path.display()));
}

#[test]
fn digest_that_does_not_match_is_refused() {
    let engine = Engine::empty();
    let layout = oci_layout(&engine.make_dir("l"), "v1", "tar+gzip");
    let blobs = layout.path.join("blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .expect("it is ours")
        .flatten()
        .max_by_key(|entry| entry.metadata().map(|m| m.len()).unwrap_or(0))
        .expect("a blob");
    // Another valid layer under the first one's name: only the digest can tell.
    let other = Tar::new().file("evil", 0o644, b"x").finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &other).expect("memory");
    fs::write(largest.path(), gzip.finish().expect("memory")).expect("it is ours");
    let line = format!("run --rm oci:{}:v1 true", layout.path.display());
    engine.run(&line).code(125).error_form(false);
    assert_eq!(engine.ok("images -aq"), "");
    assert_eq!(engine.ok("ps -aq"), "");
}

/// Loads one layer on top of busybox. Gives whether it was accepted.
fn load_layer(engine: &Engine, name: &str, layer: &[u8]) -> bool {
    let layers = [busybox_layer(), layer];
    let reference = format!("{name}:1");
    let file = docker_archive(&engine.dir().join("h.tar"), &reference, &layers, &json!({}));
    let outcome = engine.run(&format!("load -i {}", file.path.display()));
    if outcome.code != 0 {
        outcome.error_form(false);
        return false;
    }
    true
}

#[test]
fn hostile_paths_never_leave_the_layer() {
    let engine = Engine::empty();
    let target = engine.dir().join("victim");
    let victim = target.display().to_string();
    let relative = format!("{}{}", "../".repeat(30), &victim[1..]);
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    cases.push((
        "dotdot",
        Tar::new()
            .file(&relative[..relative.len().min(99)], 0o644, b"x")
            .finish(),
    ));
    cases.push((
        "short",
        Tar::new()
            .file("a/../../../../victim", 0o644, b"x")
            .finish(),
    ));
    cases.push(("absolute", Tar::new().file(&victim, 0o644, b"x").finish()));
    let mut through = Tar::new();
    through.symlink("link", &engine.dir().display().to_string());
    through.file("link/victim", 0o644, b"x");
    cases.push(("symlink", through.finish()));
    let mut hard = Tar::new();
    hard.hard_link("stolen", "/etc/shadow")
        .hard_link("stolen2", "../../../../../../etc/shadow");
    cases.push(("hardlink", hard.finish()));
    let mut pax = Entry::new(b'0', "innocent", 0o644);
    pax.pax = vec![("path".into(), relative.clone().into_bytes())];
    cases.push(("pax", Tar::new().entry(&pax, b"x").finish()));
    let mut white = Tar::new();
    white.symlink("out", &engine.dir().display().to_string());
    white
        .file("out/.wh.keep", 0o644, b"")
        .file(".wh...", 0o644, b"");
    cases.push(("whiteout", white.finish()));
    let keep = engine.make_file("keep", "kept");
    for (name, layer) in cases {
        let accepted = load_layer(&engine, name, &layer);
        assert!(!target.exists(), "{name} wrote outside");
        assert_eq!(
            fs::read_to_string(&keep).expect("kept"),
            "kept",
            "{name} deleted outside"
        );
        if accepted {
            // What was taken in lies inside the root, whatever its path said.
            let script = format!("cat /stolen /stolen2; cat {victim} && echo inside; true");
            let args = [
                "run",
                "--rm",
                &format!("{name}:1"),
                "/bin/sh",
                "-c",
                &script,
            ];
            let seen = engine.command(args).run();
            assert!(!seen.stdout.contains("root:"), "{name}: {seen:?}");
            assert!(!target.exists(), "{name} wrote outside when it ran");
        }
    }
}

#[test]
fn devices_of_a_layer_cannot_be_opened() {
    let engine = Engine::empty();
    let mut tar = Tar::new();
    // The memory device, and the first disk.
    tar.device(b'3', "mem", (1, 1))
        .device(b'4', "disk", (254, 0))
        .device(b'4', "sda", (8, 0));
    if load_layer(&engine, "dev", &tar.finish()) {
        let script = "for f in /mem /disk /sda; do dd if=$f of=/dev/null bs=1 count=1 2>/dev/null && echo open $f; done; true";
        engine
            .command(["run", "--rm", "dev:1", "/bin/sh", "-c", script])
            .run()
            .success()
            .not_out("open");
    }
}

#[test]
fn sizes_that_lie_are_refused() {
    let engine = Engine::empty();
    let mut huge = Entry::new(b'0', "huge", 0o644);
    huge.size = Some(1 << 32);
    assert!(!load_layer(
        &engine,
        "huge",
        &Tar::new().entry(&huge, b"small").finish()
    ));
    let mut pax = Entry::new(b'0', "pax", 0o644);
    pax.pax = vec![("size".into(), b"18446744073709551615".to_vec())];
    assert!(!load_layer(
        &engine,
        "pax",
        &Tar::new().entry(&pax, b"small").finish()
    ));
    let mut negative = Entry::new(b'0', "negative", 0o644);
    negative.pax = vec![("size".into(), b"-1".to_vec())];
    assert!(!load_layer(
        &engine,
        "negative",
        &Tar::new().entry(&negative, b"small").finish()
    ));
    assert_eq!(engine.ok("images -aq"), "");
}

#[test]
fn long_names_sparse_owners_and_attributes_survive() {
    let engine = Engine::empty();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(200));
    let mut file = Entry::new(b'0', "short", 0o4751);
    file.owner = (1000, 2000);
    file.pax = vec![
        ("path".into(), long.clone().into_bytes()),
        ("mtime".into(), b"1700000001.25".to_vec()),
        ("SCHILY.xattr.user.note".into(), b"kept".to_vec()),
    ];
    let mut tar = Tar::new();
    tar.entry(&file, b"content");
    // A link's header describes the same file again.
    let mut link = Entry {
        kind: b'1',
        path: "second".into(),
        ..file.clone()
    };
    link.pax[0] = ("linkpath".into(), long.clone().into_bytes());
    tar.entry(&link, &[]);
    assert!(load_layer(&engine, "meta", &tar.finish()));
    let script = format!("stat -c '%a %u %g %Y %h %s' /{long}; cat /second");
    let seen = engine
        .command(["run", "--rm", "meta:1", "/bin/sh", "-c", &script])
        .run()
        .success();
    assert_eq!(seen.text(), "4751 1000 2000 1700000001 2 7\ncontent");
}
