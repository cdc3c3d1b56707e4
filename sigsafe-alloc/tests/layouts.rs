//! What every layout gets: alignment, contents that stay, zeroes that are zero, null where there is no such memory, and `errno` as it was.

#![cfg(target_os = "linux")]

mod block;

use std::alloc::{GlobalAlloc, Layout};
use std::time::Duration;

use block::{A, Block, KIB, MIB, errno, layout, set_errno};
use sigsafe_test_harness::isolate::isolated;

/// Of each kind some: classes, their edges, runs of chunks and of regions, mappings that are kept and one that is not.
const SIZES: [usize; 34] = [
    1,
    7,
    8,
    9,
    16,
    17,
    64,
    100,
    128,
    129,
    1000,
    1024,
    1025,
    4096,
    5000,
    16 * KIB,
    40_000,
    64 * KIB,
    64 * KIB + 1,
    200_000,
    256 * KIB,
    256 * KIB + 1,
    300 * KIB,
    700 * KIB,
    MIB,
    MIB + 1,
    1536 * KIB,
    3 * MIB,
    5 * MIB,
    LARGEST_RUN,
    LARGEST_RUN + 1,
    20 * MIB,
    40 * MIB,
    65 * MIB,
];

/// Larger blocks have mappings of their own.
const LARGEST_RUN: usize = 16 * MIB;

fn all_is_in_order() {
    let stats = A.stats();
    assert_eq!(stats.mapped, 0, "mappings that nobody has");
    A.purge();
    let stats = A.stats();
    assert_eq!((stats.spans, stats.runs, stats.kept, stats.free_resident), (0, 0, 0, 0), "blocks that nobody has");
    A.verify().unwrap();
}

#[test]
fn every_alignment_with_every_size() {
    isolated("every_alignment_with_every_size", || {
        for shift in 0..=24 {
            let mut blocks: Vec<Block> = SIZES.iter().map(|&size| Block::with(layout(size, 1 << shift)).unwrap()).collect();
            blocks.iter().for_each(Block::check);
            while !blocks.is_empty() {
                blocks.swap_remove(blocks.len() / 2);
            }
        }
        for shift in 25..=31 {
            drop((Block::with(layout(1, 1 << shift)).unwrap(), Block::with(layout(5 * MIB, 1 << shift)).unwrap()));
        }
        all_is_in_order();
    });
}

#[test]
fn a_kept_mapping_serves_no_layout_that_it_is_not_aligned_for() {
    isolated("a_kept_mapping_serves_no_layout_that_it_is_not_aligned_for", || {
        for size in [1536 * KIB, 2 * MIB, 3 * MIB, 20 * MIB] {
            for shift in 12..=20 {
                // Many at a time, so that they lie anywhere. `Block` looks at the alignment.
                drop((0..4).map(|_| Block::new(size)).collect::<Vec<_>>());
                assert!(size <= LARGEST_RUN || A.stats().kept >= size);
                let mut blocks: Vec<_> = (0..4).map(|_| Block::with(layout(size, 1 << shift)).unwrap()).collect();
                for block in &mut blocks {
                    assert!(block.resize(size + 700 * KIB) && block.resize(size + 100 * KIB));
                }
            }
        }
        all_is_in_order();
    });
}

#[test]
fn realloc_keeps_the_contents_from_every_kind_of_block_to_every_other() {
    isolated("realloc_keeps_the_contents_from_every_kind_of_block_to_every_other", || {
        // Large ones take their time: they are changed to each other, and to one of each other kind.
        let of_every_kind = [100, 300 * KIB, 3 * MIB, 20 * MIB, 40 * MIB, 65 * MIB];
        let small = || SIZES.into_iter().filter(|size| *size <= 3 * MIB);
        let pairs = || {
            let small = small().flat_map(|from| small().map(move |to| (from, to)));
            let large = of_every_kind.into_iter().flat_map(|from| of_every_kind.map(|to| (from, to)));
            small.chain(large.filter(|(from, to)| *from.max(to) > LARGEST_RUN))
        };
        for align in [1, 4 * KIB, 128 * KIB] {
            for (from, to) in pairs() {
                let mut block = Block::with(layout(from, align)).unwrap();
                assert!(block.resize(to), "{from} to {to}");
            }
        }
        all_is_in_order();
    });
}

