//! What archives become: the same on both drivers, and exactly the archive comes back.

mod support;

use coracle_store::tar::{Entry, EntryKind};
use coracle_store::{Options, decompress};
use support::{archive, directory, file, header, ingest, link, padded, pax, root, stores, tar};

#[test]
fn a_tree_of_every_kind_is_as_the_archive_says() {
    let test = "a_tree_of_every_kind_is_as_the_archive_says";
    if !root(test) {
        return;
    }
    let mut program = file("bin/tool", &[7; 5000]);
    program.0.mode = 0o4755;
    program.0.uid = 70_000;
    program.0.gid = 4_000_000_000;
    program.0.mtime = -5;
    program.0.mtime_nsec = 250_000_000;
    let capability = [
        1u8, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]
    .to_vec();
    program.0.xattrs = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.note".to_vec(), b"hello".to_vec()),
        (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
    ];
    let mut null = (Entry::new(EntryKind::Character, b"dev/null"), Vec::new());
    null.0.device = (1, 3);
    null.0.mode = 0o666;
    let mut disk = (Entry::new(EntryKind::Block, b"dev/disk"), Vec::new());
    disk.0.device = (8, 300);
    let long = "x".repeat(255);
    let target = "t/".repeat(900);
    let mut many: Vec<_> = (0..300)
        .map(|n| file(&format!("many/name-{n:04}"), &[n as u8; 3]))
        .collect();
    many.reverse();
    let mut entries = vec![
        directory("./", 0o755),
        directory("bin/", 0o1777),
        program,
        directory("dev/", 0o700),
        null,
        disk,
        (Entry::new(EntryKind::Fifo, b"dev/pipe"), Vec::new()),
        file("empty", b""),
        file("!first", b"sorts before dot"),
        link(EntryKind::Symlink, "link", "bin/tool"),
        link(EntryKind::Symlink, "long-link", &target),
        link(EntryKind::HardLink, "bin/again", "bin/tool"),
        link(EntryKind::HardLink, "link-again", "link"),
        file(&format!("deep/{long}/{long}/{long}/end"), b"deep"),
        file("etc/.wh.gone", b""),
        file("opaque/.wh..wh..opq", b""),
        file("opaque/kept", b"kept"),
        file(".wh..wh.plnk/1.2", b"aufs"),
    ];
    entries.append(&mut many);
    for (_place, store) in stores(test, Options::default()) {
        let tree = ingest(&store, &tar(&entries)).unwrap();
        let driver = store.driver();
        let tool = &tree["bin/tool"];
        assert_eq!(
            (tool.mode, tool.uid, tool.gid),
            (0o104755, 70_000, 4_000_000_000),
            "{driver:?}"
        );
        assert_eq!(tool.mtime, (-5, 250_000_000), "{driver:?}");
        assert_eq!(tool.content, vec![7; 5000]);
        assert_eq!(tool.links, 2);
        assert_eq!(tool, &tree["bin/again"]);
        let names: Vec<_> = tool.xattrs.keys().map(String::as_str).collect();
        assert_eq!(names, ["security.capability", "user.note"], "{driver:?}");
        assert_eq!(tool.xattrs["security.capability"], capability);
        assert_eq!(tree["bin"].mode, 0o041777);
        assert_eq!(tree["dev/null"].device, rustix::fs::makedev(1, 3));
        assert_eq!(
            (tree["dev/null"].mode, tree["dev/disk"].device),
            (0o020666, rustix::fs::makedev(8, 300))
        );
        assert_eq!(tree["dev/pipe"].mode & 0o170000, 0o010000);
        assert_eq!(tree["empty"].content, b"");
        assert_eq!(tree["!first"].content, b"sorts before dot");
        assert_eq!(
            (&tree["link"].content[..], tree["link"].links),
            (&b"bin/tool"[..], 2)
        );
        assert_eq!(tree["long-link"].content, target.as_bytes());
        assert_eq!(
            tree[&format!("deep/{long}/{long}/{long}/end")].content,
            b"deep"
        );
        assert_eq!(
            tree["deep"].mode, 0o040755,
            "a parent that is not in the archive"
        );
        assert_eq!(
            (tree["etc/gone"].mode & 0o170000, tree["etc/gone"].device),
            (0o020000, 0)
        );
        assert_eq!(tree["opaque"].xattrs["trusted.overlay.opaque"], b"y");
        assert_eq!(tree["opaque/kept"].content, b"kept");
        assert!(!tree.keys().any(|name| name.contains(".wh.")), "{driver:?}");
        assert_eq!(
            tree.keys().filter(|name| name.starts_with("many/")).count(),
            300
        );
        assert_eq!(tree["many/name-0299"].content, [43; 3]);
    }
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let test = "the_last_entry_of_a_name_wins";
    if !root(test) {
        return;
    }
    let archive = tar(&[
        file("a", b"first"),
        file("a", b"second"),
        file("d/one", b"1"),
        directory("d/", 0o700),
        file("d/two", b"2"),
        file("gone/deep/er", b"replaced with its directory"),
        link(EntryKind::HardLink, "kept", "gone/deep/er"),
        file("gone", b"a file now"),
        link(EntryKind::Symlink, "s", "nowhere"),
        directory("s/", 0o711),
        file("h", b"old"),
        link(EntryKind::HardLink, "h2", "h"),
        file("h", b"new"),
        file("w/.wh.x", b""),
        file("w/x/in", b"below a whiteout"),
        file("v/y/in", b"v"),
        file("v/.wh.y", b""),
        file("u/.wh.z", b""),
        file("u/z", b"no effect"),
        link(EntryKind::HardLink, "self", "a"),
        link(EntryKind::HardLink, "a", "self"),
    ]);
    for (_place, store) in stores(test, Options::default()) {
        let tree = ingest(&store, &archive).unwrap();
        let driver = store.driver();
        let content = |name: &str| String::from_utf8_lossy(&tree[name].content).into_owned();
        assert_eq!(content("a"), "second", "{driver:?}");
        assert_eq!(
            (content("d/one"), content("d/two"), tree["d"].mode),
            ("1".into(), "2".into(), 0o040700)
        );
        assert_eq!(
            (content("gone"), content("kept")),
            ("a file now".into(), "replaced with its directory".into())
        );
        assert!(!tree.contains_key("gone/deep"));
        assert_eq!(tree["s"].mode, 0o040711);
        assert_eq!((content("h"), content("h2")), ("new".into(), "old".into()));
        assert_eq!(
            (tree["h"].links, tree["h2"].links, tree["a"].links),
            (1, 1, 2),
            "{driver:?}"
        );
        for opaque in ["w/x", "v/y"] {
            assert_eq!(
                tree[opaque].xattrs["trusted.overlay.opaque"], b"y",
                "{driver:?} {opaque}"
            );
        }
        assert_eq!(content("u/z"), "no effect");
    }
}

