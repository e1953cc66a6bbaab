//! Upper directories: what changed, and the layer that says so. The overlays are real ones, made with the layers of both drivers.

mod support;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coracle_store::tar::EntryKind;
use coracle_store::{Error, IdMap, IdRange, LayerForm, Options, diff, tar_of_tree, tar_of_upper};
use rustix::fs::OFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use support::{directory, file, link, root, stores, tar};

/// A mounted overlay; detached, so that it goes with this.
struct Overlay {
    _root: OwnedFd,
    path: PathBuf,
}

fn overlay(lowers: &[&Path], place: &Path) -> Result<Overlay, rustix::io::Errno> {
    let (upper, work) = (place.join("upper"), place.join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path).unwrap();
    }
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", *lower)?;
    }
    rustix::mount::fsconfig_set_string(&context, "upperdir", &upper)?;
    rustix::mount::fsconfig_set_string(&context, "workdir", &work)?;
    for (key, value) in [("redirect_dir", "off"), ("metacopy", "off")] {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&mount, ".", flags, rustix::fs::Mode::empty())?;
    // The descriptor of the mount itself would be enough, but not to create files by path.
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    Ok(Overlay { _root: root, path })
}

fn letters(upper: &Path, lowers: &[LayerForm]) -> Vec<String> {
    let changes = diff(upper, lowers, &IdMap::identity()).unwrap();
    changes
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
        .collect()
}

