//! A block of the subject's memory, filled with a pattern that says whose it is.
//!
//! The pattern depends on the block's address and serial number, so that a block handed out twice, moved without its content
//! or scribbled on is seen when it is freed or resized. Main flow and handlers both use it: nothing here allocates but through
//! the subject, and nothing panics.

use std::alloc::Layout;
use std::ptr::NonNull;

use crate::fault::{Fault, FaultKind};
use crate::rng::{GOLDEN, Generator, mix};
use crate::subject::parts::Heap;

/// The bytes that a label takes at the head of a block: size, alignment, key, and a check word over these and the address.
pub(crate) const LABEL: usize = 32;

/// A live block, owned. It must be released, not dropped: a dropped one leaks.
pub(crate) struct Block {
    heap: &'static Heap,
    start: NonNull<u8>,
    layout: Layout,
    /// How many bytes at the head hold something else than the pattern.
    head: usize,
    /// What the pattern is derived from.
    key: u64,
}

// SAFETY: a block owns its memory, and the heap that it goes back to is `Sync`.
unsafe impl Send for Block {}

impl Block {
    /// Allocates a block and fills it behind its first `head` bytes, which are left zeroed.
    pub(crate) fn obtain(heap: &'static Heap, layout: Layout, head: usize, serial: u64) -> Block {
        // SAFETY: `draw_layout` makes no layout of size zero, nor do the tests here.
        let start = checked(unsafe { heap.alloc(layout) });
        let head = head.min(layout.size());
        // SAFETY: the head is no larger than the block that the allocator has just given.
        unsafe { start.write_bytes(0, head) };
        let block = Block { heap, start, layout, head, key: key_of(start, serial) };
        block.fill();
        block
    }

    /// As [`Block::obtain`], by `alloc_zeroed`, which is checked to have zeroed.
    pub(crate) fn obtain_zeroed(heap: &'static Heap, layout: Layout, serial: u64) -> Result<Block, Fault> {
        // SAFETY: as in `obtain`.
        let start = checked(unsafe { heap.alloc_zeroed(layout) });
        let block = Block { heap, start, layout, head: 0, key: key_of(start, serial) };
        let dirty = block.bytes().iter().fold(0, |dirty, byte| dirty | byte);
        if dirty != 0
            && let Some((offset, found)) = block.bytes().iter().enumerate().find(|(_, byte)| **byte != 0)
        {
            return Err(block.fault(FaultKind::Zeroed, offset, 0, (*found).into()));
        }
        block.fill();
        Ok(block)
    }

    /// Checks the block, resizes it, checks that its content was kept, and fills it anew.
    pub(crate) fn resize(&mut self, size: usize, serial: u64) -> Result<(), Fault> {
        self.check(FaultKind::Pattern, self.layout.size())?;
        // The alignment stays what it was, and sizes here are far below the limit of a layout.
        let Ok(layout) = Layout::from_size_align(size, self.layout.align()) else { return Ok(()) };
        let kept = size.min(self.layout.size());
        // SAFETY: the block came from this heap with this layout, it is not used through its old address afterwards, and the
        // new size makes a valid layout.
        self.start = checked(unsafe { self.heap.realloc(self.start.as_ptr(), self.layout, size) });
        self.layout = layout;
        self.check(FaultKind::Kept, kept)?;
        self.key = key_of(self.start, serial);
        self.fill();
        Ok(())
    }

    /// Checks the block and frees it.
    pub(crate) fn release(self) -> Result<(), Fault> {
        self.verify()?;
        // SAFETY: the block came from this heap with this layout, and `self` is consumed.
        unsafe { self.heap.dealloc(self.start.as_ptr(), self.layout) };
        Ok(())
    }

    /// Writes onto the block's head, which must have room for it, what [`Block::labelled`] needs, and gives up the block for its address.
    pub(crate) fn label(mut self) -> *mut u8 {
        let words = [self.layout.size() as u64, self.layout.align() as u64, self.key];
        let words = words.into_iter().chain([seal(self.start, words)]);
        for (bytes, word) in self.bytes_mut().chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.start.as_ptr()
    }

