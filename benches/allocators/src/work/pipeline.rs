//! One thread asks for blocks, another frees them.

use std::sync::mpsc;
use std::thread;

use fastrand::Rng;

use super::Work;
use crate::block::{Block, Sizes};

/// Blocks that travel together, in a vector that the consumer frees too: the channel's own cost is spread over them.
pub(crate) const BATCH: u64 = 100;
/// Batches that may be on their way.
const IN_FLIGHT: usize = 32;
const SIZES: Sizes = Sizes::Uniform(256);

#[derive(Debug)]
pub(crate) struct Pipeline(Rng);

impl Pipeline {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }
}

impl Work for Pipeline {
    fn run(&mut self, turns: u64) {
        // A bounded channel has all its memory from the start.
        let (sender, receiver) = mpsc::sync_channel::<Vec<Block>>(IN_FLIGHT);
        thread::scope(|scope| {
            scope.spawn(move || receiver.into_iter().for_each(drop));
            for _ in 0..turns {
                let batch = (0..BATCH).map(|_| Block::new(SIZES.pick(self.0.u32(..)))).collect();
                sender.send(batch).expect("the consumer reads until the last sender is gone");
            }
            drop(sender);
        });
    }
}
