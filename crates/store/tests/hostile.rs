//! Archives that lie or attack: each is refused with its reason, and leaves nothing behind.

mod support;

use coracle_store::tar::{Entry, EntryKind, TarReader};
use coracle_store::{Limits, Options};
use support::{archive, chain, checksum, directory, file, header, link, padded, pax, stores, tar};

fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let short = Limits::default().header_bytes + 1;
    let deep = "d/".repeat(2048) + "f";
    let mut cut_data = archive(&[header(b"a", b'0', 5000, |_| {})]);
    cut_data.truncate(700);
    let mut bad_sum = header(b"a", b'0', 0, |_| {});
    bad_sum[0] = b'b';
    let sparse = |map: &'static [u8], real: &'static [u8], size: u64| {
        archive(&[
            pax(&[
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.size", real),
                ("GNU.sparse.map", map),
            ]),
            header(b"x", b'0', size, |_| {}),
            padded(&vec![1; size as usize]),
        ])
    };
    let loop_of_links = tar(&[
        link(EntryKind::Symlink, "a", "b"),
        link(EntryKind::Symlink, "b", "a"),
        file("a/x", b""),
    ]);
    let mut capability = file("f", b"");
    capability.0.xattrs = vec![(b"security.capability".to_vec(), b"short".to_vec())];
    let mut device = (Entry::new(EntryKind::Character, b"dev"), Vec::new());
    device.0.device = (5000, 1);
    vec![
        ("dotdot", tar(&[file("a/../../b", b"")]), "`..`"),
        ("dotdot alone", tar(&[directory("..", 0o755)]), "`..`"),
        ("absolute dotdot", tar(&[file("/../x", b"")]), "`..`"),
        (
            "dotdot hard link",
            tar(&[link(EntryKind::HardLink, "a", "../../etc/shadow")]),
            "out of the layer",
        ),
        (
            "absolute hard link",
            tar(&[link(EntryKind::HardLink, "a", "/etc/shadow")]),
            "not in the layer",
        ),
        (
            "hard link to a directory",
            tar(&[directory("d", 0o755), link(EntryKind::HardLink, "a", "d")]),
            "is a directory",
        ),
        (
            "hard link before its target",
            tar(&[link(EntryKind::HardLink, "a", "b"), file("b", b"")]),
            "not in the layer",
        ),
        (
            "hard link over its target's directory",
            tar(&[file("d/f", b""), link(EntryKind::HardLink, "d", "d/f")]),
            "would replace",
        ),
        (
            "file as parent",
            tar(&[file("a", b""), file("a/b", b"")]),
            "not a directory",
        ),
        ("root as a file", tar(&[file("./", b"")]), "root of a layer"),
        ("symlink loop", loop_of_links, "too many symlinks"),
        (
            "whiteout of dot",
            tar(&[file("a/.wh..", b"")]),
            "names no file",
        ),
        (
            "whiteout of dotdot",
            tar(&[file("a/.wh...", b"")]),
            "names no file",
        ),
        (
            "whiteout of nothing",
            tar(&[file("a/.wh.", b"")]),
            "names no file",
        ),
        (
            "below a whiteout",
            tar(&[file(".wh.a/b", b"")]),
            "cannot have entries below",
        ),
        (
            "symlink to a whiteout's name",
            tar(&[link(EntryKind::Symlink, "s", ".wh.x"), file("s/f", b"")]),
            "impossible name",
        ),
        (
            "name too long",
            tar(&[file(&"n".repeat(256), b"")]),
            "NAME_MAX",
        ),
        ("path too long", tar(&[file(&deep, b"")]), "PATH_MAX"),
        (
            "NUL in a name",
            archive(&[pax(&[("path", b"a\0b")]), header(b"x", b'0', 0, |_| {})]),
            "NUL",
        ),
        (
            "empty name",
            archive(&[header(b"", b'0', 0, |_| {})]),
            "empty",
        ),
        (
            "empty link target",
            archive(&[header(b"l", b'2', 0, |_| {})]),
            "target of this link",
        ),
        (
            "unknown type",
            archive(&[header(b"a", b'Z', 0, |_| {})]),
            "type is unknown",
        ),
        ("bad checksum", archive(&[bad_sum]), "checksum"),
        ("garbage", archive(&[vec![b'x'; 512]]), "checksum"),
        ("no end", header(b"a", b'0', 0, |_| {}), "end-of-archive"),
        ("empty stream", Vec::new(), "end-of-archive"),
        ("ends in data", cut_data, "in the middle of a file's data"),
        (
            "ends in a header",
            header(b"a", b'0', 0, |_| {})[..300].to_vec(),
            "where a header",
        ),
        (
            "one zero block in the middle",
            [vec![0; 512], header(b"a", b'0', 0, |_| {}), vec![0; 1024]].concat(),
            "single zero block",
        ),
        (
            "pax then the end",
            archive(&[pax(&[("path", b"a")])]),
            "after an extended header",
        ),
        (
            "negative size",
            archive(&[header(b"a", b'0', 0, |b| b[124..136].fill(0xff))]),
            "out of range",
        ),
        (
            "size overflows",
            archive(&[header(b"a", b'0', 0, |b| {
                b[124..136].copy_from_slice(&[
                    0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ])
            })]),
            "out of range",
        ),
        (
            "size beyond the limit",
            archive(&[header(b"a", b'0', 0, |b| {
                b[124..136].copy_from_slice(&[
                    0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ])
            })]),
            "bytes of content",
        ),
        (
            "size is no number",
            archive(&[header(b"a", b'0', 0, |b| {
                b[124..136].copy_from_slice(b"12x456789012")
            })]),
            "octal",
        ),
        (
            "two numbers",
            archive(&[header(b"a", b'0', 0, |b| {
                b[124..136].copy_from_slice(b"0000001 0002")
            })]),
            "follows the number",
        ),
        (
            "uid overflows",
            archive(&[
                pax(&[("uid", b"4294967296")]),
                header(b"a", b'0', 0, |_| {}),
            ]),
            "uid",
        ),
        (
            "uid is minus one",
            archive(&[
                pax(&[("uid", b"4294967295")]),
                header(b"a", b'0', 0, |_| {}),
            ]),
            "uid",
        ),
        (
            "pax size is no number",
            archive(&[pax(&[("size", b"-1")]), header(b"a", b'0', 0, |_| {})]),
            "PAX size",
        ),
        (
            "pax without its length",
            archive(&[header(b"p", b'x', 5, |_| {}), padded(b"a=b\n\n")]),
            "PAX record",
        ),
        (
            "global path",
            archive(&[header(b"p", b'g', 10, |_| {}), padded(b"10 path=a\n")]),
            "every file at once",
        ),
        (
            "too much pax",
            archive(&[header(b"p", b'x', short, |_| {}), vec![0; 512]]),
            "bytes of headers",
        ),
        (
            "huge long name",
            archive(&[
                header(b"p", b'L', 0, |b| {
                    b[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
                }),
                vec![0; 512],
            ]),
            "bytes of headers",
        ),
        (
            "sparse overlap",
            sparse(b"0,10,5,10", b"100", 20),
            "overlap",
        ),
        (
            "sparse beyond the end",
            sparse(b"0,10,95,10", b"100", 20),
            "beyond the file",
        ),
        ("sparse sum", sparse(b"0,10,20,5", b"100", 20), "sum up"),
        (
            "sparse overflow",
            sparse(b"18446744073709551615,10", b"100", 10),
            "overflows",
        ),
        ("sparse pairs", sparse(b"0,10,20", b"100", 20), "pairs"),
        (
            "sparse without a size",
            archive(&[
                pax(&[("GNU.sparse.map", b"0,0")]),
                header(b"x", b'0', 0, |_| {}),
            ]),
            "real size",
        ),
        (
            "sparse of the future",
            archive(&[
                pax(&[("GNU.sparse.major", b"2")]),
                header(b"x", b'0', 0, |_| {}),
            ]),
            "format is unknown",
        ),
        (
            "sparse map that never ends",
            archive(&[
                pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")]),
                header(b"x", b'0', 512, |_| {}),
                padded(b"99999999\n1\n1\n"),
            ]),
            "number",
        ),
        (
            "malformed capability",
            tar(&[capability]),
            "security.capability",
        ),
        ("device out of range", tar(&[device]), "device number"),
    ]
}

