//! EROFS on disk, as far as it is used here: numbers and encodings of Linux' fs/erofs/erofs_fs.h.
//!
//! ```text
//! superblock at 1024:  0 magic | 4 crc | 8 compat | 12 block bits u8 | 14 root nid u16 | 16 inodes u64 | 36 blocks | 40 meta block
//!                      48 uuid 16 | 80 incompat
//! extended inode, 64:  0 format u16 | 2 xattr count u16 | 4 mode u16 | 8 size u64 | 16 block, device or chunk format u32 | 20 ino u32
//!                      24 uid u32 | 28 gid u32 | 32 mtime i64 | 40 mtime nsec u32 | 44 links u32
//! xattrs after it:     12 bytes of zeros, then entries: name length u8 | name index u8 | value length u16 | name | value | pad to 4
//! directory entry, 12: 0 nid u64 | 8 name offset u16 | 10 type u8; all entries of a block, then all names
//! ```

/// log2 of the block size.
pub(crate) const BLOCK_BITS: u32 = 9;
pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(crate) const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum; inodes have their own mtime.
pub(crate) const FEATURE_COMPAT: u32 = 0x1 | 0x2;
pub(crate) const FEATURE_INCOMPAT_CHUNKED_FILE: u32 = 0x4;
pub(crate) const INODE_SIZE: u64 = 64;
/// An inode's address is `nid << 5` from the first inode block.
pub(crate) const NID_BITS: u32 = 5;
pub(crate) const LAYOUT_FLAT_PLAIN: u16 = 0;
pub(crate) const LAYOUT_FLAT_INLINE: u16 = 2;
pub(crate) const LAYOUT_CHUNK_BASED: u16 = 4;
/// Version bit of the extended inode; the layout is shifted by one.
pub(crate) const INODE_EXTENDED: u16 = 1;
pub(crate) const NULL_BLOCK: u32 = u32::MAX;
pub(crate) const DIRENT_SIZE: usize = 12;
pub(crate) const XATTR_HEADER_SIZE: usize = 12;

/// The short form of an attribute's prefix: its index and the rest of the name.
pub(crate) fn xattr_index(name: &[u8]) -> Option<(u8, &[u8])> {
    [(1u8, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
}

/// The other way round.
pub(crate) fn xattr_prefix(index: u8) -> Option<&'static [u8]> {
    match index {
        1 => Some(b"user."),
        4 => Some(b"trusted."),
        6 => Some(b"security."),
        _ => None,
    }
}

/// A directory entry's type byte for an `st_mode`.
pub(crate) fn file_type(mode: u16) -> u8 {
    match mode & 0o170000 {
        0o100000 => 1,
        0o040000 => 2,
        0o020000 => 3,
        0o060000 => 4,
        0o010000 => 5,
        0o140000 => 6,
        0o120000 => 7,
        _ => 0,
    }
}

/// A device number as the kernel's new_encode_dev has it.
pub(crate) fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The other way round.
pub(crate) fn decode_device(device: u32) -> (u32, u32) {
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    )
}

/// CRC-32C without the final inversion, from a given start: the superblock's checksum starts at ~0.
pub(crate) fn crc32c(start: u32, data: &[u8]) -> u32 {
    data.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_its_published_check_value() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn device_numbers_survive() {
        for device in [(0, 0), (1, 3), (8, 300), (4095, (1 << 20) - 1)] {
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }
}
