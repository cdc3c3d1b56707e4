//! The rows. Turns are chosen so that the timed part takes 50 to 300 ms with a good allocator.

use crate::block::{Sizes, Slots};
use crate::row::Allocations::{AtLeast, Exactly};
use crate::row::Row;
use crate::work::{
    BATCH, BURST, Bursts, DynamicPairs, HANDED_OVER, Handover, Json, Large, LargeGrowth, Ordered, Pairs, Pipeline, Search, Strings,
    Unordered, Vectors, Work,
};

/// The row of this name, in any of the tables.
pub fn find(name: &str) -> Option<&'static Row> {
    DEFAULT.iter().chain(GROWTH).chain(PAIRS).find(|row| row.name == name)
}

/// The comparison.
pub const DEFAULT: &[Row] = &[
    pair("pair16", "a boxed value of 16 bytes, made and dropped", 1, 20_000_000, |_| Box::new(Pairs::<2>)),
    pair("pair64", "the same with 64 bytes", 1, 20_000_000, |_| Box::new(Pairs::<8>)),
    pair("pair512", "the same with 512 bytes", 1, 20_000_000, |_| Box::new(Pairs::<64>)),
    pair("pair64-2t", "64 bytes, two threads", 2, 20_000_000, |_| Box::new(Pairs::<8>)),
    pair("pair64-8t", "64 bytes, eight threads", 8, 5_000_000, |_| Box::new(Pairs::<8>)),
    burst("burst64", "100 boxed values of 64 bytes made, then dropped, last first", 1, 200_000),
    burst("burst64-2t", "the same, two threads", 2, 200_000),
    burst("burst64-8t", "the same, eight threads", 8, 50_000),
    replace("replace-1k-512", "one of 1,000 live blocks of 1 to 512 bytes replaced", 1, 5_000_000, |seed| small(1_000, seed)),
    replace("replace-1k-512-2t", "the same, two threads, each with its own blocks", 2, 5_000_000, |seed| small(1_000, seed)),
    replace("replace-1k-512-8t", "the same, eight threads", 8, 1_000_000, |seed| small(1_000, seed)),
    replace("replace-100k-512", "one of 100,000 live blocks of 1 to 512 bytes replaced", 1, 2_000_000, |seed| small(100_000, seed)),
    replace("replace-1k-64k", "one of 1,000 live blocks of 1 byte to 64 KiB replaced", 1, 2_000_000, |seed| medium(1_000, seed)),
    replace("replace-1k-64k-2t", "the same, two threads, each with its own blocks", 2, 1_000_000, |seed| medium(1_000, seed)),
    replace("replace-1k-64k-8t", "the same, eight threads", 8, 250_000, |seed| medium(1_000, seed)),
    replace("replace-100k-64k", "one of 100,000 live blocks to 64 KiB replaced, each doubling of the size as likely", 1, 500_000, |seed| {
        Box::new(Slots::new(100_000, Sizes::Doublings(65_536), seed))
    }),
    Row {
        name: "handover",
        what: "two tables of 1,000 live blocks to 512 bytes pass through threads that replace 10,000 and die",
        operation: "replacement",
        threads: 1,
        turns: 200,
        operations: HANDED_OVER,
        allocations: AtLeast(HANDED_OVER),
        prepare: |seed| Box::new(Handover::new(seed)),
    },
    Row {
        name: "pipeline",
        what: "blocks to 256 bytes asked for in one thread, freed in another, by the hundred",
        operation: "block",
        threads: 1,
        turns: 40_000,
        operations: BATCH,
        allocations: AtLeast(BATCH + 1),
        prepare: |seed| Box::new(Pipeline::new(seed)),
    },
    Row {
        name: "vec-growth",
        what: "vectors of 17 to 16,384 words grown by push, 16 live",
        operation: "vector",
        threads: 1,
        turns: 40_000,
        operations: 1,
        allocations: AtLeast(4),
        prepare: |seed| Box::new(Vectors::new(seed)),
    },
    Row {
        name: "string-growth",
        what: "16 strings grown in turn, 16 bytes at a time, to at most 64 KiB",
        operation: "64 bytes of each",
        threads: 1,
        turns: 3_000,
        operations: 100,
        // A string of 64 KiB lasts for 1,024 operations and takes 14 buffers; shorter ones take more for each operation.
        allocations: AtLeast(16 * 14 * 100 / 1_024),
        prepare: |seed| Box::new(Strings::new(seed)),
    },
    Row {
        name: "large",
        what: "one of 8 live blocks of 1 to 8 MiB replaced, a byte of each page written",
        operation: "replacement",
        threads: 1,
        turns: 500,
        operations: 1,
        allocations: Exactly(1),
        prepare: |seed| Box::new(Large::new(seed)),
    },
    Row {
        name: "large-growth",
        what: "a vector grown by 64 KiB at a time to 16 MiB and dropped",
        operation: "vector",
        threads: 1,
        turns: 30,
        operations: 1,
        allocations: AtLeast(9),
        prepare: |_| Box::new(LargeGrowth),
    },
    Row {
        name: "hash-map",
        what: "a key inserted with a vector to 128 bytes, or removed, about 10,000 live, a new map every 100,000 turns",
        operation: "insertion or removal",
        threads: 1,
        turns: 20_000,
        operations: 100,
        // Nearly half of the keys are not there, and each of these brings a vector.
        allocations: AtLeast(40),
        prepare: |seed| Box::new(Unordered::new(seed)),
    },
    Row {
        name: "btree-map",
        what: "the same with an ordered map",
        operation: "insertion or removal",
        threads: 1,
        turns: 10_000,
        operations: 100,
        // Nearly half of the keys are not there, and each of these brings a vector.
        allocations: AtLeast(40),
        prepare: |seed| Box::new(Ordered::new(seed)),
    },
    Row {
        name: "json",
        what: "a document of 400 KB parsed into serde_json's Value and dropped",
        operation: "document",
        threads: 1,
        turns: 60,
        operations: 1,
        allocations: AtLeast(20_000),
        prepare: |seed| Box::new(Json::new(seed)),
    },
    Row {
        name: "ripgrep",
        what: "ripgrep's libraries search 2,000 files, two threads",
        operation: "search",
        threads: 1,
        turns: 3,
        operations: 1,
        allocations: AtLeast(40_000),
        prepare: |seed| Box::new(Search::new(seed)),
    },
];

