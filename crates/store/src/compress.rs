//! Recognising and undoing compression: plain, gzip, zstd, by the first bytes, never by a name or a media type.
//!
//! gzip: members follow one another (pigz, bgzip); what follows the last one must be zeros (tape padding) or nothing.
//! zstd: frames follow one another, skippable ones are skipped; anything else after a frame is an error.
//! A limit on what comes out stops bombs; it is an error, never a silent end.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// 0x184D2A50 to 0x184D2A5F, little-endian: the first byte varies in its low half.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BUFFER: usize = 128 << 10;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What these first bytes (four are enough) begin.
    pub fn of(start: &[u8]) -> Compression {
        if start.starts_with(&GZIP) {
            Compression::Gzip
        } else if start.starts_with(&ZSTD)
            || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE)
        {
            Compression::Zstd
        } else {
            Compression::None
        }
    }
}

/// The uncompressed stream. `limit`: the most bytes that may come out.
pub fn decompress<'a>(
    mut reader: impl Read + Send + 'a,
    limit: u64,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = [0; 4];
    let mut length = 0;
    while length < start.len() {
        match reader.read(&mut start[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = io::Cursor::new(start).take(length as u64).chain(reader);
    Ok(match Compression::of(&start[..length]) {
        Compression::None => Box::new(Bounded {
            inner: whole,
            left: limit,
            limit,
        }),
        Compression::Gzip => {
            let inner = Gzip::new(BufReader::with_capacity(BUFFER, whole));
            Box::new(Bounded {
                inner,
                left: limit,
                limit,
            })
        }
        Compression::Zstd => {
            let inner = ZstdDecoder::with_buffer(BufReader::with_capacity(BUFFER, whole))?;
            Box::new(Bounded {
                inner,
                left: limit,
                limit,
            })
        }
    })
}

/// Passes at most `left` bytes; more is an error.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "the stream becomes more than {} bytes when it is decompressed",
                    self.limit
                ),
            )
        })?;
        Ok(length)
    }
}

/// All members of a gzip stream, and the check of what follows them.
struct Gzip<R> {
    /// `None` between members and after the last one.
    member: Option<GzDecoder<R>>,
    /// The source, while there is no member.
    trailer: Option<R>,
    /// Zeros were seen: no further member may come.
    padding: bool,
}

impl<R: BufRead> Gzip<R> {
    fn new(input: R) -> Gzip<R> {
        Gzip {
            member: Some(GzDecoder::new(input)),
            trailer: None,
            padding: false,
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(decoder) = &mut self.member {
                let length = decoder.read(buffer)?;
                if length > 0 {
                    return Ok(length);
                }
                self.trailer = self.member.take().map(GzDecoder::into_inner);
            }
            let Some(input) = &mut self.trailer else {
                return Ok(0);
            };
            let piece = input.fill_buf()?;
            if piece.is_empty() {
                return Ok(0);
            }
            if piece[0] == GZIP[0] && !self.padding {
                self.member = self.trailer.take().map(GzDecoder::new);
                continue;
            }
            if piece.iter().any(|byte| *byte != 0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the gzip stream is followed by something that is neither gzip nor padding",
                ));
            }
            let length = piece.len();
            input.consume(length);
            self.padding = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn all(data: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(data, limit)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_form_is_recognised_by_its_first_bytes() {
        let two_frames = [
            zstd::encode_all(&b"one"[..], 1).unwrap(),
            zstd::encode_all(&b"two"[..], 1).unwrap(),
        ]
        .concat();
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &two_frames].concat();
        for (name, data, expected) in [
            ("plain", b"onetwo".to_vec(), &b"onetwo"[..]),
            ("short", b"x".to_vec(), b"x"),
            ("empty", Vec::new(), b""),
            (
                "gzip members",
                [gzip(b"one"), gzip(b"two")].concat(),
                b"onetwo",
            ),
            (
                "gzip and padding",
                [gzip(b"one"), vec![0; 700]].concat(),
                b"one",
            ),
            ("zstd frames", two_frames.clone(), b"onetwo"),
            ("zstd skippable", skippable, b"onetwo"),
        ] {
            assert_eq!(all(&data, 1000).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn damage_and_garbage_are_errors() {
        let whole = gzip(&[7; 5000]);
        let zstd = zstd::encode_all(&[7u8; 5000][..], 1).unwrap();
        let mut flipped = whole.clone();
        let end = flipped.len() - 6;
        flipped[end] ^= 1;
        for (name, data) in [
            ("gzip cut", whole[..whole.len() - 9].to_vec()),
            (
                "gzip without its trailer",
                whole[..whole.len() - 4].to_vec(),
            ),
            ("gzip flipped", flipped),
            ("gzip and garbage", [&whole[..], b"garbage"].concat()),
            ("gzip, zeros, garbage", [&whole[..], &[0, 0, 1]].concat()),
            ("zstd cut", zstd[..zstd.len() - 2].to_vec()),
            ("zstd and garbage", [&zstd[..], b"garbage"].concat()),
        ] {
            assert!(all(&data, 1 << 20).is_err(), "{name}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert_eq!(all(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        let error = all(&bomb, (1 << 20) - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
