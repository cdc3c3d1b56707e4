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
    pair::<2>("pair16", "a boxed value of 16 bytes, made and dropped", 1, 20_000_000),
    pair::<8>("pair64", "the same with 64 bytes", 1, 20_000_000),
    pair::<64>("pair512", "the same with 512 bytes", 1, 20_000_000),
    pair::<8>("pair64-2t", "64 bytes, two threads", 2, 20_000_000),
    pair::<8>("pair64-8t", "64 bytes, eight threads", 8, 5_000_000),
    burst("burst64", "100 boxed values of 64 bytes made, then dropped, last first", 1, 200_000),
    burst("burst64-2t", "the same, two threads", 2, 200_000),
    burst("burst64-8t", "the same, eight threads", 8, 50_000),
    replace::<1_000, 512>("replace-1k-512", "one of 1,000 live blocks of 1 to 512 bytes replaced", 1, 5_000_000),
    replace::<1_000, 512>("replace-1k-512-2t", "the same, two threads, each with its own blocks", 2, 5_000_000),
    replace::<1_000, 512>("replace-1k-512-8t", "the same, eight threads", 8, 1_000_000),
    replace::<100_000, 512>("replace-100k-512", "one of 100,000 live blocks of 1 to 512 bytes replaced", 1, 2_000_000),
    replace::<1_000, 65_536>("replace-1k-64k", "one of 1,000 live blocks of 1 byte to 64 KiB replaced", 1, 2_000_000),
    replace::<1_000, 65_536>("replace-1k-64k-2t", "the same, two threads, each with its own blocks", 2, 1_000_000),
    replace::<1_000, 65_536>("replace-1k-64k-8t", "the same, eight threads", 8, 250_000),
    Row {
        name: "replace-100k-64k",
        what: "one of 100,000 live blocks to 64 KiB replaced, each doubling of the size as likely",
        operation: "replacement",
        turns: 500_000,
        prepare: |seed| Box::new(Slots::new(100_000, Sizes::Doublings(65_536), seed)),
        ..PLAIN
    },
    Row {
        name: "handover",
        what: "two tables of 1,000 live blocks to 512 bytes pass through threads that replace 10,000 and die",
        operation: "replacement",
        turns: 200,
        operations: HANDED_OVER,
        allocations: AtLeast(HANDED_OVER),
        prepare: |seed| Box::new(Handover::new(seed)),
        ..PLAIN
    },
    Row {
        name: "pipeline",
        what: "blocks to 256 bytes asked for in one thread, freed in another, by the hundred",
        operation: "block",
        turns: 40_000,
        operations: BATCH,
        allocations: AtLeast(BATCH + 1),
        prepare: |seed| Box::new(Pipeline::new(seed)),
        ..PLAIN
    },
    Row {
        name: "vec-growth",
        what: "vectors of 17 to 16,384 words grown by push, 16 live",
        operation: "vector",
        turns: 40_000,
        allocations: AtLeast(4),
        prepare: |seed| Box::new(Vectors::new(seed)),
        ..PLAIN
    },
    Row {
        name: "string-growth",
        what: "16 strings grown in turn, 16 bytes at a time, to at most 64 KiB",
        operation: "64 bytes of each",
        turns: 3_000,
        operations: 100,
        // A string of 64 KiB lasts for 1,024 operations and takes 14 buffers; shorter ones take more for each operation.
        allocations: AtLeast(16 * 14 * 100 / 1_024),
        prepare: |seed| Box::new(Strings::new(seed)),
        ..PLAIN
    },
    Row {
        name: "large",
        what: "one of 8 live blocks of 1 to 8 MiB replaced, a byte of each page written",
        operation: "replacement",
        turns: 2_500,
        prepare: |seed| Box::new(Large::new(seed)),
        ..PLAIN
    },
    Row {
        name: "large-growth",
        what: "a vector grown by 64 KiB at a time to 16 MiB and dropped",
        operation: "vector",
        turns: 30,
        allocations: AtLeast(9),
        prepare: |_| Box::new(LargeGrowth),
        ..PLAIN
    },
    Row {
        name: "hash-map",
        what: "a key inserted with a vector to 128 bytes, or removed, about 10,000 live, a new map every 100,000 turns",
        operation: "insertion or removal",
        turns: 20_000,
        operations: 100,
        // Nearly half of the keys are not there, and each of these brings a vector.
        allocations: AtLeast(40),
        prepare: |seed| Box::new(Unordered::new(seed)),
        ..PLAIN
    },
    Row {
        name: "btree-map",
        what: "the same with an ordered map",
        operation: "insertion or removal",
        turns: 10_000,
        operations: 100,
        // Nearly half of the keys are not there, and each of these brings a vector.
        allocations: AtLeast(40),
        prepare: |seed| Box::new(Ordered::new(seed)),
        ..PLAIN
    },
    Row {
        name: "json",
        what: "a document of 400 KB parsed into serde_json's Value and dropped",
        operation: "document",
        turns: 60,
        allocations: AtLeast(20_000),
        prepare: |seed| Box::new(Json::new(seed)),
        ..PLAIN
    },
    Row {
        name: "ripgrep",
        what: "ripgrep's libraries search 2,000 files, two threads",
        operation: "search",
        turns: 3,
        allocations: AtLeast(40_000),
        prepare: |seed| Box::new(Search::new(seed)),
        ..PLAIN
    },
];

