//! A block from the global allocator, of a size that is known at run time only; and a table of such blocks.

use std::alloc::{self, Layout};
use std::hint::black_box;
use std::ptr::NonNull;

use fastrand::Rng;

/// Owns its memory. The first and the last byte have been written, as a program that asks for memory would.
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<u8>,
    size: u32,
}

// SAFETY: a block owns its memory, and nothing in it belongs to a thread.
unsafe impl Send for Block {}

fn layout(size: u32) -> Layout {
    // SAFETY: the alignment is a power of two, and no 32-bit size overflows an `isize`.
    unsafe { Layout::from_size_align_unchecked(size as usize, 8) }
}

impl Block {
    /// `size` is not zero.
    #[inline]
    pub(crate) fn new(size: u32) -> Self {
        let layout = layout(size);
        // SAFETY: the size is not zero.
        let start = black_box(unsafe { alloc::alloc(layout) });
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        // SAFETY: both bytes lie in the block.
        unsafe {
            start.write(1);
            start.add(size as usize - 1).write(2);
        }
        Self { start, size }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the block came from `alloc` with this layout and is freed once.
        unsafe { alloc::dealloc(black_box(self.start.as_ptr()), layout(self.size)) };
    }
}

/// How large blocks are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sizes {
    /// Every size from 1 to the limit is as likely as another.
    Uniform(u32),
    /// Every doubling from 16 to the limit is as likely as another: many small blocks and a few large ones.
    Doublings(u32),
}

impl Sizes {
    /// From 32 random bits.
    #[inline]
    pub(crate) fn pick(self, random: u32) -> u32 {
        match self {
            Self::Uniform(limit) => scale(random, limit) + 1,
            Self::Doublings(limit) => {
                let doublings = limit.ilog2() - 4;
                let low = 16 << scale(random, doublings);
                low + scale(random.rotate_left(16), low) + 1
            }
        }
    }
}

/// 0 to `limit - 1`.
#[inline]
fn scale(random: u32, limit: u32) -> u32 {
    ((u64::from(random) * u64::from(limit)) >> 32) as u32
}

/// A table of live blocks in which one after another, chosen at random, is freed and replaced.
#[derive(Debug)]
pub(crate) struct Slots {
    blocks: Vec<Block>,
    sizes: Sizes,
    rng: Rng,
}

impl Slots {
    pub(crate) fn new(live: u32, sizes: Sizes, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let blocks = (0..live).map(|_| Block::new(sizes.pick(rng.u32(..)))).collect();
        Self { blocks, sizes, rng }
    }

    #[inline]
    pub(crate) fn replace(&mut self, times: u64) {
        for _ in 0..times {
            let random = self.rng.u64(..);
            let slot = scale(random as u32, self.blocks.len() as u32) as usize;
            let size = self.sizes.pick((random >> 32) as u32);
            // SAFETY: `scale` stays below the length.
            let place: *mut Block = unsafe { self.blocks.get_unchecked_mut(slot) };
            // SAFETY: the old block is dropped once, and the place is filled before anybody looks at it: `new` does not unwind.
            unsafe {
                place.drop_in_place();
                place.write(Block::new(size));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_reach_from_the_smallest_to_the_limit() {
        assert_eq!(Sizes::Uniform(512).pick(0), 1);
        assert_eq!(Sizes::Uniform(512).pick(u32::MAX), 512);
        let sizes = Sizes::Doublings(65_536);
        let picked = || (0..100_000u32).map(|i| sizes.pick(i.wrapping_mul(0x9e37_79b9)));
        assert!(picked().min() <= Some(20), "smallest {:?}", picked().min());
        assert!((60_000..=65_536).contains(&picked().max().unwrap()), "largest {:?}", picked().max());
    }
}