    /// The block that [`Block::label`] has given up.
    ///
    /// # Safety
    ///
    /// The address is from there, of a block of this heap, and nobody else has it.
    pub(crate) unsafe fn labelled(heap: &'static Heap, start: NonNull<u8>) -> Result<Block, Fault> {
        // SAFETY: a labelled block has at least these bytes, and the caller alone uses it; the load needs no alignment.
        let words = unsafe { start.cast::<[[u8; 8]; 4]>().read() };
        let [size, align, key, found] = words.map(u64::from_le_bytes);
        let expected = seal(start, [size, align, key]);
        match Layout::from_size_align(size as usize, align as usize) {
            Ok(layout) if expected == found => Ok(Block { heap, start, layout, head: LABEL, key }),
            _ => Err(Fault { kind: FaultKind::Label, block: start.as_ptr() as u64, size: 0, offset: 0, expected, found }),
        }
    }

    /// Checks the whole pattern.
    pub(crate) fn verify(&self) -> Result<(), Fault> {
        self.check(FaultKind::Pattern, self.layout.size())
    }

    /// Flips one bit in the middle of the pattern: the damage that the harness must notice.
    pub(crate) fn damage(&mut self) {
        let middle = (self.head + self.layout.size()) / 2;
        if let Some(byte) = self.bytes_mut().get_mut(middle) {
            *byte ^= 1;
        }
    }

    /// The whole block.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.front(self.layout.size())
    }

    /// The whole block, to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `front`, with the exclusive borrow of the owner.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }

    /// What a mismatch at `offset` is told as.
    pub(crate) fn fault(&self, kind: FaultKind, offset: usize, expected: u64, found: u64) -> Fault {
        let (block, size) = (self.start.as_ptr() as u64, self.layout.size() as u64);
        Fault { kind, block, size, offset: offset as u64, expected, found }
    }

    /// The first `end` bytes, or all if there are fewer.
    fn front(&self, end: usize) -> &[u8] {
        // SAFETY: the allocator gave this many bytes at this address to this owner, and the borrow of `self` keeps writers away.
        // All of them are written: the head by `obtain`, the rest by `alloc_zeroed` or `fill`; right after a `realloc` that
        // grew the block, only those in front of the old end, and `resize` asks for no more.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), end.min(self.layout.size())) }
    }

    /// Writes the pattern behind the head.
    fn fill(&self) {
        let length = self.layout.size() - self.head;
        // SAFETY: the head is no larger than the block.
        let start = unsafe { self.start.add(self.head) };
        for place in 0..length / 8 {
            // SAFETY: words below `length / 8` lie in the block, which this owner alone uses; the store needs no alignment.
            unsafe { start.cast::<[u8; 8]>().add(place).write(self.word(place)) };
        }
        let rest = length % 8;
        let last = self.word(length / 8);
        // SAFETY: the last `rest` bytes of the block, from as many of the eight of an array.
        unsafe { start.add(length - rest).copy_from_nonoverlapping(NonNull::from(&last).cast(), rest) };
    }

    /// Compares the pattern in the first `end` bytes with what `fill` wrote.
    fn check(&self, kind: FaultKind, end: usize) -> Result<(), Fault> {
        let (words, rest) = self.front(end).get(self.head..).unwrap_or(&[]).as_chunks::<8>();
        // One pass without a branch in the loop: the check must stay cheap beside the subject that it checks.
        let differing = words
            .iter()
            .enumerate()
            .fold(0, |differing, (place, word)| differing | (u64::from_le_bytes(*word) ^ u64::from_le_bytes(self.word(place))));
        if differing == 0 && rest == &self.word(words.len())[..rest.len()] {
            return Ok(());
        }
        let found = words.iter().flatten().chain(rest);
        let expected = (0..=words.len()).flat_map(|place| self.word(place));
        match found.zip(expected).enumerate().find(|(_, (found, expected))| **found != *expected) {
            Some((at, (found, expected))) => Err(self.fault(kind, self.head + at, expected.into(), (*found).into())),
            // The block has changed between the two passes: somebody else is writing to it.
            None => Err(self.fault(kind, self.head, 0, differing)),
        }
    }

    /// The pattern's word behind `place` others: the key plus so many constants.
    fn word(&self, place: usize) -> [u8; 8] {
        self.key.wrapping_add(GOLDEN.wrapping_mul(place as u64)).to_le_bytes()
    }
}

