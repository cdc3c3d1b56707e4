//! Threads that take over a table of live blocks, replace some of them, pass the table on and die: what one thread asked for is freed by
//! another after its end (the idea of the `larson` benchmark).

use std::thread;

use super::Work;
use crate::block::{Sizes, Slots};

/// Tables, each with one thread at a time.
const CHAINS: u64 = 2;
/// Blocks in a table.
const LIVE: u32 = 1_000;
/// What a thread replaces in its life.
const REPLACED: u64 = 10_000;

/// Operations of a turn, which is one life of a thread for each table.
pub(crate) const HANDED_OVER: u64 = CHAINS * REPLACED;

#[derive(Debug)]
pub(crate) struct Handover(Vec<Slots>);

impl Handover {
    pub(crate) fn new(seed: u64) -> Self {
        Self((0..CHAINS).map(|chain| Slots::new(LIVE, Sizes::Uniform(512), seed + chain)).collect())
    }
}

impl Work for Handover {
    fn run(&mut self, turns: u64) {
        thread::scope(|scope| {
            for slots in &mut self.0 {
                scope.spawn(move || {
                    for _ in 0..turns {
                        thread::scope(|life| life.spawn(|| slots.replace(REPLACED)).join().expect("no panic"));
                    }
                });
            }
        });
    }
}
