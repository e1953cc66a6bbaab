//! Maps of sparse files, in the four ways that GNU tar has written them, and the check that a map is sound.

use super::header::Header;
use super::pax::decimal;
use super::{BLOCK, Segment, TarError};

/// The map of an old GNU header (type `S`), and its real size. `extension` reads one more block of the archive.
pub(super) fn old_gnu(
    header: &Header<'_>,
    limit: u64,
    mut extension: impl FnMut() -> Result<[u8; BLOCK], TarError>,
) -> Result<(Vec<Segment>, u64), TarError> {
    let real_size = header.bounded::<u64>(483..495, "real size")?;
    let mut map = Vec::new();
    slots(header, 386, 4, &mut map)?;
    let mut more = header.block[482] != 0;
    while more {
        if map.len() as u64 * 24 > limit {
            return Err(TarError::Limit {
                what: "bytes of headers before one entry",
                limit,
            });
        }
        let block = extension()?;
        slots(
            &Header {
                block: &block,
                offset: header.offset,
            },
            0,
            21,
            &mut map,
        )?;
        more = block[504] != 0;
    }
    Ok((map, real_size))
}

fn slots(
    header: &Header<'_>,
    start: usize,
    count: usize,
    map: &mut Vec<Segment>,
) -> Result<(), TarError> {
    for index in 0..count {
        let at = start + index * 24;
        // An all-zero slot ends the map; a slot of length 0 at the end of the file marks a trailing hole.
        if header.block[at..at + 24].iter().all(|byte| *byte == 0) {
            break;
        }
        map.push(Segment {
            offset: header.bounded(at..at + 12, "sparse offset")?,
            length: header.bounded(at + 12..at + 24, "sparse length")?,
        });
    }
    Ok(())
}

/// The map of PAX version 1.0, which lies before the data: decimal lines, padded to a block.
/// Returns it and how many bytes of the entry's data it took.
pub(super) fn version_1(
    offset: u64,
    limit: u64,
    mut next: impl FnMut() -> Result<[u8; BLOCK], TarError>,
) -> Result<(Vec<Segment>, u64), TarError> {
    let error = |reason| TarError::Field {
        offset,
        field: "sparse map",
        reason,
    };
    let (mut block, mut at, mut taken) = ([0; BLOCK], BLOCK, 0u64);
    let mut number = || -> Result<u64, TarError> {
        let (mut digits, mut length) = ([0u8; 20], 0);
        loop {
            if at == BLOCK {
                if taken + BLOCK as u64 > limit {
                    return Err(TarError::Limit {
                        what: "bytes of headers before one entry",
                        limit,
                    });
                }
                block = next()?;
                taken += BLOCK as u64;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return decimal(&digits[..length]).ok_or_else(|| error("not a number"));
            }
            *digits
                .get_mut(length)
                .ok_or_else(|| error("a number is too long"))? = byte;
            length += 1;
        }
    };
    let count = number()?;
    let mut map = Vec::new();
    for _ in 0..count {
        // No reservation by `count`: it is the archive's word; the limit above ends a lie.
        map.push(Segment {
            offset: number()?,
            length: number()?,
        });
    }
    Ok((map, taken))
}

/// Checks that the runs are in order, apart, inside the file, and sum up to the data there is; drops empty ones.
pub(super) fn checked(
    map: Vec<Segment>,
    real_size: u64,
    data_size: u64,
    offset: u64,
) -> Result<Vec<Segment>, TarError> {
    let error = |reason| TarError::Field {
        offset,
        field: "sparse map",
        reason,
    };
    let (mut end, mut sum) = (0u64, 0u64);
    let mut sound: Vec<Segment> = Vec::with_capacity(map.len());
    for segment in map {
        if segment.offset < end {
            return Err(error("runs overlap or are out of order"));
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or_else(|| error("a run overflows"))?;
        // Every end is at most real_size, so the sum of disjoint runs cannot overflow.
        if end > real_size {
            return Err(error("a run ends beyond the file"));
        }
        sum += segment.length;
        match sound.last_mut() {
            _ if segment.length == 0 => {}
            Some(last) if last.offset + last.length == segment.offset => {
                last.length += segment.length
            }
            _ => sound.push(segment),
        }
    }
    if sum != data_size {
        return Err(error("the runs do not sum up to the data"));
    }
    Ok(sound)
}
