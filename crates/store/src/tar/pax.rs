//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, and the extended attributes in them.

use std::collections::BTreeMap;

use super::{Segment, TarError};

/// What the records before an entry say; `None` or empty where they say nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// libarchive's own spelling; yields to `xattrs`.
    libarchive: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// GNU.sparse.*, in all three PAX versions.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) blocks: Option<u64>,
    pub(super) map: Option<Vec<Segment>>,
    /// 0.0: an offset that waits for its length.
    pending: Option<u64>,
}

impl Records {
    /// Adds the records of one extended header. Later records and headers win.
    pub(super) fn parse(
        &mut self,
        mut data: &[u8],
        offset: u64,
        global: bool,
    ) -> Result<(), TarError> {
        let error = |reason| TarError::Field {
            offset,
            field: "PAX record",
            reason,
        };
        while !data.is_empty() {
            let space = data
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(|| error("it has no length"))?;
            let length = decimal(&data[..space]).ok_or_else(|| error("its length is no number"))?;
            let length =
                usize::try_from(length).map_err(|_| error("its length is out of range"))?;
            if length > data.len() || length < space + 3 {
                return Err(error("its length is wrong"));
            }
            let (record, rest) = data.split_at(length);
            let body = record[space + 1..]
                .strip_suffix(b"\n")
                .ok_or_else(|| error("it does not end in a newline"))?;
            let equals = body
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(|| error("it has no equals sign"))?;
            self.set(&body[..equals], &body[equals + 1..], offset, global)?;
            data = rest;
        }
        if self.sparse.pending.is_some() {
            return Err(error("a sparse offset has no length"));
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], offset: u64, global: bool) -> Result<(), TarError> {
        let error = |field, reason| TarError::Field {
            offset,
            field,
            reason,
        };
        let number = |field| {
            decimal(value).ok_or(TarError::Field {
                offset,
                field,
                reason: "not a number",
            })
        };
        let per_file =
            matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
        if global && per_file {
            return Err(error(
                "global PAX header",
                "it names or sizes every file at once",
            ));
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number("PAX size")?),
            b"uid" => self.uid = Some(number("PAX uid")?),
            b"gid" => self.gid = Some(number("PAX gid")?),
            b"mtime" => {
                self.mtime = Some(time(value).ok_or_else(|| error("PAX mtime", "not a time"))?);
            }
            b"GNU.sparse.major" => self.sparse.major = Some(number("GNU.sparse.major")?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number("GNU.sparse.minor")?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(number("GNU.sparse.size")?);
            }
            b"GNU.sparse.numblocks" => self.sparse.blocks = Some(number("GNU.sparse.numblocks")?),
            b"GNU.sparse.offset" => {
                if self
                    .sparse
                    .pending
                    .replace(number("GNU.sparse.offset")?)
                    .is_some()
                {
                    return Err(error(
                        "GNU.sparse.offset",
                        "the one before it has no length",
                    ));
                }
            }
            b"GNU.sparse.numbytes" => {
                let length = number("GNU.sparse.numbytes")?;
                let start =
                    self.sparse.pending.take().ok_or_else(|| {
                        error("GNU.sparse.numbytes", "it has no offset before it")
                    })?;
                self.sparse.map.get_or_insert_default().push(Segment {
                    offset: start,
                    length,
                });
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|byte| *byte == b',');
                let mut map = Vec::new();
                while let Some(first) = numbers.next() {
                    let pair = (decimal(first), numbers.next().and_then(decimal));
                    let (Some(start), Some(length)) = pair else {
                        return Err(error("GNU.sparse.map", "not pairs of numbers"));
                    };
                    map.push(Segment {
                        offset: start,
                        length,
                    });
                }
                self.sparse.map = Some(map);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decode(name)
                        .ok_or_else(|| error("LIBARCHIVE.xattr name", "not percent-encoded"))?;
                    let value = base64(value)
                        .ok_or_else(|| error("LIBARCHIVE.xattr value", "not base64"))?;
                    self.libarchive.insert(name, value);
                }
                // Every other key (comment, atime, uname, hdrcharset, vendors' own) says nothing that a layer keeps.
            }
        }
        Ok(())
    }

    /// What the global records say, where these are silent.
    pub(super) fn fill_from(&mut self, global: &Records) {
        self.uid = self.uid.or(global.uid);
        self.gid = self.gid.or(global.gid);
        self.mtime = self.mtime.or(global.mtime);
        for (name, value) in &global.xattrs {
            self.xattrs
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        for (name, value) in &global.libarchive {
            self.libarchive
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
    }

    /// All extended attributes, sorted by name.
    pub(super) fn take_xattrs(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = std::mem::take(&mut self.libarchive);
        all.append(&mut self.xattrs);
        all.into_iter().collect()
    }
}

/// Decimal digits only, at least one, no sign, no overflow.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or(&[]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0u32, |value, index| {
        value * 10 + u32::from(fraction.get(index).map_or(0, |byte| byte - b'0'))
    });
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let (high, low) = (hex(*bytes.next()?)?, hex(*bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

/// Base64 with or without padding; libarchive writes it without.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for byte in digits {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // A single digit left over would be six bits of nothing.
    (digits.len() % 4 != 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_nanoseconds_and_sign() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time(b"99999999999999999999"), None);
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn records_that_lie_are_refused() {
        for bad in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=bX",
            b"6 abcd\n",
            b"x a=b\n",
            b"99999999999999999999999 a=b\n",
            b"18446744073709551615 a=b\n",
            b" a=b\n",
            b"11 size=1x\n",
        ] {
            assert!(
                Records::default().parse(bad, 0, false).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(Records::default().parse(b"6 a=b\n", 0, false).is_ok());
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        let record = b" LIBARCHIVE.xattr.user.%41=aGk\n";
        let record = [format!("{}", record.len() + 2).as_bytes(), record].concat();
        let mut records = Records::default();
        records.parse(&record, 0, false).unwrap();
        assert_eq!(
            records.take_xattrs(),
            vec![(b"user.A".to_vec(), b"hi".to_vec())]
        );
    }
}
