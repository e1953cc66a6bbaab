//! Sparse files: which blocks of the archive their chunks are, and copies of those that are not blocks of it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::header::TAR_OFFSET;
use super::layout::{BLOCK, BLOCK_BITS, NULL_BLOCK};
use super::output::Output;
use crate::tar::Segment;
use crate::tree::Tree;
use crate::{Error, Result};

/// Chunk addresses that one layer may have: 64 MiB of them in memory.
const MAX_CHUNKS: u64 = 1 << 24;
/// Bytes of chunks that may be copied because the archive does not have them aligned.
const MAX_COPIED: u64 = 1 << 32;
/// A sparse file's chunks: log2 of their size, and their block addresses.
pub(super) struct Chunks {
    pub(super) bits: u32,
    pub(super) blocks: Vec<u32>,
}

/// Maps every sparse file, copying the chunks that cannot be mapped.
pub(super) fn copy_chunks(
    tree: &Tree,
    file: &File,
    out: &mut Output<'_>,
) -> Result<HashMap<u32, Chunks>> {
    let mut all = HashMap::new();
    let (mut count, mut copied) = (0, 0);
    for number in 0..tree.inode_count() as u32 {
        let inode = tree.inode_at(number);
        let Some(map) = inode.sparse().filter(|_| inode.links > 0 && inode.size > 0) else {
            continue;
        };
        let bits = chunk_bits(map, inode.size);
        let chunk = 1u64 << bits;
        count += inode.size.div_ceil(chunk);
        if count > MAX_CHUNKS {
            return Err(Error::TooLarge {
                what: "the map of its sparse files",
                needed: count,
                limit: MAX_CHUNKS,
            });
        }
        let mut blocks = Vec::new();
        // Segments come in order, so both walks are one.
        let (mut first, mut before) = (0, 0u64);
        let mut start = 0;
        while start < inode.size {
            let end = (start + chunk).min(inode.size);
            while first < map.len() && map[first].offset + map[first].length <= start {
                before += map[first].length;
                first += 1;
            }
            let data = TAR_OFFSET + inode.data_offset + before;
            blocks.push(match map.get(first) {
                Some(segment) if segment.offset < end => {
                    let at = data + start.saturating_sub(segment.offset);
                    let whole = segment.offset <= start && segment.offset + segment.length >= end;
                    if whole && at.is_multiple_of(BLOCK) {
                        // Too large an address is found when the index' end is checked: it lies behind.
                        (at / BLOCK) as u32
                    } else {
                        copied += end - start;
                        if copied > MAX_COPIED {
                            return Err(Error::TooLarge {
                                what: "copies of fragments of sparse files, in bytes,",
                                needed: copied,
                                limit: MAX_COPIED,
                            });
                        }
                        let block = out.at / BLOCK;
                        copy_chunk(file, &map[first..], data, start, end, out)?;
                        u32::try_from(block).unwrap_or(NULL_BLOCK)
                    }
                }
                _ => NULL_BLOCK,
            });
            start = end;
        }
        all.insert(number, Chunks { bits, blocks });
    }
    Ok(all)
}

/// Writes `start..end` of a sparse file: data of the segments (whose first byte is at `data` of the file), zeros between, a whole block at the end.
fn copy_chunk(
    file: &File,
    map: &[Segment],
    mut data: u64,
    start: u64,
    end: u64,
    out: &mut Output<'_>,
) -> Result<()> {
    let base = out.at;
    let mut buffer = vec![0; 64 << 10];
    for segment in map {
        if segment.offset >= end {
            break;
        }
        let from = segment.offset.max(start);
        let to = (segment.offset + segment.length).min(end);
        out.zeros_to(base + (from - start))?;
        let mut at = from;
        while at < to {
            let length = (to - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..length], data + (at - segment.offset))
                .map_err(Error::io("read", out.path))?;
            out.write(&buffer[..length])?;
            at += length as u64;
        }
        data += segment.length;
    }
    out.zeros_to(base + (end - start).next_multiple_of(BLOCK))
}

/// log2 of the chunk size: what all edges of the segments are multiples of, but at least 4096, and no more than the file needs.
fn chunk_bits(map: &[Segment], size: u64) -> u32 {
    let edges = map
        .iter()
        .flat_map(|segment| [segment.offset, segment.offset + segment.length])
        .filter(|edge| *edge != size)
        .fold(0, |all, edge| all | edge);
    let needed = u64::BITS - (size - 1).leading_zeros();
    // 31 is what the chunk format can say.
    edges
        .trailing_zeros()
        .min(needed)
        .clamp(12, BLOCK_BITS + 31)
}
