//! What is this allocator's: which stretches of the address space are chunks, and which blocks without a class the program has.
//!
//! Looked up by address alone, so that nothing is read where a wrong pointer points.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::super::chunk::CHUNK;

/// No system here gives a process addresses beyond these unless it asks for them.
pub(super) const ADDRESS_BITS: u32 = if usize::BITS < 48 { usize::BITS } else { 48 };

/// Bit n: at n times a chunk's bytes lies a chunk. Chunks stay. Only the pages that are written take memory.
static CHUNKS: [AtomicU64; 1 << (ADDRESS_BITS - CHUNK.ilog2() - 6)] = [const { AtomicU64::new(0) }; _];

/// A chunk starts at this address.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn add_chunk(address: usize) {
    if let Some(word) = CHUNKS.get(address / CHUNK / 64) {
        word.fetch_or(1 << (address / CHUNK % 64), Ordering::Release);
    }
}

/// Whether the address lies in a chunk.
#[inline(always)]
pub(super) fn is_in_chunk(address: usize) -> bool {
    CHUNKS.get(address / CHUNK / 64).is_some_and(|word| word.load(Ordering::Acquire) >> (address / CHUNK % 64) & 1 != 0)
}

/// A block without a class that the program has; none where the address is 0.
struct Large {
    address: AtomicUsize,
    bytes: AtomicUsize,
}

/// Blocks whose addresses have the same hash.
struct Bucket {
    blocks: [Large; 16],
    /// There was one more once. Since then a block that is not here may be the program's all the same.
    overflowed: AtomicBool,
}

/// A sixteenth of the blocks that the table has, in pages that are written as they are needed: 64 Ki blocks of 256 KiB and more.
const BUCKETS: usize = 4096;

static TABLE: [Bucket; BUCKETS] = [const {
    Bucket {
        blocks: [const { Large { address: AtomicUsize::new(0), bytes: AtomicUsize::new(0) } }; 16],
        overflowed: AtomicBool::new(false),
    }
}; BUCKETS];

fn bucket(address: usize) -> &'static Bucket {
    // Large blocks start at pages, and mostly lie a multiple of some power of two apart.
    &TABLE[((address >> 12) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> (usize::BITS - BUCKETS.ilog2())]
}

/// The program has got a block.
pub(super) fn add(address: usize, bytes: usize) {
    let bucket = bucket(address);
    for block in &bucket.blocks {
        if block.address.load(Ordering::Relaxed) == 0
            && block.address.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // SIGNAL: nobody has the address yet who could free it rightly.
            block.bytes.store(bytes, Ordering::Relaxed);
            return;
        }
    }
    bucket.overflowed.store(true, Ordering::Relaxed);
}

/// The block's place in its bucket. Not for the null pointer, which is that of a free place.
fn find(address: usize, bucket: &Bucket) -> Option<&Large> {
    bucket.blocks.iter().find(|block| address != 0 && block.address.load(Ordering::Relaxed) == address)
}

/// The program gives a block back. `false` when it has none of this size there.
pub(super) fn remove(address: usize, bytes: usize) -> bool {
    let bucket = bucket(address);
    match find(address, bucket) {
        // One exchange, so that of two threads that free the same block one is told.
        Some(block) => {
            block.bytes.load(Ordering::Relaxed) == bytes
                && block.address.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
        None => bucket.overflowed.load(Ordering::Relaxed),
    }
}

/// Whether the program has, or may have, a block of this size there.
pub(super) fn has(address: usize, bytes: usize) -> bool {
    let bucket = bucket(address);
    match find(address, bucket) {
        Some(block) => block.bytes.load(Ordering::Relaxed) == bytes,
        None => bucket.overflowed.load(Ordering::Relaxed),
    }
}

/// The block that an address lies in: its start and its bytes. Looks at all of them.
#[cold]
pub(super) fn around(address: usize) -> Option<(usize, usize)> {
    let blocks = TABLE.iter().flat_map(|bucket| &bucket.blocks);
    let mut ranges = blocks.map(|block| (block.address.load(Ordering::Relaxed), block.bytes.load(Ordering::Relaxed)));
    ranges.find(|(start, bytes)| *start != 0 && address.wrapping_sub(*start) < *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_until_it_is_given_back() {
        // Not an address that a test beside this one has.
        let address = 0x5000;
        assert!(!has(address, 1 << 20) && !remove(address, 1 << 20));
        add(address, 1 << 20);
        assert!(has(address, 1 << 20) && !has(address, 2 << 20) && !remove(address, 2 << 20));
        assert_eq!(around(address + 77), Some((address, 1 << 20)));
        assert_eq!((around(address + (1 << 20)), around(address - 1)), (None, None));
        assert!(remove(address, 1 << 20));
        assert!(!has(address, 1 << 20) && !remove(address, 1 << 20) && around(address).is_none());
    }

    #[test]
    fn a_bucket_that_overflows_reports_nothing_any_more() {
        let mut alike = (1 << 30..).step_by(1 << 20).filter(|address| core::ptr::eq(bucket(*address), bucket(1 << 30)));
        let mut addresses = [0; 18];
        addresses.fill_with(|| alike.next().unwrap());
        let (last, others) = addresses.split_last().unwrap();
        for address in others {
            assert!(!has(*address, 1 << 20) && !remove(*last, 1 << 20));
            add(*address, 1 << 20);
        }
        assert!(others.iter().all(|address| remove(*address, 1 << 20)));
        assert!(has(*last, 1 << 20) && remove(*last, 1 << 20));
    }

    #[test]
    fn addresses_beyond_all_chunks_are_in_none() {
        for address in [0, 8, CHUNK, usize::MAX, usize::MAX / 2, 1 << (ADDRESS_BITS - 1)] {
            assert!(!is_in_chunk(address), "{address:#x}");
        }
    }
}
