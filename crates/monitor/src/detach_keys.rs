//! The key sequence that leaves a container without ending it, in Docker's grammar: `ctrl-p,ctrl-q`.
//!
//! Bytes of a sequence that was begun are held back until it is completed or broken; then they are passed on, in
//! order, before what broke it. A byte that breaks a sequence can begin the next one.

use std::str::FromStr;

use crate::error::Error;

/// A parsed sequence; empty means that detaching by keys is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// `ctrl-p,ctrl-q`.
    fn default() -> Self {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// No sequence: every byte is passed on.
    pub fn none() -> DetachKeys {
        DetachKeys(Vec::new())
    }

    /// A scanner at the beginning of an input.
    pub fn scanner(&self) -> Scanner {
        Scanner {
            keys: self.0.clone(),
            matched: 0,
        }
    }
}

impl FromStr for DetachKeys {
    type Err = Error;

    /// Parses single characters and `ctrl-X`, separated by commas; the empty text is [`DetachKeys::none`].
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |why| Error::DetachKeys {
            text: text.chars().take(64).collect(),
            why,
        };
        if text.is_empty() {
            return Ok(DetachKeys::none());
        }
        let mut keys = Vec::new();
        for key in text.split(',') {
            let byte = match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
                ([byte], _) if byte.is_ascii() => *byte,
                (_, Some([letter @ b'a'..=b'z'])) => letter - b'a' + 1,
                (_, Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => sign - b'@',
                (_, Some(_)) => return Err(refused("unknown control key")),
                ([], _) => return Err(refused("a key is missing between commas")),
                _ => return Err(refused("a key is one character or ctrl-X")),
            };
            keys.push(byte);
        }
        Ok(DetachKeys(keys))
    }
}

/// Finds the sequence in a stream of input.
#[derive(Debug)]
pub struct Scanner {
    keys: Vec<u8>,
    matched: usize,
}

impl Scanner {
    /// Appends to `out` what of `input` is to be passed on. Returns whether the sequence was completed; the rest of the
    /// input is dropped then.
    pub fn scan(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            self.matched = loop {
                if byte == self.keys[self.matched] {
                    break self.matched + 1;
                }
                if self.matched == 0 {
                    out.push(byte);
                    break 0;
                }
                // The longest beginning of the sequence that still ends here, as in a text search: what it no
                // longer covers was ordinary input.
                let shorter = self.border();
                out.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            };
            if self.matched == self.keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// At the end of the input: the bytes that were held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keys[..self.matched]);
        self.matched = 0;
    }

    fn border(&self) -> usize {
        let seen = &self.keys[..self.matched];
        (0..self.matched)
            .rev()
            .find(|length| seen.ends_with(&self.keys[..*length]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_is_dockers() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            (
                "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_",
                &[0, 27, 28, 29, 30, 31],
            ),
            ("a,b,c", b"abc"),
            ("ctrl-a", &[1]),
            ("ctrl-z,x", &[26, b'x']),
            ("", b""),
        ] {
            let keys: DetachKeys = text.parse().expect(text);
            assert_eq!(keys.0, bytes, "{text}");
        }
        for text in [
            ",", "a,", "ctrl-", "ctrl-A", "ctrl-pp", "ab", "é", "ctrl-1", "ctrl p",
        ] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sequence_is_found_and_the_rest_is_passed_on() {
        // (keys, reads, passed on, detached)
        type Row = (&'static str, &'static [&'static [u8]], &'static [u8], bool);
        let table: &[Row] = &[
            ("ctrl-p,ctrl-q", &[b"ls\n"], b"ls\n", false),
            ("ctrl-p,ctrl-q", &[b"ls\x10\x11rest"], b"ls", true),
            ("ctrl-p,ctrl-q", &[b"\x10", b"\x11"], b"", true),
            ("ctrl-p,ctrl-q", &[b"\x10", b"x"], b"\x10x", false),
            ("ctrl-p,ctrl-q", &[b"\x10\x10\x11"], b"\x10", true),
            ("ctrl-p,ctrl-q", &[b"\x11\x10"], b"\x11\x10", false),
            ("a,a,b", &[b"aaab"], b"a", true),
            ("a,b,a,c", &[b"ababac"], b"ab", true),
            ("ctrl-a", &[b"xy\x01z"], b"xy", true),
            ("", &[b"\x10\x11"], b"\x10\x11", false),
        ];
        for (keys, reads, passed, detached) in table {
            let mut scanner = keys.parse::<DetachKeys>().expect(keys).scanner();
            let mut out = Vec::new();
            let found = reads.iter().any(|read| scanner.scan(read, &mut out));
            scanner.finish(&mut out);
            assert_eq!((&out[..], found), (*passed, *detached), "{keys} {reads:?}");
        }
    }
}