#[test]
fn changes_are_those_that_docker_reports_and_a_commit_gives_the_same_tree() {
    let test = "changes_are_those_that_docker_reports_and_a_commit_gives_the_same_tree";
    if !root(test) {
        return;
    }
    let lower = tar(&[
        directory("etc/", 0o755),
        file("etc/passwd", b"root"),
        file("etc/touched", b"t"),
        file("etc/copied", b"c"),
        file("etc/mode", b"m"),
        directory("quiet/deep/", 0o755),
        file("quiet/deep/changed", b"1"),
        file("gone/a", b"a"),
        file("gone/b", b"b"),
        file("cleared/x", b"x"),
        file("cleared/same", b"s"),
        file("cleared/sub/y", b"y"),
        file("becomes-file/z", b"z"),
        file("becomes-dir", b"f"),
        link(EntryKind::Symlink, "link", "etc"),
    ]);
    let middle = tar(&[
        file("mid", b"m"),
        file("etc/.wh.hidden", b""),
        file("old/.wh..wh..opq", b""),
        file("old/n", b""),
    ]);
    for (place, store) in stores(test, Options::default()) {
        let lower = store.ingest_layer(&lower[..], None).unwrap();
        let middle = store.ingest_layer(&middle[..], None).unwrap();
        let (a, b) = (support::open(&middle), support::open(&lower));
        let merged = match overlay(&[&a.path, &b.path], place.path()) {
            Ok(merged) => merged,
            Err(errno) => {
                eprintln!("SKIP: {test}: an overlay cannot be mounted here: {errno}");
                return;
            }
        };
        let at = |name: &str| merged.path.join(name);
        fs::write(at("etc/passwd"), b"other").unwrap();
        // Opened for writing and closed: copied up, but the same.
        fs::OpenOptions::new()
            .write(true)
            .open(at("etc/copied"))
            .unwrap();
        fs::set_permissions(at("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::File::options()
            .write(true)
            .open(at("etc/touched"))
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        fs::write(at("quiet/deep/changed"), b"2").unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
        fs::remove_dir_all(at("cleared")).unwrap();
        fs::create_dir(at("cleared")).unwrap();
        fs::write(at("cleared/same"), b"s2").unwrap();
        fs::write(at("cleared/new"), b"n").unwrap();
        fs::remove_dir_all(at("becomes-file")).unwrap();
        fs::write(at("becomes-file"), b"now a file").unwrap();
        fs::remove_file(at("becomes-dir")).unwrap();
        fs::create_dir(at("becomes-dir")).unwrap();
        fs::write(at("becomes-dir/in"), b"").unwrap();
        fs::create_dir_all(at("added/deep")).unwrap();
        fs::write(at("added/deep/file"), b"new").unwrap();
        fs::hard_link(at("added/deep/file"), at("added/again")).unwrap();
        symlink("x", at("added/link")).unwrap();
        rustix::fs::setxattr(
            at("added/deep/file"),
            "user.k",
            b"v",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::write(at("temporary"), b"").unwrap();
        fs::remove_file(at("temporary")).unwrap();
        fs::remove_file(at("mid")).unwrap();
        let upper = place.path().join("upper");
        let lowers = [middle.form.clone(), lower.form.clone()];
        let expected = [
            "A /added",
            "A /added/again",
            "A /added/deep",
            "A /added/deep/file",
            "A /added/link",
            "C /becomes-dir",
            "A /becomes-dir/in",
            "C /becomes-file",
            "C /cleared",
            "A /cleared/new",
            "C /cleared/same",
            "D /cleared/sub",
            "D /cleared/x",
            "C /etc",
            "C /etc/mode",
            "C /etc/passwd",
            "C /etc/touched",
            "D /gone",
            "D /mid",
            "C /quiet",
            "C /quiet/deep",
            "C /quiet/deep/changed",
        ];
        assert_eq!(letters(&upper, &lowers), expected, "{:?}", store.driver());

        // The commit: a layer of just these, above the same layers, is the same tree.
        let mut archive = Vec::new();
        let diff_id = tar_of_upper(&upper, &IdMap::identity(), &mut archive).unwrap();
        let mut again = Vec::new();
        assert_eq!(
            tar_of_upper(&upper, &IdMap::identity(), &mut again).unwrap(),
            diff_id
        );
        assert!(archive == again);
        let committed = store.ingest_layer(&archive[..], Some(&diff_id)).unwrap();
        let c = support::open(&committed);
        let other = place.path().join("second");
        let second = overlay(&[&c.path, &a.path, &b.path], &other).unwrap();
        assert_eq!(
            support::walk(&second.path.join(".")),
            support::walk(&merged.path.join(".")),
            "{:?}",
            store.driver()
        );
        assert_eq!(
            letters(
                &other.join("upper"),
                &[committed.form, middle.form, lower.form]
            ),
            [""; 0]
        );

        // The export: one tree without whiteouts, the same again.
        let mut export = Vec::new();
        let tree = fs::File::open(merged.path.join(".")).unwrap();
        tar_of_tree(
            std::os::fd::AsFd::as_fd(&tree),
            &IdMap::identity(),
            &mut export,
        )
        .unwrap();
        let exported = store.ingest_layer(&export[..], None).unwrap();
        assert_eq!(
            support::walk(&support::open(&exported).path),
            support::walk(&merged.path.join("."))
        );
    }
}

#[test]
fn owners_on_disk_become_those_of_the_container() {
    let test = "owners_on_disk_become_those_of_the_container";
    if !root(test) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (upper, lower) = (place.path().join("upper"), place.path().join("lower"));
    for (tree, base) in [(&upper, 100_000), (&lower, 0)] {
        fs::create_dir(tree).unwrap();
        fs::write(tree.join("f"), b"same").unwrap();
        let time = std::time::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(tree.join("f"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        std::os::unix::fs::chown(tree.join("f"), Some(base + 33), Some(base + 7)).unwrap();
        std::os::unix::fs::chown(tree, Some(base), Some(base)).unwrap();
    }
    let range = IdRange {
        inside: 0,
        outside: 100_000,
        count: 1000,
    };
    let ids = IdMap {
        uids: vec![range],
        gids: vec![range],
    };
    let lowers = [LayerForm::Directory(lower)];
    assert_eq!(diff(&upper, &lowers, &ids).unwrap(), vec![]);
    assert_eq!(letters(&upper, &lowers), ["C /f"]);
    let mut archive = Vec::new();
    tar_of_upper(&upper, &ids, &mut archive).unwrap();
    let mut reader = coracle_store::tar::TarReader::new(&archive[..], Default::default());
    let mut owners = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        owners.push((String::from_utf8(entry.path).unwrap(), entry.uid, entry.gid));
    }
    assert_eq!(owners, [("./".into(), 0, 0), ("f".into(), 33, 7)]);
    std::os::unix::fs::chown(upper.join("f"), Some(5), None).unwrap();
    let error = diff(&upper, &lowers, &ids).unwrap_err();
    assert!(matches!(error, Error::Unmapped { id: 5, .. }), "{error}");
}

#[test]
fn what_other_overlay_options_wrote_is_refused_by_name() {
    let test = "what_other_overlay_options_wrote_is_refused_by_name";
    if !root(test) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("moved")).unwrap();
    rustix::fs::setxattr(
        place.path().join("moved"),
        "trusted.overlay.redirect",
        b"/a",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let error = diff(place.path(), &[], &IdMap::identity()).unwrap_err();
    assert!(
        error.to_string().contains("trusted.overlay.redirect"),
        "{error}"
    );
    fs::remove_dir(place.path().join("moved")).unwrap();
    fs::write(place.path().join(".wh.trap"), b"").unwrap();
    let error = tar_of_upper(place.path(), &IdMap::identity(), Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Unarchivable { .. }), "{error}");
}
