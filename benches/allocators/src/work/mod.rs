//! The workloads. Each is built by its constructor before the clock starts, does the same in every run, and frees what it holds when
//! it is dropped.

mod growing;
mod handover;
mod json;
mod large;
mod maps;
mod pairs;
mod pipeline;
mod search;

pub(crate) use growing::{Strings, Vectors};
pub(crate) use handover::{HANDED_OVER, Handover};
pub(crate) use json::Json;
pub(crate) use large::{Large, LargeGrowth};
pub(crate) use maps::{Ordered, Unordered};
pub(crate) use pairs::{BURST, Bursts, DynamicPairs, Pairs};
pub(crate) use pipeline::{BATCH, Pipeline};
pub(crate) use search::Search;
pub use search::{TREE, tree};

use crate::block::Slots;

/// What a thread does between the two readings of the clock.
pub(crate) trait Work: Send {
    fn run(&mut self, turns: u64);
}

impl Work for Slots {
    fn run(&mut self, turns: u64) {
        self.replace(turns);
    }
}