#[test]
fn every_hostile_archive_is_refused_with_its_reason() {
    for (_place, store) in stores(
        "every_hostile_archive_is_refused_with_its_reason",
        Options::default(),
    ) {
        for (name, archive, reason) in refused() {
            let error = match store.ingest_layer(&archive[..], None) {
                Ok(_) => panic!("{name}: accepted by {:?}", store.driver()),
                Err(error) => chain(&error),
            };
            assert!(error.contains(reason), "{name}: {error}");
        }
        assert_eq!(store.layers().unwrap(), vec![]);
        assert_eq!(
            std::fs::read_dir(store.root().join("tmp")).unwrap().count(),
            0
        );
    }
}

#[test]
fn limits_stop_bombs() {
    let small = Limits {
        entries: 10,
        archive_bytes: 100_000,
        content_bytes: 50_000,
        header_bytes: 4096,
        xattr_bytes: 100,
        metadata_bytes: 2000,
        ..Limits::default()
    };
    let many: Vec<_> = (0..11).map(|n| file(&format!("{n}"), b"")).collect();
    let mut attributes = file("f", b"");
    attributes.0.xattrs = vec![(b"user.a".to_vec(), vec![b'v'; 200])];
    let names: Vec<_> = (0..9)
        .map(|n| file(&format!("{n}{}", "n".repeat(250)), b""))
        .collect();
    let hole = archive(&[
        pax(&[
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.size", b"60000"),
            ("GNU.sparse.map", b"0,0"),
        ]),
        header(b"x", b'0', 0, |_| {}),
    ]);
    let options = Options {
        limits: small,
        ..Options::default()
    };
    for (_place, store) in stores("limits_stop_bombs", options) {
        for (archive, reason) in [
            (tar(&many), "10 entries"),
            (tar(&[file("a", &[0; 60_000])]), "50000 bytes of content"),
            (hole.clone(), "50000 bytes of content"),
            (
                tar(&[attributes.clone()]),
                "100 bytes of extended attributes",
            ),
            (tar(&names), "2000 bytes of metadata"),
            ([tar(&[]), vec![0; 200_000]].concat(), "100000 bytes"),
        ] {
            let error = chain(&store.ingest_layer(&archive[..], None).unwrap_err());
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}

#[test]
fn a_layer_with_another_digest_is_not_kept() {
    let wanted = coracle_oci::Digest::of(b"something else");
    for (_place, store) in stores(
        "a_layer_with_another_digest_is_not_kept",
        Options::default(),
    ) {
        let error = store
            .ingest_layer(&tar(&[file("a", b"a")])[..], Some(&wanted))
            .unwrap_err();
        assert!(error.to_string().contains("digest mismatch"), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(store.layers().unwrap(), vec![]);
        assert!(store.layer(&wanted).unwrap().is_none());
    }
}

#[test]
fn a_source_that_fails_is_named() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the line went dead"));
            }
            self.0 -= 1;
            buffer[..512].copy_from_slice(&header(b"a", b'0', 1 << 30, |_| {}));
            Ok(512)
        }
    }
    for (_place, store) in stores("a_source_that_fails_is_named", Options::default()) {
        let error = chain(&store.ingest_layer(Failing(3), None).unwrap_err());
        assert!(error.contains("the line went dead"), "{error}");
        let error = chain(&store.put_blob(Failing(3), None).unwrap_err());
        assert!(error.contains("the line went dead"), "{error}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever bytes come, the reader returns: an entry, the end, or an error.
    #[test]
    fn mutated_archives_never_panic(
        changes in proptest::collection::vec((0usize..8192, proptest::num::u8::ANY), 0..40),
        cut in 0usize..10_000,
        fix in proptest::bool::ANY,
    ) {
        let mut data = archive(&[
            pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"v"), ("size", b"700")]),
            header(b"x", b'0', 700, |_| {}),
            padded(&[1; 700]),
            pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000"), ("GNU.sparse.name", b"s")]),
            header(b"y", b'0', 612, |_| {}),
            padded(b"2\n0\n50\n600\n50\n"),
            padded(&[2; 100]),
            header(b"old", b'S', 0, |block| block[482] = 1),
            vec![0; 512],
            header(b"h", b'1', 0, |block| block[157] = b'x'),
            header(b"a/.wh..wh..opq", b'0', 0, |_| {}),
        ]);
        for (at, value) in changes {
            let length = data.len();
            data[at % length] = value;
        }
        if fix {
            // Otherwise nearly every change ends at a checksum.
            for block in data.chunks_exact_mut(512) {
                if block.iter().any(|byte| *byte != 0) {
                    checksum(block);
                }
            }
        }
        data.truncate(cut.max(1));
        let mut reader = TarReader::new(&data[..], Limits { entries: 100, ..Limits::default() });
        while let Ok(Some(entry)) = reader.next_entry() {
            assert!(entry.mode <= 0o7777 && entry.mtime_nsec < 1_000_000_000);
            assert!(entry.data_offset % 512 == 0);
            let sum = entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|s| s.length).sum());
            assert_eq!(sum, entry.data_size);
        }
    }
}