/// The size and alignment of a block: 60 in 100 up to 512 bytes, the rest above 1,032, which is where glibc leaves its
/// per-thread cache and takes the lock of an arena.
pub(crate) fn draw_layout(generator: &mut Generator, largest: u32) -> Layout {
    let size = draw_size(generator, largest);
    let align = match generator.below(16) {
        0 => 64,
        1 | 2 => 16,
        _ => 8,
    };
    // Never refused: the sizes are small. The word-sized layout stands in so that this context has no panic.
    Layout::from_size_align(size, align).unwrap_or(Layout::new::<u64>())
}

/// A size as in [`draw_layout`], from 16 to `largest`, which must be at least 1,040.
pub(crate) fn draw_size(generator: &mut Generator, largest: u32) -> usize {
    let size = match generator.below(10) {
        0..6 => generator.between(16, 512),
        6..9 => generator.between(1040, largest.min(4096)),
        _ => generator.between(1040, largest),
    };
    size as usize
}

fn key_of(start: NonNull<u8>, serial: u64) -> u64 {
    mix(start.as_ptr() as u64 ^ serial.rotate_left(40))
}

/// The check word of a label.
fn seal(start: NonNull<u8>, words: [u64; 3]) -> u64 {
    words.into_iter().fold(start.as_ptr() as u64, |seal, word| mix(seal ^ word))
}

/// A null pointer ends the process with a message: no storm needs so much memory that it may run out.
fn checked(start: *mut u8) -> NonNull<u8> {
    NonNull::new(start).unwrap_or_else(|| sigsafe_core::fatal(&["the subject returned a null pointer"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    static HEAP: System = System;

    fn block(size: usize, head: usize) -> Block {
        Block::obtain(&HEAP, Layout::from_size_align(size, 8).unwrap(), head, 5)
    }

    #[test]
    fn a_block_keeps_its_pattern_through_resizing() {
        for (first, second) in [(16, 16), (17, 4099), (4099, 17), (1, 2), (1033, 1040)] {
            let mut block = block(first, 0);
            block.resize(second, 6).unwrap();
            block.release().unwrap();
        }
        let zeroed = Block::obtain_zeroed(&HEAP, Layout::new::<[u64; 9]>(), 7).unwrap();
        zeroed.release().unwrap();
    }

    #[test]
    fn every_flipped_byte_is_seen_where_it_is() {
        let mut block = block(61, 8);
        for offset in 8..61 {
            block.bytes_mut()[offset] ^= 0x10;
            let fault = block.verify().unwrap_err();
            assert_eq!((fault.offset, fault.expected ^ 0x10), (offset as u64, fault.found));
            block.bytes_mut()[offset] ^= 0x10;
        }
        block.bytes_mut()[3] = 1;
        block.verify().unwrap();
        block.damage();
        assert!(block.verify().is_err());
        block.damage();
        block.release().unwrap();
    }

    #[test]
    fn the_sizes_have_the_shares_that_they_claim() {
        let mut generator = Generator::new(3, 0);
        let sizes: Vec<usize> = (0..10_000).map(|_| draw_layout(&mut generator, 16 << 10).size()).collect();
        let large = sizes.iter().filter(|size| **size > 1032).count();
        assert!((3500..4500).contains(&large), "{large}");
        assert!(sizes.iter().all(|size| (16..=16 << 10).contains(size)));
        assert!(sizes.iter().any(|size| *size > 12 << 10));
    }
}
