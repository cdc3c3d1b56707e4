//! The feature `hardened`: mistakes of the program that would spoil the heap end it, with a line that says which one it was.
//!
//! ```text
//!  alloc ─────────▶ give_out   it is a free block of this class; from now on it is live
//!  dealloc ───────▶ take_in    it is a live block of this class; from now on it is free
//!  realloc ───────▶ check      it is a live block of this class
//!  link, set_link ▶ link       what a free block holds is a link, and of this process
//! ```
//!
//! Every block of a class has a byte that says whether it is live, in units of its chunk that hold nothing else, and so out of reach of
//! what is written past a block. So a free that is no free of a live block is found whatever has happened to the memory, also when two
//! threads free the same block at once. Larger blocks are in a table ([`known`]).
//!
//! Not found: a block that is freed by two owners after it was given out anew in between; sizes that are of one class; what is written
//! past a block into a live one, or into a free one beyond its first word.
//!
//! Runs in any context. Checks are made before a cache is taken and after it has been put back, but for the links'. A block is in no
//! list between its byte's change and that.

mod known;
pub(super) mod link;
mod report;

use core::alloc::Layout;
use core::sync::atomic::{AtomicU8, Ordering};

use super::anchor::State;
use super::chunk::{CHUNK, Chunk, UNIT, UNITS};
use super::class::{CLASSES, Class, SIZES};
use super::{large, os, thread};

/// Units of a chunk that are not given out: that of the descriptors, and those of the bytes.
pub(super) const OWN_UNITS: usize = 1 + UNITS * BYTES / UNIT;

/// A unit has at most so many blocks.
const BYTES: usize = UNIT / 8;

/// Of a byte: no block that the program has. Zero, as new memory is.
const FREE: u8 = 0;
/// Of a byte: a block of the span's class that the program has.
const LIVE: u8 = 1;

/// By what a number below 2^19 is multiplied to divide it by each class's size, and shifted by [`SHIFT`].
static INVERSES: [u64; CLASSES] = {
    let mut inverses = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        inverses[class] = (1 << SHIFT) / SIZES[class] as u64 + 1;
        class += 1;
    }
    inverses
};
const SHIFT: u32 = 40;

/// What the program wants of a block that it says to have.
#[derive(Copy, Clone)]
enum Wish {
    Free,
    Realloc,
}

/// Before anybody gets units of a new chunk.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn start(chunk: &'static Chunk) {
    link::make_secret();
    known::add_chunk(chunk.unit(0).addr());
    // Nobody else knows the chunk yet.
    chunk.claim_at(1, OWN_UNITS - 1);
}

/// The bytes of a unit, or of a span that starts with it.
#[inline(always)]
fn byte(chunk: &'static Chunk, unit: usize, index: usize) -> &'static AtomicU8 {
    let offset = unit * BYTES + index;
    debug_assert!(offset < UNITS * BYTES);
    // SAFETY: within the chunk's own units, which are mapped for good and hold these bytes alone; zero is a value.
    unsafe { &*chunk.unit(1).add(offset).cast::<AtomicU8>() }
}

/// Where the block of an address that lies in a chunk starts, were it one of the class: the number of the span's first unit, and
/// the address's distance from there.
#[inline(always)]
fn place(chunk: &'static Chunk, address: usize) -> (usize, usize) {
    let within = address % CHUNK;
    let unit = within / UNIT;
    // A unit that is in no span any more says what was true for its last one, and so something that lies in the chunk.
    let first = unit.wrapping_sub(chunk.span(unit).back()) % UNITS;
    (first, within.wrapping_sub(first * UNIT))
}

/// The byte of a block, if the address is where a block of this class may start.
#[inline(always)]
fn byte_of(block: *mut u8, class: Class) -> Option<&'static AtomicU8> {
    if !known::is_in_chunk(block.addr()) {
        return None;
    }
    // SAFETY: just seen.
    let chunk = unsafe { Chunk::of(block) };
    let (first, offset) = place(chunk, block.addr());
    // Where this is no span at the moment, its bytes say so.
    if chunk.span(first).class() != Some(class) || offset >= class.units() * UNIT {
        return None;
    }
    let index = ((offset as u64 * INVERSES[class.index()]) >> SHIFT) as usize;
    (index * class.size() == offset).then(|| byte(chunk, first, index))
}

