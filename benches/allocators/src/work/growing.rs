//! Vectors and strings that grow from nothing, several at a time, so that none is always the last block of the heap.

use std::hint::black_box;

use fastrand::Rng;

use super::Work;
use crate::block::Sizes;

/// Live at a time; one after the other is dropped and grown anew.
const LIVE: usize = 16;

/// Vectors of words, by `push`, to at most 16,384.
#[derive(Debug)]
pub(crate) struct Vectors {
    live: [Vec<u64>; LIVE],
    next: usize,
    rng: Rng,
}

impl Vectors {
    pub(crate) fn new(seed: u64) -> Self {
        Self { live: [const { Vec::new() }; LIVE], next: 0, rng: Rng::with_seed(seed) }
    }
}

impl Work for Vectors {
    fn run(&mut self, turns: u64) {
        for _ in 0..turns {
            let length = Sizes::Doublings(16_384).pick(self.rng.u32(..));
            let place = &mut self.live[self.next];
            *place = Vec::new();
            for i in 0..u64::from(length) {
                place.push(i);
            }
            black_box(place.as_ptr());
            self.next = (self.next + 1) % LIVE;
        }
    }
}

/// Strings that grow in turn, by pieces of 16 bytes, to at most 64 KiB.
#[derive(Debug)]
pub(crate) struct Strings {
    live: [String; LIVE],
    limits: [usize; LIVE],
    rng: Rng,
}

impl Strings {
    pub(crate) fn new(seed: u64) -> Self {
        Self { live: [const { String::new() }; LIVE], limits: [0; LIVE], rng: Rng::with_seed(seed) }
    }
}

impl Work for Strings {
    /// A hundred times a turn each string grows by 64 bytes, or begins anew if it has reached its limit.
    fn run(&mut self, turns: u64) {
        for _ in 0..turns * 100 {
            for (string, limit) in self.live.iter_mut().zip(&mut self.limits) {
                if string.len() >= *limit {
                    *string = String::new();
                    *limit = Sizes::Doublings(65_536).pick(self.rng.u32(..)) as usize;
                }
                for _ in 0..4 {
                    string.push_str(black_box("a piece of text "));
                }
            }
        }
    }
}