/// More live blocks, more threads. Not in the comparison.
pub const GROWTH: &[Row] = &[
    replace("live-1k", "one of 1,000 live blocks of 1 to 64 bytes replaced", 1, 5_000_000, |seed| tiny(1_000, seed)),
    replace("live-100k", "the same with 100,000", 1, 5_000_000, |seed| tiny(100_000, seed)),
    replace("live-10m", "the same with 10,000,000", 1, 5_000_000, |seed| tiny(10_000_000, seed)),
    replace("threads-1", "one of 1,000 live blocks of 1 to 512 bytes replaced, one thread", 1, 5_000_000, |seed| small(1_000, seed)),
    replace("threads-2", "the same, two threads, each with its own blocks", 2, 2_500_000, |seed| small(1_000, seed)),
    replace("threads-4", "the same, four threads", 4, 1_250_000, |seed| small(1_000, seed)),
    replace("threads-8", "the same, eight threads", 8, 625_000, |seed| small(1_000, seed)),
    replace("threads-64", "the same, 64 threads", 64, 80_000, |seed| small(1_000, seed)),
];

/// For counts of instructions (`callgrind-alloc.sh`): pairs alone, of sizes that the compiler knows (`box`) and does not (`vec`).
pub const PAIRS: &[Row] = &[
    pair("box16", "a boxed value of 16 bytes", 1, 1_000, |_| Box::new(Pairs::<2>)),
    pair("box64", "the same with 64 bytes", 1, 1_000, |_| Box::new(Pairs::<8>)),
    pair("box512", "the same with 512 bytes", 1, 1_000, |_| Box::new(Pairs::<64>)),
    pair("vec16", "a block of 16 bytes, which the compiler does not know", 1, 1_000, |_| Box::new(DynamicPairs(16))),
    pair("vec64", "the same with 64 bytes", 1, 1_000, |_| Box::new(DynamicPairs(64))),
    pair("vec512", "the same with 512 bytes", 1, 1_000, |_| Box::new(DynamicPairs(512))),
];

type Prepare = fn(u64) -> Box<dyn Work>;

const fn pair(name: &'static str, what: &'static str, threads: u32, turns: u64, prepare: Prepare) -> Row {
    Row { name, what, operation: "pair", threads, turns, operations: 1, allocations: Exactly(1), prepare }
}

const fn burst(name: &'static str, what: &'static str, threads: u32, turns: u64) -> Row {
    let prepare: Prepare = |_| Box::new(Bursts::<8>);
    Row { name, what, operation: "pair", threads, turns, operations: BURST as u64, allocations: Exactly(BURST as u64), prepare }
}

const fn replace(name: &'static str, what: &'static str, threads: u32, turns: u64, prepare: Prepare) -> Row {
    Row { name, what, operation: "replacement", threads, turns, operations: 1, allocations: Exactly(1), prepare }
}

fn tiny(live: u32, seed: u64) -> Box<dyn Work> {
    Box::new(Slots::new(live, Sizes::Uniform(64), seed))
}

fn small(live: u32, seed: u64) -> Box<dyn Work> {
    Box::new(Slots::new(live, Sizes::Uniform(512), seed))
}

fn medium(live: u32, seed: u64) -> Box<dyn Work> {
    Box::new(Slots::new(live, Sizes::Uniform(65_536), seed))
}
