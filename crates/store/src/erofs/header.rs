//! The layer file's own header (docs/format/layer.md), in the 1024 bytes that EROFS leaves alone.

use coracle_oci::Digest;

use super::layout::crc32c;

/// Where the archive begins: a page, so that page-aligned data stays so.
pub(crate) const TAR_OFFSET: u64 = 4096;
/// Bytes that are read and written.
pub(crate) const HEADER_SIZE: usize = 512;
const MAGIC: &[u8; 8] = b"CORLAYER";
const VERSION: u32 = 1;
const CHECKED: usize = 144;

/// What a layer file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tar_size: u64,
    pub(crate) index_offset: u64,
    pub(crate) index_size: u64,
    pub(crate) content_size: u64,
    pub(crate) inodes: u64,
    pub(crate) implicit: u64,
    pub(crate) diff_id: Digest,
    pub(crate) index_digest: Digest,
}

/// Makes the header's checksum fit.
#[cfg(feature = "fuzzing")]
pub(super) fn seal(bytes: &mut [u8]) {
    let crc = !crc32c(!0, &bytes[..CHECKED]);
    bytes[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [
            TAR_OFFSET,
            self.tar_size,
            self.index_offset,
            self.index_size,
            self.content_size,
            self.inodes,
            self.implicit,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            out[24 + index * 8..32 + index * 8].copy_from_slice(&number.to_le_bytes());
        }
        out[80..112].copy_from_slice(self.diff_id.as_bytes());
        out[112..144].copy_from_slice(self.index_digest.as_bytes());
        let crc = !crc32c(!0, &out[..CHECKED]);
        out[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(data: &[u8; HEADER_SIZE]) -> Result<Header, &'static str> {
        let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap_or_default());
        let number =
            |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap_or_default());
        let digest =
            |at: usize| Digest::from_bytes(data[at..at + 32].try_into().unwrap_or_default());
        if &data[..8] != MAGIC {
            return Err("it is not a layer file");
        }
        if word(CHECKED) != !crc32c(!0, &data[..CHECKED]) {
            return Err("its header's checksum does not match");
        }
        if word(8) != VERSION {
            return Err("its version is unknown to this program");
        }
        if word(20) != 0 {
            return Err("it uses a feature that is unknown to this program");
        }
        let header = Header {
            tar_size: number(32),
            index_offset: number(40),
            index_size: number(48),
            content_size: number(56),
            inodes: number(64),
            implicit: number(72),
            diff_id: digest(80),
            index_digest: digest(112),
        };
        if number(24) != TAR_OFFSET
            || header
                .tar_size
                .checked_add(TAR_OFFSET)
                .is_none_or(|end| end > header.index_offset)
            || header.index_offset.checked_add(header.index_size).is_none()
        {
            return Err("its header contradicts itself");
        }
        Ok(header)
    }

    /// How long the file is.
    pub(crate) fn file_size(&self) -> u64 {
        self.index_offset + self.index_size
    }
}
