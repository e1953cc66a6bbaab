//! One 512-byte header block: fields to values.
//!
//! ```text
//! 0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8 | 156 type 1 | 157 link 100
//! 257 magic 6 | 263 version 2 | 265 user 32 | 297 group 32 | 329 major 8 | 337 minor 8 | 345 prefix 155
//! GNU (magic "ustar  \0") has no prefix; a sparse one: 386 four × (offset 12, length 12) | 482 extended 1 | 483 real size 12
//! ```

use std::ops::Range;

use super::{BLOCK, TarError};

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;

/// Which dialect a header speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no magic, no device numbers.
    V7,
    /// POSIX, PAX included.
    Ustar,
    /// GNU.
    Gnu,
}

/// A block, and where it was.
pub(super) struct Header<'a> {
    pub(super) block: &'a [u8; BLOCK],
    pub(super) offset: u64,
}

impl<'a> Header<'a> {
    /// A header whose checksum is right.
    pub(super) fn parse(block: &'a [u8; BLOCK], offset: u64) -> Result<Header<'a>, TarError> {
        let header = Header { block, offset };
        let stored = header.number(CHECKSUM, "checksum")?;
        let (unsigned, signed) = checksums(block);
        // Some old writers summed signed characters; POSIX readers accept both.
        if stored != i128::from(unsigned) && stored != i128::from(signed) {
            return Err(TarError::Header {
                offset,
                reason: "its checksum does not match",
            });
        }
        Ok(header)
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.block[MAGIC] {
            b"ustar  \0" => Dialect::Gnu,
            magic if &magic[..5] == b"ustar" => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    /// Bytes up to the first NUL.
    pub(super) fn text(&self, range: Range<usize>) -> &'a [u8] {
        let field = &self.block[range];
        &field[..field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len())]
    }

    /// Octal digits between spaces and NULs, or base 256 when the top bit is set. Empty is 0.
    pub(super) fn number(
        &self,
        range: Range<usize>,
        field: &'static str,
    ) -> Result<i128, TarError> {
        let bytes = &self.block[range];
        let error = |reason| TarError::Field {
            offset: self.offset,
            field,
            reason,
        };
        if bytes[0] & 0x80 != 0 {
            // Two's complement in all bits but the marker; bit 6 is the sign. 12 bytes are 95 bits at most.
            let mut value: i128 = if bytes[0] & 0x40 != 0 { -1 } else { 0 };
            value = (value << 6) | i128::from(bytes[0] & 0x3f);
            for byte in &bytes[1..] {
                value = (value << 8) | i128::from(*byte);
            }
            return Ok(value);
        }
        let start = bytes
            .iter()
            .position(|byte| *byte != b' ' && *byte != 0)
            .unwrap_or(bytes.len());
        let mut value = 0i128;
        let mut rest = bytes[start..].iter();
        for byte in rest.by_ref() {
            match byte {
                b'0'..=b'7' => value = value << 3 | i128::from(byte - b'0'),
                b' ' | 0 => break,
                _ => return Err(error("not an octal number")),
            }
        }
        // What follows the terminator is padding in every dialect; digits there would be a second number.
        if rest.any(|byte| *byte != b' ' && *byte != 0) {
            return Err(error("something follows the number"));
        }
        Ok(value)
    }

    /// As [`Header::number`], and it must fit.
    pub(super) fn bounded<T: TryFrom<i128>>(
        &self,
        range: Range<usize>,
        field: &'static str,
    ) -> Result<T, TarError> {
        T::try_from(self.number(range, field)?).map_err(|_| TarError::Field {
            offset: self.offset,
            field,
            reason: "out of range",
        })
    }

    /// The name, with the POSIX prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(PREFIX),
            Dialect::Gnu | Dialect::V7 => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }
}

/// The sum of all bytes, the checksum field counted as spaces: as unsigned and as signed characters.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (u32, i32) {
    let (mut unsigned, mut signed) = (0u32, 0i32);
    for byte in block {
        unsigned += u32::from(*byte);
        signed += i32::from(*byte as i8);
    }
    for byte in &block[CHECKSUM] {
        unsigned -= u32::from(*byte);
        signed -= i32::from(*byte as i8);
    }
    (unsigned + 8 * 32, signed + 8 * 32)
}
