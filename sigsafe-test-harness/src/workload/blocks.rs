//! The allocating half of the workload: a table of live blocks, of which one after the other is replaced or resized.
//!
//! Thread context. A step is one operation; it calls the subject one to two times.

use crate::block::{Block, draw_layout, draw_size};
use crate::fault::Fault;
use crate::rng::Generator;
use crate::subject::parts::Heap;

/// Live blocks of one thread.
const BLOCKS: u32 = 256;
/// The largest block.
const LARGEST_BLOCK: u32 = 16 << 10;

/// One thread's blocks.
pub(crate) struct Table {
    heap: &'static Heap,
    blocks: Vec<Option<Block>>,
    generator: Generator,
    serial: u64,
    /// The operation in which one byte is to be flipped, for the test that corruption is noticed.
    damage_at: Option<u64>,
}

impl Table {
    /// An empty table over `heap`.
    pub(crate) fn new(heap: &'static Heap, generator: Generator, damage_at: Option<u64>) -> Table {
        Table { heap, blocks: (0..BLOCKS).map(|_| None).collect(), generator, serial: 0, damage_at }
    }

    /// Resizes one block, or frees it and allocates another in its place.
    pub(crate) fn replace(&mut self) -> Result<(), Fault> {
        self.serial += 1;
        let serial = self.serial;
        let generator = &mut self.generator;
        let place = generator.below(BLOCKS) as usize;
        if let Some(block) = &mut self.blocks[place] {
            if self.damage_at.is_some_and(|at| at <= serial) {
                self.damage_at = None;
                block.damage();
                return Ok(());
            }
            if generator.one_in(4) {
                return block.resize(draw_size(generator, LARGEST_BLOCK), serial);
            }
        }
        if let Some(block) = self.blocks[place].take() {
            block.release()?;
        }
        let layout = draw_layout(generator, LARGEST_BLOCK);
        let block = if generator.one_in(8) {
            Block::obtain_zeroed(self.heap, layout, serial)?
        } else {
            Block::obtain(self.heap, layout, 0, serial)
        };
        self.blocks[place] = Some(block);
        Ok(())
    }

    /// Checks and frees every block.
    pub(crate) fn drain(&mut self) -> Result<(), Fault> {
        self.blocks.iter_mut().filter_map(Option::take).try_for_each(Block::release)
    }
}
