//! One line of a log: docs/format/log.md, "A line". Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest text of one line; longer lines are cut.
pub(super) const TEXT_LIMIT: usize = 16 * 1024;

/// Longest document a reader takes for a line: every byte of the text as `\u00XX`, and room for the rest.
pub(super) const LINE_LIMIT: usize = 6 * TEXT_LIMIT + 4096;

/// Which of the container's streams a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: Stream,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// The parts of a line's document; `None` if it is none.
pub(super) fn parse(line: &[u8]) -> Option<(String, Stream, Timestamp)> {
    let document: Document<'_> = serde_json::from_slice(line).ok()?;
    let time = document.time.parse().ok()?;
    Some((document.log.into_owned(), document.stream, time))
}

/// Appends a line for `text`, with `time` as it is printed.
pub(super) fn append(out: &mut Vec<u8>, text: &[u8], stream: Stream, time: &str) {
    out.reserve(text.len() + 80);
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut copied = 0;
    for (index, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[copied..index]);
        copied = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// Where to cut a text that is longer than [`TEXT_LIMIT`]: there, or before the UTF-8 sequence that lies across.
pub(super) fn cut(text: &[u8]) -> usize {
    let continuation = |byte: u8| byte & 0xc0 == 0x80;
    (TEXT_LIMIT - 3..=TEXT_LIMIT)
        .rev()
        .find(|at| text.get(*at).is_none_or(|byte| !continuation(*byte)))
        .unwrap_or(TEXT_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.123456789Z";

    fn line(text: &[u8], stream: Stream) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, text, stream, TIME);
        out
    }

    #[test]
    fn line_has_dockers_form() {
        let printed = line(b"say \"hi\"\\\t\x1b[0m\x7f\xc3\xa9\r\n", Stream::Stdout);
        assert_eq!(
            String::from_utf8(printed).expect("UTF-8"),
            "{\"log\":\"say \\\"hi\\\"\\\\\\t\\u001b[0m\x7fé\\r\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.123456789Z\"}\n"
        );
    }

    #[test]
    fn every_text_reads_back_and_stays_on_one_line() {
        let all: Vec<u8> = (0..=255).collect();
        for text in [
            &all[..],
            b"",
            b"\n",
            "\u{2028}é😀".as_bytes(),
            b"\xff\xfe",
            b"\xe2\x82",
        ] {
            let printed = line(text, Stream::Stderr);
            assert_eq!(printed.iter().filter(|b| **b == b'\n').count(), 1);
            let (read, stream, time) = parse(&printed).expect("a document");
            assert_eq!(read, String::from_utf8_lossy(text));
            assert_eq!((stream, time.to_string().as_str()), (Stream::Stderr, TIME));
        }
    }

    #[test]
    fn what_is_no_line_is_none() {
        for text in [
            &b""[..],
            b"{\"log\":\"half",
            b"\0\0\0\0",
            b"{\"log\":\"a\",\"stream\":\"stdin\",\"time\":\"2026-01-02T03:04:05Z\"}",
            b"{\"log\":\"a\",\"stream\":\"stdout\",\"time\":\"yesterday\"}",
            b"{\"log\":\"a\",\"stream\":\"stdout\"}",
            b"[]",
        ] {
            assert!(parse(text).is_none());
        }
        let with_more =
            br#"{"log":"a\n","attrs":{"tag":"x"},"stream":"stdout","time":"2026-01-02T03:04:05+00:00"}"#;
        assert!(parse(with_more).is_some());
    }

    #[test]
    fn cut_spares_characters() {
        for lead in 0..4 {
            let mut text = vec![b'a'; TEXT_LIMIT - lead];
            text.extend_from_slice("😀😀".as_bytes());
            let at = cut(&text);
            assert!(at <= TEXT_LIMIT && at > TEXT_LIMIT - 4);
            assert!(std::str::from_utf8(&text[..at]).is_ok(), "lead {lead}");
        }
        assert_eq!(cut(&vec![0x80; TEXT_LIMIT + 9]), TEXT_LIMIT);
    }
}
