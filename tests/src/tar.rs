//! A tar writer that does as it is told, so that a test can also write archives that no honest tool makes.
//!
//! ustar headers, with a PAX header before an entry where one is asked for:
//!
//! ```text
//! [512 B header][content, padded to 512] … [1,024 zero bytes]
//! ```

/// An archive being written to memory.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// One entry's header fields; what is not set has a harmless value.
#[derive(Clone)]
pub struct Entry {
    /// The path as it is written, unchecked.
    pub path: String,
    /// The ustar type flag: `0` file, `1` hard link, `2` symbolic link, `3`, `4` devices, `5` directory, `6` fifo.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner, user and group.
    pub owner: (u32, u32),
    /// Target of a link.
    pub link: String,
    /// Device numbers.
    pub device: (u32, u32),
    /// What the size field says, where it is to differ from the content's length.
    pub size: Option<u64>,
    /// PAX records written before the entry.
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// A header of type `kind` for `path`.
    pub fn new(kind: u8, path: &str, mode: u32) -> Entry {
        Entry {
            path: path.to_owned(),
            kind,
            mode,
            owner: (0, 0),
            link: String::new(),
            device: (0, 0),
            size: None,
            pax: Vec::new(),
        }
    }
}

impl Tar {
    /// An empty archive.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Adds a directory.
    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Tar {
        self.entry(&Entry::new(b'5', path, mode), &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Tar {
        self.entry(&Entry::new(b'0', path, mode), content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Tar {
        let link = target.to_owned();
        self.entry(
            &Entry {
                link,
                ..Entry::new(b'2', path, 0o777)
            },
            &[],
        )
    }

    /// Adds a hard link.
    pub fn hard_link(&mut self, path: &str, target: &str) -> &mut Tar {
        let link = target.to_owned();
        self.entry(
            &Entry {
                link,
                ..Entry::new(b'1', path, 0o644)
            },
            &[],
        )
    }

    /// Adds a character (`3`) or block (`4`) device.
    pub fn device(&mut self, kind: u8, path: &str, device: (u32, u32)) -> &mut Tar {
        self.entry(
            &Entry {
                device,
                ..Entry::new(kind, path, 0o666)
            },
            &[],
        )
    }

    /// Adds an entry exactly as described.
    pub fn entry(&mut self, entry: &Entry, content: &[u8]) -> &mut Tar {
        if !entry.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in &entry.pax {
                records.extend(pax_record(key, value));
            }
            let header = Entry::new(b'x', "pax", 0o644);
            self.header(&header, records.len() as u64);
            self.content(&records);
        }
        self.header(entry, entry.size.unwrap_or(content.len() as u64));
        self.content(content);
        self
    }

    /// The finished archive, with its two zero blocks.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend([0; 1024]);
        bytes
    }

    fn content(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn header(&mut self, entry: &Entry, size: u64) {
        let mut block = [0u8; 512];
        let mut put = |offset: usize, length: usize, value: &[u8]| {
            assert!(value.len() <= length, "field too long for ustar: {value:?}");
            block[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, 100, entry.path.as_bytes());
        put(100, 8, format!("{:07o}", entry.mode).as_bytes());
        put(108, 8, format!("{:07o}", entry.owner.0).as_bytes());
        put(116, 8, format!("{:07o}", entry.owner.1).as_bytes());
        put(124, 12, format!("{size:011o}").as_bytes());
        put(136, 12, format!("{:011o}", 1_700_000_000).as_bytes());
        put(148, 8, b"        ");
        put(156, 1, &[entry.kind]);
        put(157, 100, entry.link.as_bytes());
        put(257, 8, b"ustar\x0000");
        put(329, 8, format!("{:07o}", entry.device.0).as_bytes());
        put(337, 8, format!("{:07o}", entry.device.1).as_bytes());
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(block);
    }
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_length_counts_its_own_digits() {
        assert_eq!(pax_record("path", b"x"), b"9 path=x\n");
        let long = pax_record("comment", &[b'x'; 88]);
        assert_eq!(long.len(), 101);
        assert!(long.starts_with(b"101 comment="));
    }

    #[test]
    fn header_checksum_is_the_sum_with_blanks_in_its_place() {
        let bytes = Tar::new().file("a", 0o644, b"hello").finish();
        assert_eq!(bytes.len(), 512 * 2 + 1024);
        let mut header = bytes[..512].to_vec();
        let stated = std::str::from_utf8(&header[148..154])
            .expect("octal")
            .to_owned();
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        assert_eq!(u32::from_str_radix(&stated, 8), Ok(sum));
    }
}