#[test]
fn zeroed_memory_is_zero_whoever_had_it_before() {
    isolated("zeroed_memory_is_zero_whoever_had_it_before", || {
        // The largest takes no way of its own.
        let sizes = &SIZES[..SIZES.len() - 1];
        let soiled = |count: usize, size: usize| (0..count).map(|_| Block::new(size)).inspect(Block::soil).collect::<Vec<_>>();
        for &size in sizes {
            let zeroed = |count: usize, align: usize| -> Vec<_> {
                (0..count).map(|_| Block::zeroed(layout(size, align)).unwrap()).inspect(Block::soil).collect()
            };
            let count = if size > 5 * MIB { 2 } else { 12 };
            // From this thread's cache; from a span where another thread left them; from memory that has been to the system and back.
            drop(soiled(count, size));
            drop(zeroed(count, 8));
            let blocks = soiled(count, size);
            std::thread::spawn(move || drop(blocks)).join().unwrap();
            drop(zeroed(2 * count, 8));
            A.purge();
            drop(zeroed(count, 8));
            drop(zeroed(3, 64));
        }
        // Kept mappings that are made longer and shorter; nothing is due meanwhile.
        A.set_purge_policy(Duration::from_secs(3600), 256 * MIB);
        for (had, wanted) in [(20 * MIB, 24 * MIB), (24 * MIB, 20 * MIB), (20 * MIB + 1, 20 * MIB), (16 * MIB + 1, 20 * MIB)] {
            A.purge();
            drop(soiled(2, had));
            assert!(A.stats().kept >= 16 * MIB);
            drop((0..2).map(|_| Block::zeroed(layout(wanted, 8)).unwrap()).collect::<Vec<_>>());
        }
        // A run that has shrunk leaves units to others.
        let mut run = Block::new(MIB);
        run.soil();
        assert!(run.resize(300 * KIB));
        drop(Block::zeroed(layout(700 * KIB, 8)).unwrap());
        drop(run);
        all_is_in_order();
    });
}

/// The largest layouts of each alignment.
fn huge() -> impl Iterator<Item = Layout> {
    (0..62).flat_map(|shift| {
        let align = 1 << shift;
        let most = isize::MAX as usize - (align - 1);
        [most, most - 1, most - most / 8, most / 2 + 1, most / 4]
            .into_iter()
            .filter(|size| *size > 1 << 47)
            .map(move |size| layout(size, align))
    })
}

#[test]
fn what_does_not_fit_into_an_address_space_is_null() {
    isolated("what_does_not_fit_into_an_address_space_is_null", || {
        let mut small: Vec<Block> = [24, 300 * KIB, 2 * MIB, 20 * MIB].into_iter().map(Block::new).collect();
        for huge in huge() {
            assert!(Block::with(huge).is_none(), "{huge:?}");
            assert!(Block::zeroed(huge).is_none(), "{huge:?}");
            assert!(A.usable_size(huge) >= huge.size());
            if huge.align() == 8 {
                for block in &mut small {
                    assert!(!block.resize(huge.size()), "{huge:?}");
                }
            }
        }
        // Little memory at an alignment that no address of a process has.
        for shift in 48..63 {
            let far = layout(1, 1 << shift);
            assert!(Block::with(far).is_none() && Block::zeroed(far).is_none(), "{far:?}");
            // SAFETY: a block of ours.
            let none = unsafe { A.realloc(small[0].at(), layout(24, 8), isize::MAX as usize & !7) };
            assert!(none.is_null());
        }
        small.iter().for_each(Block::check);
        drop(small);
        all_is_in_order();
    });
}

#[test]
fn errno_stays_what_it_was() {
    isolated("errno_stays_what_it_was", || {
        const OWN: i32 = 4711;
        let kept = |what: &str| assert_eq!(errno(), OWN, "after {what}");
        let all = move || {
            set_errno(OWN);
            for size in SIZES {
                for align in [1, 64, 64 * KIB, 2 * MIB] {
                    let layout = layout(size, align);
                    // SAFETY: our block, and a size that is not zero.
                    unsafe {
                        let block = A.alloc(layout);
                        kept("alloc");
                        let block = A.realloc(block, layout, 3 * size);
                        kept("realloc");
                        let block = A.realloc(block, block::layout(3 * size, align), size);
                        kept("realloc");
                        A.dealloc(block, layout);
                        kept("dealloc");
                        let block = A.alloc_zeroed(layout);
                        kept("alloc_zeroed");
                        assert!(!block.is_null());
                        assert!(A.realloc(block, layout, isize::MAX as usize & !(align - 1)).is_null());
                        kept("a realloc that fails");
                        A.dealloc(block, layout);
                        kept("dealloc");
                    }
                }
            }
            for huge in huge() {
                // SAFETY: the size is not zero.
                assert!(unsafe { A.alloc(huge) }.is_null() && unsafe { A.alloc_zeroed(huge) }.is_null());
                kept("an alloc that fails");
            }
            let _ = A.stats();
            kept("stats");
            A.purge();
            kept("purge");
            A.set_purge_policy(Duration::ZERO, 0);
            kept("set_purge_policy");
            let _ = A.verify();
            kept("verify");
        };
        // A thread's first operation, and operations whose memory goes back at once.
        std::thread::spawn(all).join().unwrap();
        all();
    });
}