/// More live blocks, more threads. Not in the comparison.
pub const GROWTH: &[Row] = &[
    replace::<1_000, 64>("live-1k", "one of 1,000 live blocks of 1 to 64 bytes replaced", 1, 5_000_000),
    replace::<100_000, 64>("live-100k", "the same with 100,000", 1, 5_000_000),
    replace::<10_000_000, 64>("live-10m", "the same with 10,000,000", 1, 5_000_000),
    replace::<1_000, 512>("threads-1", "one of 1,000 live blocks of 1 to 512 bytes replaced, one thread", 1, 20_000_000),
    replace::<1_000, 512>("threads-2", "the same, two threads, each with its own blocks", 2, 10_000_000),
    replace::<1_000, 512>("threads-4", "the same, four threads", 4, 5_000_000),
    replace::<1_000, 512>("threads-8", "the same, eight threads", 8, 2_500_000),
    replace::<1_000, 512>("threads-64", "the same, 64 threads", 64, 320_000),
];

/// For counts of instructions (`callgrind-alloc.sh`), beside the `pair` rows, of which the compiler knows the sizes: it does not know these.
pub const PAIRS: &[Row] = &[
    dynamic::<16>("vec16", "a block of 16 bytes, which the compiler does not know"),
    dynamic::<64>("vec64", "the same with 64 bytes"),
    dynamic::<512>("vec512", "the same with 512 bytes"),
];

/// What a row has that says nothing else.
const PLAIN: Row = Row {
    name: "",
    what: "",
    operation: "",
    threads: 1,
    turns: 0,
    operations: 1,
    allocations: Exactly(1),
    prepare: |_| unreachable!("every row has a workload"),
};

const fn pair<const WORDS: usize>(name: &'static str, what: &'static str, threads: u32, turns: u64) -> Row {
    Row { name, what, operation: "pair", threads, turns, prepare: |_| Box::new(Pairs::<WORDS>), ..PLAIN }
}

const fn dynamic<const SIZE: u32>(name: &'static str, what: &'static str) -> Row {
    Row { name, what, operation: "pair", turns: 1_000, prepare: |_| Box::new(DynamicPairs(SIZE)), ..PLAIN }
}

const fn burst(name: &'static str, what: &'static str, threads: u32, turns: u64) -> Row {
    const BLOCKS: u64 = BURST as u64;
    let (operations, allocations) = (BLOCKS, Exactly(BLOCKS));
    Row { name, what, operation: "pair", threads, turns, operations, allocations, prepare: |_| Box::new(Bursts::<8>) }
}

/// One of so many live blocks, of each size to the limit as likely, is replaced.
const fn replace<const LIVE: u32, const LIMIT: u32>(name: &'static str, what: &'static str, threads: u32, turns: u64) -> Row {
    let prepare: Prepare = |seed| Box::new(Slots::new(LIVE, Sizes::Uniform(LIMIT), seed));
    Row { name, what, operation: "replacement", threads, turns, prepare, ..PLAIN }
}

type Prepare = fn(u64) -> Box<dyn Work>;
