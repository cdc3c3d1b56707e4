//! Blocks of megabytes: most of what they cost is the kernel's work for pages that come and go.

use std::hint::black_box;

use fastrand::Rng;

use super::Work;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
const LIVE: usize = 8;

/// Eight live blocks of 1 to 8 MiB. One is freed and replaced in each turn, and a byte of each page is written.
#[derive(Debug)]
pub(crate) struct Large {
    live: [Vec<u8>; LIVE],
    rng: Rng,
}

impl Large {
    pub(crate) fn new(seed: u64) -> Self {
        Self { live: [const { Vec::new() }; LIVE], rng: Rng::with_seed(seed) }
    }
}

impl Work for Large {
    fn run(&mut self, turns: u64) {
        for _ in 0..turns {
            let size = self.rng.usize(MIB..=8 * MIB);
            let place = &mut self.live[self.rng.usize(..LIVE)];
            *place = Vec::new();
            *place = Vec::with_capacity(size);
            for byte in place.spare_capacity_mut().iter_mut().step_by(PAGE) {
                byte.write(1);
            }
            black_box(place.as_ptr());
        }
    }
}

/// A vector of bytes that grows by 64 KiB at a time to 16 MiB, doubling its capacity as vectors do, and is dropped.
#[derive(Debug)]
pub(crate) struct LargeGrowth;

impl Work for LargeGrowth {
    fn run(&mut self, turns: u64) {
        let piece = black_box(vec![7u8; 64 << 10]);
        for _ in 0..turns {
            let mut grown = Vec::new();
            while grown.len() < 16 * MIB {
                grown.extend_from_slice(&piece);
            }
            black_box(grown.as_ptr());
        }
    }
}
