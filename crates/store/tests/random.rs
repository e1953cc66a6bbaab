//! Random trees: archive → layer → walk gives the model back, on both drivers, and both give the same.

mod support;

use std::collections::BTreeMap;

use coracle_store::tar::{Entry, EntryKind};
use coracle_store::{Durability, LayerForm, Options};
use proptest::prelude::*;
use support::{Seen, root, stores, tar, walk};

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    Fifo,
    Device(u32, u32),
    /// A hard link to one of the files before it, by number.
    Link(usize),
}

#[derive(Debug, Clone)]
struct Item {
    path: Vec<String>,
    kind: Kind,
    mode: u32,
    uid: u32,
    mtime: (i64, u32),
    xattr: Option<(String, Vec<u8>)>,
}

fn name() -> impl Strategy<Value = String> {
    // Few and short names collide, which is the point; long ones fill directory blocks.
    prop_oneof![
        6 => "[a-d]",
        2 => "[!-,a-z]{1,12}",
        1 => "[a-zé]{200,230}".prop_map(|mut name| { while name.len() > 255 { name.pop(); } name }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        5 => (0usize..3000).prop_flat_map(|size| proptest::collection::vec(any::<u8>(), size)).prop_map(Kind::File),
        3 => Just(Kind::Directory),
        2 => "[a-z./]{1,600}".prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => (1u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Device(major, minor)),
        2 => any::<usize>().prop_map(Kind::Link),
    ];
    let path = proptest::collection::vec(name(), 1..4);
    let xattr = proptest::option::of((
        "user\\.[a-z]{1,20}",
        proptest::collection::vec(any::<u8>(), 0..600),
    ));
    (
        path,
        kind,
        0u32..0o10000,
        0u32..200_000,
        (-1000i64..4_000_000_000, 0u32..1_000_000_000),
        xattr,
    )
        .prop_map(|(path, kind, mode, uid, mtime, xattr)| Item {
            path,
            kind,
            mode,
            uid,
            mtime,
            xattr,
        })
}

/// What the archive says, entry by entry, as plainly as it can be written: a map from path to a shared file.
#[derive(Default)]
struct Model {
    files: Vec<Seen>,
    tree: BTreeMap<String, usize>,
}

impl Model {
    fn new() -> Model {
        let mut model = Model::default();
        model.put("", Model::directory());
        model
    }

    fn directory() -> Seen {
        Seen {
            mode: 0o040755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            content: Vec::new(),
            device: 0,
            links: 0,
            xattrs: BTreeMap::new(),
        }
    }

    fn put(&mut self, path: &str, seen: Seen) {
        self.files.push(seen);
        self.tree.insert(path.to_owned(), self.files.len() - 1);
    }

    fn is_directory(&self, path: &str) -> bool {
        self.tree
            .get(path)
            .is_some_and(|file| self.files[*file].mode & 0o170000 == 0o040000)
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.tree
            .retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// The entry, if every parent is a directory or missing; `None` leaves it out of the archive.
    fn apply(&mut self, item: &Item) -> Option<(Entry, Vec<u8>)> {
        let path = item.path.join("/");
        for depth in 1..item.path.len() {
            let parent = item.path[..depth].join("/");
            if self.tree.contains_key(&parent) && !self.is_directory(&parent) {
                return None;
            }
        }
        let kind = match &item.kind {
            Kind::File(_) => EntryKind::Regular,
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink(_) => EntryKind::Symlink,
            Kind::Fifo => EntryKind::Fifo,
            Kind::Device(..) => EntryKind::Character,
            Kind::Link(_) => EntryKind::HardLink,
        };
        let mut entry = Entry::new(kind, path.as_bytes());
        entry.mode = item.mode;
        (entry.uid, entry.gid) = (item.uid, item.uid / 2);
        (entry.mtime, entry.mtime_nsec) = item.mtime;
        let mut seen = Seen {
            mode: item.mode,
            uid: item.uid,
            gid: item.uid / 2,
            mtime: (item.mtime.0, i64::from(item.mtime.1)),
            links: 1,
            ..Model::directory()
        };
        if matches!(item.kind, Kind::File(_) | Kind::Directory)
            && let Some((name, value)) = &item.xattr
        {
            entry
                .xattrs
                .push((name.clone().into_bytes(), value.clone()));
            seen.xattrs.insert(name.clone(), value.clone());
        }
        let mut data = Vec::new();
        match &item.kind {
            Kind::File(content) => {
                seen.mode |= 0o100000;
                seen.content = content.clone();
                entry.size = content.len() as u64;
                data = content.clone();
            }
            Kind::Directory => {
                seen.mode |= 0o040000;
                seen.links = 0;
            }
            Kind::Symlink(target) => {
                seen.mode = 0o120777;
                seen.content = target.clone().into_bytes();
                entry.link = target.clone().into_bytes();
            }
            Kind::Fifo => seen.mode |= 0o010000,
            Kind::Device(major, minor) => {
                seen.mode |= 0o020000;
                seen.device = rustix::fs::makedev(*major, *minor);
                entry.device = (*major, *minor);
            }
            Kind::Link(number) => {
                let others: Vec<_> = self
                    .tree
                    .keys()
                    .filter(|name| !self.is_directory(name))
                    .cloned()
                    .collect();
                let target = others.get(number.checked_rem(others.len())?)?;
                if *target == path || target.starts_with(&format!("{path}/")) {
                    return None;
                }
                entry.link = target.clone().into_bytes();
                let file = self.tree[target];
                if self.tree.get(&path) != Some(&file) {
                    self.remove(&path);
                    self.parents(item);
                    self.tree.insert(path, file);
                }
                return Some((entry, data));
            }
        }
        if !(self.is_directory(&path) && kind == EntryKind::Directory) {
            self.remove(&path);
        }
        self.parents(item);
        self.put(&path, seen);
        Some((entry, data))
    }

    fn parents(&mut self, item: &Item) {
        for depth in 1..item.path.len() {
            let parent = item.path[..depth].join("/");
            if !self.tree.contains_key(&parent) {
                self.put(&parent, Model::directory());
            }
        }
    }

    fn seen(&self) -> BTreeMap<String, Seen> {
        let mut links: BTreeMap<usize, u64> = BTreeMap::new();
        for file in self.tree.values() {
            *links.entry(*file).or_default() += 1;
        }
        let mut out = BTreeMap::new();
        for (path, file) in &self.tree {
            let mut seen = self.files[*file].clone();
            if seen.links > 0 {
                seen.links = links[file];
            }
            out.insert(path.clone(), seen);
        }
        out
    }
}

#[test]
fn random_trees_come_out_as_they_went_in() {
    let test = "random_trees_come_out_as_they_went_in";
    if !root(test) {
        return;
    }
    let checker = std::process::Command::new("fsck.erofs")
        .arg("--help")
        .output()
        .is_ok();
    let options = Options {
        durability: Durability::Relaxed,
        ..Options::default()
    };
    let stores = stores(test, options);
    let cases = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(cases);
    let mut unchecked = None;
    let result = runner.run(&proptest::collection::vec(item(), 1..60), |items| {
        let mut model = Model::new();
        let entries: Vec<_> = items.iter().filter_map(|item| model.apply(item)).collect();
        let archive = tar(&entries);
        for (_place, store) in &stores {
            let layer = store.ingest_layer(&archive[..], None).unwrap();
            let tree = walk(&support::open(&layer).path);
            prop_assert_eq!(&tree, &model.seen(), "{:?}", store.driver());
            let mut back = Vec::new();
            std::io::Read::read_to_end(&mut layer.tar().unwrap(), &mut back).unwrap();
            prop_assert!(back == archive, "the archive differs");
            if let LayerForm::Erofs(path) = &layer.form {
                prop_assert!(layer.disk_size < archive.len() as u64 * 2 + 20_000);
                if checker {
                    let output = std::process::Command::new("fsck.erofs")
                        .arg(path)
                        .output()
                        .unwrap();
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    if text.contains("blksize")
                        || text.contains("block size")
                        || text.contains("blkszbits")
                    {
                        unchecked_reason(&text);
                    } else {
                        prop_assert!(output.status.success(), "fsck.erofs: {}", text);
                    }
                }
            }
            prop_assert_eq!(store.fsck(false).unwrap().problems, vec![]);
            store.remove_layer(&layer.diff_id).unwrap();
        }
        Ok(())
    });
    if !checker {
        unchecked = Some("fsck.erofs is not installed");
    }
    if let Some(reason) = unchecked {
        eprintln!("SKIP: {test} (the check by erofs-utils only): {reason}");
    }
    result.unwrap();
}

/// erofs-utils before 1.7 knows blocks of 4096 bytes only.
fn unchecked_reason(text: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| eprintln!("SKIP: fsck.erofs cannot read 512-byte blocks: {text}"));
}
