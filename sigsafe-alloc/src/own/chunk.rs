//! Chunks: 4 MiB of address space, of which spans get their units.
//!
//! A chunk is aligned to its size, so that an address leads to it by arithmetic. Its first unit holds the descriptors of the others, so
//! that a descriptor stays one for as long as the process lives: chunks are never unmapped, only their memory is given back.
//!
//! Which units are free is one word of bits: see [`units`](super::units).
//!
//! Runs in any context.

use core::ptr::null_mut;

use sigsafe_core::mutant;

use super::span::Span;
use super::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use super::units::UNITS;
use super::units::{Purged, Run, Units};
use super::{hardened, os};

/// Of these chunks consist.
pub(super) const UNIT: usize = 64 << 10;
/// Bytes of a chunk.
pub(super) const CHUNK: usize = 4 << 20;

/// The start of a chunk.
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// Its place in the directory.
    index: AtomicU32,
    units: Units,
    /// One for each unit; that of a longer span is its first unit's.
    spans: [Span; UNITS],
}

const _: () = assert!(size_of::<Chunk>() <= UNIT && UNITS * UNIT == CHUNK);

/// Units that somebody has claimed.
pub(super) struct Claim {
    pub(super) chunk: &'static Chunk,
    pub(super) first: usize,
    /// Whether their memory is zero.
    pub(super) zeroed: bool,
}

/// A model looks through one word of them.
const LEAF: usize = if cfg!(all(test, loom)) { 64 } else { 4096 };
const LEAVES: usize = 64;

/// A part of the directory of all chunks.
struct Leaf {
    /// Bit n: chunk n may have a free unit.
    room: [AtomicU64; LEAF / 64],
    chunks: [AtomicPtr<Chunk>; LEAF],
}

/// All chunks by number: 2^18, a tebibyte.
static DIRECTORY: [AtomicPtr<Leaf>; LEAVES] = [const { AtomicPtr::new(null_mut()) }; LEAVES];
/// How many numbers have been given out.
static CHUNKS: AtomicUsize = AtomicUsize::new(0);
/// Where the next chunk would lie well, or 0.
static HINT: AtomicUsize = AtomicUsize::new(0);
/// Free units whose memory has not been given back.
static DIRTY_UNITS: AtomicUsize = AtomicUsize::new(0);

/// Claims `count` adjacent units of the chunks that there are; of the lowest one that has room, so that the others empty.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn claim(count: usize) -> Option<Claim> {
    for index in 0..LEAVES {
        let Some(leaf) = leaf_at(index) else { break };
        for word in 0..leaf.room.len() {
            let mut bits = leaf.room[word].load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // SAFETY: the pointer is null or a chunk's, and chunks stay.
                let chunk = unsafe { leaf.chunks[word * 64 + bit].load(Ordering::Acquire).as_ref() };
                if let Some(chunk) = chunk
                    && let Some(claim) = chunk.claim(count)
                {
                    return Some(claim);
                }
            }
        }
    }
    None
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn leaf_at(index: usize) -> Option<&'static Leaf> {
    // SAFETY: the pointer is null or a leaf's, and leaves stay.
    unsafe { DIRECTORY.get(index)?.load(Ordering::Acquire).as_ref() }
}

/// All chunks, for checks and counts: what runs with a cache in hand goes by number.
pub(super) fn all() -> impl Iterator<Item = &'static Chunk> {
    (0..count()).filter_map(by_index)
}

/// The chunk with this number.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn by_index(index: usize) -> Option<&'static Chunk> {
    let leaf = leaf_at(index / LEAF)?;
    // SAFETY: as in `claim`.
    unsafe { leaf.chunks[index % LEAF].load(Ordering::Acquire).as_ref() }
}

/// Maps a chunk and makes it known; `None` when the system has no more memory.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn new_chunk() -> Option<&'static Chunk> {
    let memory = os::map_aligned(CHUNK, CHUNK, HINT.load(Ordering::Relaxed));
    if memory.is_null() {
        return None;
    }
    let Some((index, leaf)) = next_number() else {
        // SAFETY: mapped above, and nobody's yet.
        unsafe { os::unmap(memory, CHUNK) };
        return None;
    };
    // SIGNAL: a number without a chunk is passed over by all that goes by number; a handler that leaves by longjmp leaves it so.
    HINT.store(memory.addr() - CHUNK, Ordering::Relaxed);
    // SAFETY: aligned, large enough, zero; zero is a value of every field, and from here on it is only reached as this type.
    let chunk = unsafe { &*memory.cast::<Chunk>() };
    chunk.index.store(index as u32, Ordering::Relaxed);
    chunk.units.start();
    hardened::start(chunk);
    // SIGNAL: from here on everybody may claim of it.
    leaf.chunks[index % LEAF].store(memory.cast(), Ordering::Release);
    leaf.room[index % LEAF / 64].fetch_or(1 << (index % 64), Ordering::Release);
    Some(chunk)
}

/// The next chunk's number, and the leaf that has its place: without one no number is used up.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn next_number() -> Option<(usize, &'static Leaf)> {
    let mut index = CHUNKS.load(Ordering::Relaxed);
    loop {
        let leaf = leaf_for(index)?;
        match CHUNKS.compare_exchange_weak(index, index + 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some((index, leaf)),
            Err(now) => index = now,
        }
    }
}

