//! Chunks: 4 MiB of address space, of which spans get their units.
//!
//! A chunk is aligned to its size, so that an address leads to it by arithmetic. Its first unit holds the descriptors of the others, so
//! that a descriptor stays one for as long as the process lives: chunks are never unmapped, only their memory is given back.
//!
//! Which units are free is one word of bits, and a run of them is claimed by one compare-and-swap. Nothing here waits: a thread that
//! is stopped in between keeps the units that it has claimed, and no more.
//!
//! Runs in any context.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::os;
use super::span::Span;

/// Of these chunks consist.
pub(super) const UNIT: usize = 64 << 10;
/// Bytes of a chunk.
pub(super) const CHUNK: usize = 4 << 20;
/// Units of a chunk, that of the descriptors included.
pub(super) const UNITS: usize = CHUNK / UNIT;

/// The start of a chunk.
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// Its place in the directory.
    index: AtomicU32,
    /// Bit n: unit n is free.
    free: AtomicU64,
    /// Bit n: unit n may hold memory that is not zero. Of use while it is free.
    dirty: AtomicU64,
    /// One for each unit; that of a longer span is its first unit's.
    spans: [Span; UNITS],
}

const _: () = assert!(size_of::<Chunk>() <= UNIT && UNITS == 64);

/// Units that somebody has claimed.
pub(super) struct Claim {
    pub(super) chunk: &'static Chunk,
    pub(super) first: usize,
    /// Whether their memory is zero.
    pub(super) zeroed: bool,
}

/// What has become of free units' memory, in units.
pub(super) struct Purged {
    /// Gone back to the system.
    pub(super) given: usize,
    /// Not taken: somebody has locked the pages, or all that is mapped (`mlockall`).
    pub(super) refused: usize,
}

const LEAF: usize = 4096;
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
    HINT.store(memory.addr() - CHUNK, Ordering::Relaxed);
    // SAFETY: aligned, large enough, zero; zero is a value of every field, and from here on it is only reached as this type.
    let chunk = unsafe { &*memory.cast::<Chunk>() };
    chunk.index.store(index as u32, Ordering::Relaxed);
    chunk.free.store(!1, Ordering::Relaxed);
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

/// The first of `count` adjacent bits.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn find_run(bits: u64, count: usize) -> Option<usize> {
    let (mut starts, mut length) = (bits, 1);
    while length < count {
        let step = length.min(count - length);
        starts &= starts >> step;
        length += step;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

/// `count` bits from `first` on.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn run(first: usize, count: usize) -> u64 {
    ((1 << count) - 1) << first
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
        let free = self.free.load(Ordering::Acquire);
        (free, free & self.dirty.load(Ordering::Relaxed))
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim(&'static self, count: usize) -> Option<Claim> {
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            // What is in memory already comes first.
            let dirty = free & self.dirty.load(Ordering::Relaxed);
            let first = find_run(dirty, count).or_else(|| find_run(free, count))?;
            let bits = run(first, count);
            match self.free.compare_exchange_weak(free, free & !bits, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if free == bits {
                        self.say_full();
                    }
                    let dirty = self.dirty.fetch_and(!bits, Ordering::AcqRel) & bits;
                    if dirty != 0 {
                        DIRTY_UNITS.fetch_sub(dirty.count_ones() as usize, Ordering::Relaxed);
                    }
                    return Some(Claim { chunk: self, first, zeroed: dirty == 0 });
                }
                Err(now) => free = now,
            }
        }
    }

    /// Claims exactly these units, if they are free: to grow a run where it is.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim_at(&self, first: usize, count: usize) -> bool {
        if first + count > UNITS {
            return false;
        }
        let bits = run(first, count);
        let mut free = self.free.load(Ordering::Acquire);
        while free & bits == bits {
            match self.free.compare_exchange_weak(free, free & !bits, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let dirty = self.dirty.fetch_and(!bits, Ordering::AcqRel) & bits;
                    DIRTY_UNITS.fetch_sub(dirty.count_ones() as usize, Ordering::Relaxed);
                    return true;
                }
                Err(now) => free = now,
            }
        }
        false
    }

    /// Takes the chunk out of the search, unless somebody has freed a unit meanwhile.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn say_full(&self) {
        let room = self.room();
        let bit = 1 << (self.index.load(Ordering::Relaxed) % 64);
        room.fetch_and(!bit, Ordering::AcqRel);
        // SIGNAL: a unit that is freed before the line above is seen here; one after it sets the bit itself.
        if self.free.load(Ordering::SeqCst) != 0 {
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

    /// Frees units that somebody has claimed. `dirty`: whether their memory may have been written.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn release(&self, first: usize, count: usize, dirty: bool) {
        let bits = run(first, count);
        if dirty {
            self.dirty.fetch_or(bits, Ordering::AcqRel);
            DIRTY_UNITS.fetch_add(count, Ordering::Relaxed);
        }
        self.put_back(bits);
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn put_back(&self, bits: u64) {
        if self.free.fetch_or(bits, Ordering::SeqCst) == 0 {
            self.room().fetch_or(1 << (self.index.load(Ordering::Relaxed) % 64), Ordering::AcqRel);
        }
    }

    /// Gives the memory of the free units back to the system.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn purge(&'static self) -> Purged {
        let (mut given, mut refused) = (0, 0);
        loop {
            let free = self.free.load(Ordering::Acquire);
            let dirty = free & self.dirty.load(Ordering::Acquire) & !refused;
            if dirty == 0 {
                return Purged { given, refused: refused.count_ones() as usize };
            }
            // One stretch at a time is taken out of the free ones, so that nobody uses it meanwhile.
            let first = dirty.trailing_zeros() as usize;
            let count = (dirty >> first).trailing_ones() as usize;
            let bits = if count == 64 { u64::MAX } else { run(first, count) };
            if self.free.compare_exchange(free, free & !bits, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            // SAFETY: units of this chunk that this thread has claimed.
            let gone = unsafe { os::discard(self.unit(first), count * UNIT) };
            if gone {
                self.dirty.fetch_and(!bits, Ordering::AcqRel);
                DIRTY_UNITS.fetch_sub(count, Ordering::Relaxed);
                given += count;
            } else {
                refused |= bits;
            }
            self.put_back(bits);
        }
    }
}

/// Gives the memory of all free units back.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn purge() -> Purged {
    let mut all = Purged { given: 0, refused: 0 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_are_found_where_they_are() {
        assert_eq!(find_run(0, 1), None);
        assert_eq!(find_run(0b1011_0111, 3), Some(0));
        assert_eq!(find_run(0b1011_0110, 2), Some(1));
        assert_eq!(find_run(0b1011_0110, 3), None);
        assert_eq!(find_run(u64::MAX << 1, 63), Some(1));
        for count in 1..64 {
            for first in 0..=(64 - count) {
                assert_eq!(find_run(run(first, count), count), Some(first));
                assert_eq!(find_run(run(first, count), count + 1), None);
            }
        }
    }
}
