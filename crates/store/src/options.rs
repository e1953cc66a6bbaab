//! How a store behaves: values that a door decided, never the environment.

/// How layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// One file a layer where this host can mount it (probed once a boot), directories elsewhere.
    #[default]
    Auto,
    /// One file a layer: the raw tar and an EROFS index into it. Opening fails where it cannot be mounted.
    Erofs,
    /// One directory a layer.
    Directory,
}

/// What an unprivileged unpacker does with owners that it may not set. Only the directory driver asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Every owner is set as the archive says; one that cannot be set is an error.
    #[default]
    Exact,
    /// Every file belongs to the user that unpacks. The archive's owners survive in [`crate::Layer::tar`] only.
    Squash,
}

/// What survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A blob or layer that was reported as stored survives: fdatasync before the rename, fsync of the directory after.
    #[default]
    Synced,
    /// The kernel writes when it likes. For caches that can be made again; [`crate::Store::fsck`] finds what was lost.
    Relaxed,
}

/// The most that one archive may make this engine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries in one archive.
    pub entries: u64,
    /// Bytes of one archive, after decompression.
    pub archive_bytes: u64,
    /// Sum of the sizes of all files in one archive, holes included.
    pub content_bytes: u64,
    /// Bytes of extended headers (PAX records, long names) before one entry.
    pub header_bytes: u64,
    /// Bytes of extended attributes of one entry.
    pub xattr_bytes: u64,
    /// Bytes of names, link targets and attributes that one archive may make this process hold.
    pub metadata_bytes: u64,
    /// Bytes that a compressed stream may become.
    pub decompressed_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            archive_bytes: 1 << 40,
            content_bytes: 1 << 42,
            header_bytes: 1 << 20,
            xattr_bytes: 64 << 10,
            metadata_bytes: 1 << 30,
            decompressed_bytes: 1 << 40,
        }
    }
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How layers are kept. Layers of the other form that are already there stay usable.
    pub driver: Driver,
    /// Owners that cannot be set.
    pub ownership: Ownership,
    /// What survives a power cut.
    pub durability: Durability,
    /// The most that one archive may cost.
    pub limits: Limits,
}