/// The leaf for this number, made if need be: who comes second takes the first one's and unmaps his own.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn leaf_for(index: usize) -> Option<&'static Leaf> {
    let place = DIRECTORY.get(index / LEAF)?;
    let known = place.load(Ordering::Acquire);
    // SAFETY: null or a leaf, and leaves stay.
    if let Some(leaf) = unsafe { known.as_ref() } {
        return Some(leaf);
    }
    let bytes = os::page_up(size_of::<Leaf>());
    let fresh: *mut Leaf = os::map(bytes).cast();
    if fresh.is_null() {
        return None;
    }
    match place.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: zeroed pages are a leaf.
        Ok(_) => Some(unsafe { &*fresh }),
        Err(first) => {
            // SAFETY: nobody has seen it.
            unsafe { os::unmap(fresh.cast(), bytes) };
            // SAFETY: a leaf, which stays.
            Some(unsafe { &*first })
        }
    }
}

impl Chunk {
    /// The chunk that an address lies in.
    ///
    /// # Safety
    ///
    /// It lies in one.
    #[inline(always)]
    pub(super) unsafe fn of(address: *mut u8) -> &'static Chunk {
        // SAFETY: the caller's promise; chunks are aligned to their size and stay.
        unsafe { &*address.map_addr(|address| address & !(CHUNK - 1)).cast() }
    }

    /// The address of a unit.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn unit(&'static self, unit: usize) -> *mut u8 {
        let start: *const Chunk = self;
        start.cast::<u8>().cast_mut().wrapping_add(unit * UNIT)
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn span(&'static self, unit: usize) -> &'static Span {
        &self.spans[unit % UNITS]
    }

    /// The number of a span, by which [`by_number`] finds it again.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn number(&self, unit: usize) -> u32 {
        self.index.load(Ordering::Relaxed) * UNITS as u32 + unit as u32
    }

    /// Free units and, of these, those whose memory has not been given back.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn free_units(&self) -> (u64, u64) {
        self.units.free()
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim(&'static self, count: usize) -> Option<Claim> {
        // SIGNAL: before `claimed` has said so, the search may look at a chunk that is full, and the count is too high.
        let run = self.units.claim(count)?;
        self.claimed(&run);
        Some(Claim { chunk: self, first: run.first, zeroed: run.dirty == 0 || mutant!("dirty-is-zero") })
    }

    /// Claims exactly these units, if they are free: to grow a run where it is.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim_at(&self, first: usize, count: usize) -> bool {
        // SIGNAL: as in `claim`.
        let Some(run) = self.units.claim_at(first, count) else { return false };
        self.claimed(&run);
        true
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn claimed(&self, run: &Run) {
        if run.last {
            self.say_full();
        }
        if run.dirty != 0 {
            DIRTY_UNITS.fetch_sub(run.dirty, Ordering::Relaxed);
        }
    }

    /// Takes the chunk out of the search, unless somebody has freed a unit meanwhile.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn say_full(&self) {
        let room = self.room();
        let bit = self.bit();
        room.fetch_and(!bit, Ordering::AcqRel);
        // SIGNAL: a unit that is freed before the line above is seen here; one after it sets the bit itself.
        if self.units.free().0 != 0 && !mutant!("full-unchecked") {
            room.fetch_or(bit, Ordering::AcqRel);
        }
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn room(&self) -> &'static AtomicU64 {
        let index = self.index.load(Ordering::Relaxed) as usize;
        // SAFETY: the chunk is known, so its leaf is there, and stays.
        let leaf = unsafe { &*DIRECTORY[index / LEAF].load(Ordering::Acquire) };
        &leaf.room[index % LEAF / 64]
    }

    /// The chunk's bit in that word.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn bit(&self) -> u64 {
        1 << (self.index.load(Ordering::Relaxed) % 64)
    }

    /// Says that the chunk, which was full, may have a free unit.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn say_room(&self) {
        self.room().fetch_or(self.bit(), Ordering::AcqRel);
    }

    /// Frees units that somebody has claimed.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn release(&self, first: usize, count: usize) {
        // SIGNAL: counted before they are free, so that the count is never too low.
        DIRTY_UNITS.fetch_add(count, Ordering::Relaxed);
        let none_free = self.units.release(first, count);
        // SIGNAL: a handler that leaves by longjmp here leaves a chunk at which nobody looks: so each later release looks whether its room
        // is known.
        if none_free || (self.room().load(Ordering::Relaxed) & self.bit() == 0 && !mutant!("room-once")) {
            self.say_room();
        }
    }

    /// Gives the memory of the free units back to the system.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn purge(&'static self) -> Purged {
        // SAFETY: this chunk's units.
        let (purged, none_free) = unsafe { self.units.purge(self.unit(0), UNIT, &DIRTY_UNITS) };
        // SIGNAL: before this line the search may pass over units that are free, and asks for a new chunk instead.
        if none_free {
            self.say_room();
        }
        purged
    }
}

/// Gives the memory of all free units back.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn purge() -> Purged {
    let mut all = Purged::default();
    for index in 0..count() {
        if let Some(chunk) = by_index(index) {
            let one = chunk.purge();
            all.given += one.given;
            all.refused += one.refused;
        }
    }
    all
}

/// Free units whose memory has not been given back.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn dirty_units() -> usize {
    DIRTY_UNITS.load(Ordering::Relaxed)
}

/// How many chunks there are.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn count() -> usize {
    CHUNKS.load(Ordering::Relaxed)
}

/// The span with this number.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn by_number(number: u32) -> Option<&'static Span> {
    Some(by_index(number as usize / UNITS)?.span(number as usize % UNITS))
}
