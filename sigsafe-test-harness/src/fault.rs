//! What a check found wrong, as plain numbers that fit into shared memory.
//!
//! Made in any context, handlers included; turned into words only by the watchdog.

use std::fmt;

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FaultKind {
    /// The pattern of a block that is about to be freed or resized.
    Pattern = 1,
    /// The part of a block that `realloc` must have kept.
    Kept = 2,
    /// A block that `alloc_zeroed` must have zeroed.
    Zeroed = 3,
    /// The edges at the head of a node of the collector's graph.
    Edges = 4,
    /// The two counters of an account, which must be equal.
    Counters = 5,
    /// The sum of an account's cells.
    Sum = 6,
    /// What a block that one flow left for another says of itself.
    Label = 7,
    /// An invariant of the allocator, by its own walk over everything. The text of the report says which.
    Invariant = 8,
    /// Bytes in use when nothing is live any more.
    Lost = 9,
    /// The child of a fork, which ended otherwise than by its own exit.
    Fork = 10,
    /// A managed handler that ran in the middle of an operation of the allocator.
    Inside = 11,
}

/// A mismatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// The address of the block, or the number of the lock.
    pub(crate) block: u64,
    /// The size of the block.
    pub(crate) size: u64,
    /// Where in the block.
    pub(crate) offset: u64,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl FaultKind {
    pub(crate) fn from_number(number: u32) -> Option<FaultKind> {
        use FaultKind::{Counters, Edges, Fork, Inside, Invariant, Kept, Label, Lost, Pattern, Sum, Zeroed};
        [Pattern, Kept, Zeroed, Edges, Counters, Sum, Label, Invariant, Lost, Fork, Inside].into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { block, size, offset, expected, found, .. } = *self;
        let what = match self.kind {
            FaultKind::Counters => {
                return write!(f, "the counters under lock {block} differ: expected {expected}, found {found}");
            }
            FaultKind::Sum => {
                return write!(f, "the cells under lock {block} have another sum: expected {expected}, found {found}");
            }
            FaultKind::Edges => {
                return write!(f, "node at {block:#x} of {size} bytes has impossible edges: expected {expected:#x}, found {found:#x}");
            }
            FaultKind::Label => {
                return write!(f, "block at {block:#x} has an impossible label: expected {expected:#x}, found {found:#x}");
            }
            FaultKind::Invariant => return write!(f, "verify() found at {block:#x} what breaks an invariant"),
            FaultKind::Lost => return write!(f, "{found} bytes of blocks are in use with nothing live and every thread at its end"),
            FaultKind::Fork => return write!(f, "the child of a fork ended with the wait status {found:#x}"),
            FaultKind::Inside => return f.write_str("a managed handler ran in the middle of an operation of the allocator"),
            FaultKind::Pattern => "has lost its pattern",
            FaultKind::Kept => "was not kept by realloc",
            FaultKind::Zeroed => "was not zeroed by alloc_zeroed",
        };
        write!(f, "block at {block:#x} of {size} bytes {what}: at offset {offset} expected {expected:#04x}, found {found:#04x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_block_offset_expected_and_found() {
        let fault = Fault { kind: FaultKind::Pattern, block: 0x1000, size: 64, offset: 7, expected: 0xab, found: 0xaa };
        assert_eq!(fault.to_string(), "block at 0x1000 of 64 bytes has lost its pattern: at offset 7 expected 0xab, found 0xaa");
    }

    #[test]
    fn kinds_come_back_from_their_numbers() {
        for number in 0..=12 {
            assert_eq!(FaultKind::from_number(number).map(|kind| kind as u32), (1..=11).contains(&number).then_some(number));
        }
        assert_eq!(FaultKind::from_number(6), Some(FaultKind::Sum));
    }
}
