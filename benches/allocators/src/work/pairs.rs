//! A block is asked for and freed at once; or a hundred are, and freed in the opposite order.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::Work;
use crate::block::Block;

/// A boxed value of a size that the compiler knows, as most of a program's boxes are. Its first word is written.
type Boxed<const WORDS: usize> = Box<MaybeUninit<[u64; WORDS]>>;

/// The pointer passes through `black_box`, so that the compiler must believe that somebody else reads the block.
#[inline(always)]
fn boxed<const WORDS: usize>(value: u64) -> Boxed<WORDS> {
    let mut block = Box::<[u64; WORDS]>::new_uninit();
    // SAFETY: the array has at least one word.
    unsafe { block.as_mut_ptr().cast::<u64>().write(value) };
    black_box(block)
}

#[derive(Debug)]
pub(crate) struct Pairs<const WORDS: usize>;

impl<const WORDS: usize> Work for Pairs<WORDS> {
    #[inline(never)]
    fn run(&mut self, turns: u64) {
        for i in 0..turns {
            drop(boxed::<WORDS>(i));
        }
    }
}

/// Pairs of a size that the compiler does not know, as a vector's buffer has.
#[derive(Debug)]
pub(crate) struct DynamicPairs(pub(crate) u32);

impl Work for DynamicPairs {
    #[inline(never)]
    fn run(&mut self, turns: u64) {
        for _ in 0..turns {
            drop(Block::new(black_box(self.0)));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Bursts<const WORDS: usize>;

/// Blocks in a burst.
pub(crate) const BURST: usize = 100;

impl<const WORDS: usize> Work for Bursts<WORDS> {
    #[inline(never)]
    fn run(&mut self, turns: u64) {
        let mut held: [MaybeUninit<Boxed<WORDS>>; BURST] = [const { MaybeUninit::uninit() }; BURST];
        for i in 0..turns {
            for place in &mut held {
                place.write(boxed(i));
            }
            for place in held.iter_mut().rev() {
                // SAFETY: the loop above filled every place, and each is dropped once.
                unsafe { place.assume_init_drop() };
            }
        }
    }
}