#[test]
fn symlinks_in_parents_stay_inside() {
    let test = "symlinks_in_parents_stay_inside";
    if !root(test) {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let escape = format!("{}/", outside.path().display());
    let archive = tar(&[
        link(EntryKind::Symlink, "abs", &escape),
        file("abs/planted", b"x"),
        link(
            EntryKind::Symlink,
            "up",
            "../../../../../../../../../../etc",
        ),
        file("up/planted", b"y"),
        directory("usr/lib/", 0o755),
        link(EntryKind::Symlink, "lib", "usr/lib"),
        file("lib/so", b"z"),
        link(EntryKind::HardLink, "hard", "lib/so"),
    ]);
    for (_place, store) in stores(test, Options::default()) {
        let tree = ingest(&store, &archive).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = format!("{}/planted", &escape[1..escape.len() - 1]);
        assert_eq!(tree[&inside].content, b"x");
        assert_eq!(tree["etc/planted"].content, b"y");
        assert_eq!(tree["usr/lib/so"].content, b"z");
        assert_eq!(tree["hard"].content, b"z");
    }
}

#[test]
fn sparse_files_of_every_format_have_their_holes() {
    let test = "sparse_files_of_every_format_have_their_holes";
    let data: Vec<u8> = (0..6000u32).map(|n| n as u8).collect();
    // 4096 bytes at 8192, 1904 bytes at 65536, the file ends at 100000.
    let mut expected = vec![0; 100_000];
    expected[8192..8192 + 4096].copy_from_slice(&data[..4096]);
    expected[65536..65536 + 1904].copy_from_slice(&data[4096..]);
    let octal = |value: u64| format!("{value:011o}\0").into_bytes();
    let old = header(b"old", b'S', 6000, |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        for (at, value) in [
            (386, 8192),
            (398, 4096),
            (410, 65536),
            (422, 1904),
            (434, 100_000),
            (446, 0),
            (483, 100_000),
        ] {
            block[at..at + 12].copy_from_slice(&octal(value));
        }
    });
    let map = padded(b"2\n8192\n4096\n65536\n1904\n");
    let v1 = [map, padded(&data)].concat();
    // Odd places: nothing of it can be mapped.
    let mut odd = vec![0; 50_001];
    odd[1000..1010].copy_from_slice(&data[..10]);
    odd[5000..5700].copy_from_slice(&data[10..710]);
    odd[50_000] = data[710];
    let archive = archive(&[
        old,
        padded(&data),
        pax(&[
            ("GNU.sparse.size", b"100000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"8192"),
            ("GNU.sparse.numbytes", b"4096"),
            ("GNU.sparse.offset", b"65536"),
            ("GNU.sparse.numbytes", b"1904"),
        ]),
        header(b"v00", b'0', 6000, |_| {}),
        padded(&data),
        pax(&[
            ("GNU.sparse.name", b"v01"),
            ("GNU.sparse.size", b"100000"),
            ("GNU.sparse.map", b"8192,4096,65536,1904"),
        ]),
        header(b"GNUSparseFile.0/v01", b'0', 6000, |_| {}),
        padded(&data),
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"100000"),
        ]),
        header(b"GNUSparseFile.0/v10", b'0', v1.len() as u64 - 144, |_| {}),
        v1,
        pax(&[
            ("GNU.sparse.name", b"odd"),
            ("GNU.sparse.size", b"50001"),
            ("GNU.sparse.map", b"1000,10,5000,700,50000,1"),
        ]),
        header(b"x", b'0', 711, |_| {}),
        padded(&data[..711]),
        pax(&[
            ("GNU.sparse.name", b"hole"),
            ("GNU.sparse.size", b"3000000000"),
            ("GNU.sparse.map", b"0,0"),
        ]),
        header(b"x", b'0', 0, |_| {}),
    ]);
    for (_place, store) in stores(test, Options::default()) {
        let layer = store.ingest_layer(&archive[..], None).unwrap();
        let opened = support::open(&layer);
        for name in ["old", "v00", "v01", "v10"] {
            assert!(
                std::fs::read(opened.path.join(name)).unwrap() == expected,
                "{name} {:?}",
                store.driver()
            );
        }
        assert!(
            std::fs::read(opened.path.join("odd")).unwrap() == odd,
            "odd {:?}",
            store.driver()
        );
        let hole = std::fs::File::open(opened.path.join("hole")).unwrap();
        assert_eq!(hole.metadata().unwrap().len(), 3_000_000_000);
        let mut end = [1; 10];
        std::os::unix::fs::FileExt::read_exact_at(&hole, &mut end, 2_999_999_990).unwrap();
        assert_eq!(end, [0; 10]);
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut layer.tar().unwrap(), &mut back).unwrap();
        assert!(back == archive, "{:?}", store.driver());
    }
}

