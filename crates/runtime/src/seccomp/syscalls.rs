//! System call numbers by name.
//!
//! A profile's 400 names are looked up once each: one row answers for all architectures, and a hash index made at
//! compile time finds the row. Searching the sorted rows by halves instead took two thirds of the whole compilation.

use super::Architecture;
use super::table::ROWS;

/// Bit 30, which every x32 call carries (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// First of arm's private calls (`__ARM_NR_BASE`).
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;
/// Where the table keeps arm's private calls.
const ARM_PRIVATE_PACKED: u16 = 0xf000;

/// One name's numbers on every architecture.
#[derive(Clone, Copy, Debug)]
pub struct Numbers(&'static [u16; 6]);

impl Numbers {
    /// The number as `seccomp_data.nr` shows it (x32 with its bit), if the architecture has the call.
    #[must_use]
    pub fn on(self, architecture: Architecture) -> Option<u32> {
        match self.0[architecture as usize] {
            u16::MAX => None,
            packed if packed >= ARM_PRIVATE_PACKED => {
                Some(ARM_PRIVATE + u32::from(packed - ARM_PRIVATE_PACKED))
            }
            number if architecture == Architecture::X32 => Some(X32_BIT | u32::from(number)),
            number => Some(u32::from(number)),
        }
    }
}

/// Slots of the index; a power of two, four times as many as names, so that most are found where they hash to.
const SLOTS: usize = 2048;

/// Row numbers by the hash of the name, or [`EMPTY`]; a taken slot moves a name to the next free one.
static INDEX: [u16; SLOTS] = index();
const EMPTY: u16 = u16::MAX;

/// FNV-1a, of which the lower bits are used.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize
}

const fn index() -> [u16; SLOTS] {
    assert!(ROWS.len() < SLOTS);
    let mut slots = [EMPTY; SLOTS];
    let mut row = 0;
    while row < ROWS.len() {
        let mut slot = hash(ROWS[row].0.as_bytes()) % SLOTS;
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = row as u16;
        row += 1;
    }
    slots
}

/// The numbers of the call `name`, or `None` if no architecture of the table has it.
#[must_use]
pub fn lookup(name: &str) -> Option<Numbers> {
    let mut slot = hash(name.as_bytes()) % SLOTS;
    // There are more slots than rows, so an empty one is met.
    while INDEX[slot] != EMPTY {
        let row = &ROWS[usize::from(INDEX[slot])];
        if row.0 == name {
            return Some(Numbers(&row.1));
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        assert!(
            ROWS.windows(2)
                .all(|pair| pair[0].0.as_bytes() < pair[1].0.as_bytes())
        );
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let of = |name, architecture| lookup(name).and_then(|numbers| numbers.on(architecture));
        for (name, architecture, number) in [
            ("read", Architecture::X86_64, Some(0)),
            ("read", Architecture::X86, Some(3)),
            ("read", Architecture::X32, Some(X32_BIT)),
            ("read", Architecture::Aarch64, Some(63)),
            ("read", Architecture::Riscv64, Some(63)),
            ("execveat", Architecture::X32, Some(X32_BIT + 545)),
            ("open", Architecture::Aarch64, None),
            ("socketcall", Architecture::X86_64, None),
            ("set_tls", Architecture::Arm, Some(0xf0005)),
            ("sync_file_range2", Architecture::Arm, Some(341)),
            ("no_such_call", Architecture::X86_64, None),
            ("", Architecture::X86_64, None),
        ] {
            assert_eq!(of(name, architecture), number, "{name} on {architecture:?}");
        }
    }

    #[test]
    fn every_name_is_found_in_its_own_row() {
        for row in &ROWS {
            assert!(
                std::ptr::eq(lookup(row.0).expect(row.0).0, &row.1),
                "{}",
                row.0
            );
        }
    }

    #[test]
    fn every_row_has_a_number_somewhere() {
        assert!(
            ROWS.iter()
                .all(|row| row.1.iter().any(|&number| number != u16::MAX))
        );
    }
}