/// A block that a list has given, or null: it is the program's from now on.
#[inline(always)]
pub(super) fn give_out(block: *mut u8, class: Class) -> *mut u8 {
    if block.is_null() {
        return block;
    }
    match byte_of(block, class) {
        Some(byte) if byte.load(Ordering::Relaxed) == FREE => byte.store(LIVE, Ordering::Relaxed),
        _ => report::spoiled_list(block, class),
    }
    // This came behind the operation's own look.
    thread::let_in_after(block)
}

/// The same for a block that has no class.
pub(super) fn give_out_large(block: *mut u8, layout: Layout) -> *mut u8 {
    if !block.is_null() {
        known::add(block.addr(), large::usable(layout));
    }
    block
}

/// A block that the program gives back.
#[inline(always)]
pub(super) fn take_in(block: *mut u8, class: Class) {
    // One exchange, so that of two threads that free the same block one is told.
    let freed = byte_of(block, class).is_some_and(|byte| byte.compare_exchange(LIVE, FREE, Ordering::Relaxed, Ordering::Relaxed).is_ok());
    if !freed {
        report::bad_pointer(Wish::Free, block, class.size());
    }
}

/// A block without a class that the program gives back. Called before the memory may become another block's.
pub(super) fn take_in_large(block: *mut u8, layout: Layout) {
    if !known::remove(block.addr(), large::usable(layout)) {
        report::bad_pointer(Wish::Free, block, large::usable(layout));
    }
}

/// A block that the program wants to be resized.
pub(super) fn check(block: *mut u8, layout: Layout) {
    let (live, bytes) = match Class::of(layout) {
        Some(class) => (byte_of(block, class).is_some_and(|byte| byte.load(Ordering::Relaxed) == LIVE), class.size()),
        None => (known::has(block.addr(), large::usable(layout)), large::usable(layout)),
    };
    if !live {
        report::bad_pointer(Wish::Realloc, block, bytes);
    }
    // No operation may follow.
    thread::let_in_after(());
}

/// The memory of these units from `start` on has gone back to the system. Where they are a chunk's, and so nobody's at the moment, that
/// of their bytes, which are all zero, goes too.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn discard(start: *mut u8, first: usize, count: usize) {
    if !known::is_in_chunk(start.addr()) {
        return;
    }
    let from = os::page_up(first * BYTES);
    let to = (first + count) * BYTES / os::PAGE * os::PAGE;
    if from < to {
        // SAFETY: the chunk's own second unit and those behind it. The caller has claimed the units, so that no byte of theirs changes.
        unsafe { os::discard(start.add(UNIT + from), to - from) };
    }
}

/// What lies at an address, for whoever reads the report.
enum Found {
    /// Nothing of this allocator's.
    Nothing,
    /// Memory of its own, or of units that are in no block.
    Unused,
    /// A free block, so large.
    Free(usize),
    /// In a live block: its start and its bytes.
    Live(usize, usize),
}

/// Looks at what an address is of.
#[cold]
fn find(block: *mut u8) -> Found {
    let address = block.addr();
    if let Some((start, bytes)) = known::around(address) {
        return Found::Live(start, bytes);
    }
    if !known::is_in_chunk(address) {
        return Found::Nothing;
    }
    // SAFETY: just seen.
    let chunk = unsafe { Chunk::of(block) };
    let (first, offset) = place(chunk, address);
    let span = chunk.span(first);
    let Some(class) = span.class() else { return Found::Unused };
    let index = offset / class.size();
    if index >= span.carved() || span.anchor().state() == State::Idle {
        return Found::Unused;
    }
    match byte(chunk, first, index).load(Ordering::Relaxed) {
        LIVE => Found::Live(chunk.unit(first).addr() + index * class.size(), class.size()),
        _ => Found::Free(class.size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverses_divide_every_offset_in_a_span() {
        for class in Class::all() {
            let inverse = INVERSES[class.index()];
            for offset in 0..=class.units() * UNIT {
                assert_eq!(((offset as u64 * inverse) >> SHIFT) as usize, offset / class.size(), "{offset} {}", class.size());
            }
        }
    }

    #[test]
    fn a_chunk_has_room_for_every_block_s_byte() {
        for class in Class::all() {
            assert!(class.capacity() <= class.units() * BYTES);
        }
        assert_eq!((OWN_UNITS - 1) * UNIT, UNITS * BYTES);
    }
}