#[test]
fn long_names_and_large_numbers_of_gnu_tar_are_read() {
    let test = "long_names_and_large_numbers_of_gnu_tar_are_read";
    if !root(test) {
        return;
    }
    let name = format!("d/{}", "n".repeat(200));
    let target = "t".repeat(300);
    let archive = archive(&[
        header(b"././@LongLink", b'L', name.len() as u64 + 1, |_| {}),
        padded(&[name.as_bytes(), b"\0"].concat()),
        header(b"cut", b'0', 2, |block| {
            block[257..265].copy_from_slice(b"ustar  \0");
            block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 1, 0, 0]);
            block[136..148].copy_from_slice(&[0xff; 12]);
        }),
        padded(b"ok"),
        header(b"././@LongLink", b'K', target.len() as u64, |_| {}),
        padded(target.as_bytes()),
        header(b"l", b'2', 0, |_| {}),
        header(b"v7dir/", 0, 0, |block| block[257..265].fill(0)),
    ]);
    for (_place, store) in stores(test, Options::default()) {
        let tree = ingest(&store, &archive).unwrap();
        assert_eq!(tree[&name].content, b"ok");
        assert_eq!((tree[&name].uid, tree[&name].mtime), (65536, (-1, 0)));
        assert_eq!(tree["l"].content, target.as_bytes());
        assert_eq!(tree["v7dir"].mode & 0o170000, 0o040000);
    }
}

#[test]
fn compressed_layers_have_the_digest_of_what_is_in_them() {
    let plain = tar(&[file("a", &[1; 100_000])]);
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    for (_place, store) in stores(
        "compressed_layers_have_the_digest_of_what_is_in_them",
        Options::default(),
    ) {
        let layer = store
            .ingest_layer(decompress(&zstd[..], 1 << 30).unwrap(), None)
            .unwrap();
        assert_eq!(layer.diff_id, coracle_oci::Digest::of(&plain));
        assert_eq!(layer.size, plain.len() as u64);
        assert_eq!(layer.content_size, 100_000);
        assert_eq!(store.layers().unwrap(), vec![layer.diff_id]);
    }
}
