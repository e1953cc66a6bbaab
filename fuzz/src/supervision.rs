//! What monitors read and write: frames, keys, logs.

use std::fs;
use std::path::Path;

use coracle_monitor::DetachKeys;
use coracle_monitor::log::{LogEntry, LogQuery, LogReader};

use crate::scratch::Scratch;
use crate::two;

/// A frame of the attach protocol.
pub(crate) fn frame(data: &[u8]) {
    coracle_monitor::fuzzing::frame(data);
}

/// Keys, and input that is scanned for them: whole and byte by byte alike.
pub(crate) fn detach_keys(data: &[u8]) {
    let Some((keys, input)) = two(data) else {
        return;
    };
    let Ok(keys) = keys.parse::<DetachKeys>() else {
        return;
    };
    let (mut whole, mut single) = (Vec::new(), Vec::new());
    let found = keys.scanner().scan(input.as_bytes(), &mut whole);
    let mut scanner = keys.scanner();
    let again = input
        .as_bytes()
        .iter()
        .any(|byte| scanner.scan(&[*byte], &mut single));
    assert_eq!((found, whole), (again, single));
}

/// One line of a log.
pub(crate) fn line(data: &[u8]) {
    coracle_monitor::fuzzing::line(data);
}

/// A log: the first byte says how many lines of its tail are read, the second where it was rotated.
pub(crate) fn reader(data: &[u8]) {
    let [tail, cut, log @ ..] = data else { return };
    let scratch = Scratch::new();
    let path = scratch.inside().join("log");
    fs::write(&path, log).expect("it is ours");
    let all = entries(&path, None);
    let some = entries(&path, Some(u64::from(*tail)));
    assert!(some.len() <= usize::from(*tail) && all.ends_with(&some));

    let near = log.len() * usize::from(*cut) / 255;
    let Some(end) = log[..near].iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    fs::write(scratch.inside().join("log.1"), &log[..=end]).expect("it is ours");
    fs::write(&path, &log[end + 1..]).expect("it is ours");
    assert_eq!(entries(&path, None), all);
    assert_eq!(entries(&path, Some(u64::from(*tail))), some);
    scratch.check();
}

fn entries(path: &Path, tail: Option<u64>) -> Vec<LogEntry> {
    let query = LogQuery {
        tail,
        ..LogQuery::default()
    };
    let mut reader = LogReader::open(path, query).expect("it is there");
    std::iter::from_fn(|| reader.next_entry().expect("it can be read")).collect()
}
