//! Memory comes back: from threads that end, from threads that only free, from the path without a cache, and to the system.
//!
//! The allocator is not the program's, so that its counts are those of the test alone.

#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::thread;
use std::time::{Duration, Instant};

use sigsafe_alloc::{SigSafeAlloc, Stats};
use sigsafe_test_harness::isolate::isolated;

static A: SigSafeAlloc = SigSafeAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The largest size that has a class.
const MEDIUM: usize = 256 * KIB;

/// A block, and who frees it is whoever has this.
struct Block(*mut u8, Layout);

// SAFETY: a block belongs to whoever has this.
unsafe impl Send for Block {}

impl Block {
    /// Every page is touched.
    fn new(size: usize) -> Block {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not zero.
        let at = unsafe { A.alloc(layout) };
        assert!(!at.is_null());
        for offset in (0..size).step_by(4 * KIB) {
            // SAFETY: our block.
            unsafe { at.add(offset).write(1) };
        }
        Block(at, layout)
    }

    fn many(size: usize, bytes: usize) -> Vec<Block> {
        (0..bytes / size).map(|_| Block::new(size)).collect()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: our block.
        unsafe { A.dealloc(self.0, self.1) };
    }
}

/// Runs on a thread of its own, whose cache goes back at its end.
fn on_a_thread<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(body).join().unwrap()
}

/// Resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 * KIB
}

#[test]
fn ten_thousand_short_threads_need_no_more_than_the_first() {
    isolated("ten_thousand_short_threads_need_no_more_than_the_first", || {
        let churn = |rounds: usize| {
            for _ in 0..rounds {
                on_a_thread(|| drop([24, 64, 500, 5000, 100 * KIB].map(|size| Block::many(size, 4 * size))));
            }
            A.stats()
        };
        let (first, last) = (churn(100), churn(9_900));
        assert_eq!((first.chunks, first.caches), (last.chunks, last.caches));
        assert!(last.spans <= first.spans, "{first:?} {last:?}");
        A.purge();
        assert_eq!(A.stats().blocks, 0, "blocks that nobody has");
        A.verify().unwrap();
    });
}

#[test]
fn what_a_thread_frees_that_never_allocates_serves_the_others() {
    isolated("what_a_thread_frees_that_never_allocates_serves_the_others", || {
        let blocks = on_a_thread(|| Block::many(64, 8 * MIB));
        let before = A.stats();
        on_a_thread(move || drop(blocks));
        assert!(A.stats().blocks <= MIB, "no more than 128 lists wait for a cache: {:?}", A.stats());
        for _ in 0..4 {
            let blocks = on_a_thread(|| Block::many(64, 8 * MIB));
            on_a_thread(move || drop(blocks));
        }
        assert_eq!(A.stats().chunks, before.chunks);
        A.verify().unwrap();
        A.purge();
        assert_eq!(A.stats().blocks, 0);
    });
}

#[test]
fn a_list_that_is_longer_than_its_class_s_lists_is_not_lost() {
    isolated("a_list_that_is_longer_than_its_class_s_lists_is_not_lost", || {
        // A cache's lists of this class take one block, and a span has seven, which come at once.
        for _ in 0..20 {
            let blocks = Block::many(70_000, 14 * 70_000);
            on_a_thread(move || drop(blocks));
            on_a_thread(|| {
                let first = Block::new(70_000);
                // The rest of the span becomes the spare list, and is then taken from there.
                drop(first);
                drop(Block::many(70_000, 3 * 70_000));
            });
        }
        A.purge();
        assert_eq!((A.stats().blocks, A.stats().spans), (0, 0), "blocks that nobody has");
    });
}

#[test]
fn what_one_thread_allocates_and_another_frees_does_not_pile_up_while_both_live() {
    isolated("what_one_thread_allocates_and_another_frees_does_not_pile_up_while_both_live", || {
        let (send, receive) = std::sync::mpsc::sync_channel::<Vec<Block>>(4);
        let freer = thread::spawn(move || receive.into_iter().for_each(drop));
        let mut early = 0;
        for round in 0..2_000 {
            send.send(Block::many(100, 64 * KIB)).unwrap();
            if round == 200 {
                early = A.stats().chunks;
            }
        }
        drop(send);
        freer.join().unwrap();
        assert!(A.stats().chunks <= early, "{early} {:?}", A.stats());
    });
}

#[test]
fn purge_with_nothing_live_leaves_what_there_was_at_the_start() {
    isolated("purge_with_nothing_live_leaves_what_there_was_at_the_start", || {
        on_a_thread(|| drop(Block::new(64)));
        let start = resident();
        for size in [16, 100, 4000, 50 * KIB, MEDIUM, MIB, 3 * MIB, 20 * MIB, 40 * MIB] {
            on_a_thread(move || {
                let mut blocks = Block::many(size, 96 * MIB);
                // In an order that leaves every span in use for as long as possible.
                while blocks.len() > 1 {
                    blocks = blocks.into_iter().enumerate().filter_map(|(index, block)| (index % 2 == 0).then_some(block)).collect();
                }
            });
        }
        assert!(A.purge() > 0);
        let stats = A.stats();
        assert_eq!((stats.blocks, stats.spans, stats.runs, stats.mapped, stats.kept, stats.free_resident), (0, 0, 0, 0, 0, 0));
        assert!(resident() <= start + 2 * MIB, "{start} then {}", resident());
        A.verify().unwrap();
    });
}

#[test]
fn purge_finds_empty_spans_wherever_they_lie_on_their_stack() {
    isolated("purge_finds_empty_spans_wherever_they_lie_on_their_stack", || {
        // Eight blocks make a span. Each span's last one is freed when all spans lie on the stack already.
        for spans in 1..80 {
            on_a_thread(move || {
                let mut parts = [Vec::new(), Vec::new()];
                for (index, block) in Block::many(32 * KIB, spans * 256 * KIB).into_iter().enumerate() {
                    parts[usize::from(index % 8 == 7)].push(block);
                }
                parts.into_iter().for_each(drop);
            });
            A.purge();
            assert_eq!(A.stats().spans, 0, "{spans} spans have been empty");
        }
    });
}

#[test]
fn the_empty_spans_of_one_class_serve_another() {
    isolated("the_empty_spans_of_one_class_serve_another", || {
        on_a_thread(|| drop(Block::many(64, 64 * MIB)));
        let before = A.stats().chunks;
        for size in [16, 300, 4000, 10 * KIB, 64 * KIB, MIB] {
            on_a_thread(move || drop(Block::many(size, 48 * MIB)));
            // Some blocks of the sizes before wait for a cache.
            assert!(A.stats().chunks <= before + 4 * MIB, "{size}");
        }
    });
}

#[test]
fn no_more_than_the_bound_stays_resident() {
    isolated("no_more_than_the_bound_stays_resident", || {
        A.set_purge_policy(Duration::from_secs(3600), 2 * MIB);
        for size in [100, 4000, 50 * KIB, 600 * KIB] {
            on_a_thread(move || drop(Block::many(size, 32 * MIB)));
            assert!(A.stats().free_resident <= 2 * MIB, "{size}: {:?}", A.stats());
        }
        A.set_purge_policy(Duration::from_secs(3600), 64 * MIB);
        drop(Block::many(600 * KIB, 32 * MIB));
        assert!(A.stats().free_resident > 16 * MIB, "nothing is due: {:?}", A.stats());
    });
}

#[test]
fn the_bound_is_that_of_large_blocks_too() {
    isolated("the_bound_is_that_of_large_blocks_too", || {
        A.set_purge_policy(Duration::from_secs(3600), 64 * MIB);
        drop((Block::new(2 * MIB), Block::new(20 * MIB), Block::new(28 * MIB)));
        assert_eq!((A.stats().free_resident, A.stats().kept), (2 * MIB, 20 * MIB));
        A.purge();
        assert_eq!((A.stats().free_resident, A.stats().kept), (0, 0));
        A.set_purge_policy(Duration::from_secs(3600), 0);
        drop((Block::new(3 * MIB), Block::new(20 * MIB)));
        assert_eq!((A.stats().free_resident, A.stats().kept), (0, 0));
    });
}

#[test]
fn what_shrinking_blocks_free_is_bounded_too() {
    isolated("what_shrinking_blocks_free_is_bounded_too", || {
        A.set_purge_policy(Duration::from_secs(3600), 16 * MIB);
        for (size, less) in [(16 * MIB, 9 * MIB), (MIB, 300 * KIB)] {
            let blocks: Vec<Block> = (0..12)
                .map(|_| {
                    let mut block = Block::new(size);
                    // SAFETY: our block; it stays where it is, and is smaller from here on.
                    let at = unsafe { A.realloc(block.0, block.1, less) };
                    assert_eq!(at, block.0);
                    block.1 = Layout::from_size_align(less, 8).unwrap();
                    block
                })
                .collect();
            let free = A.stats().free_resident;
            assert!(free <= 16 * MIB, "{free} bytes of the ends of {} blocks", blocks.len());
        }
    });
}

#[test]
fn what_is_free_goes_back_after_the_delay() {
    isolated("what_is_free_goes_back_after_the_delay", || {
        const DELAY: Duration = Duration::from_millis(500);
        // Of the clock that the allocator reads.
        const GRAIN: Duration = Duration::from_millis(20);
        A.set_purge_policy(DELAY, 1 << 30);
        let start = Instant::now();
        drop((Block::many(600 * KIB, 16 * MIB), Block::new(8 * MIB), Block::new(20 * MIB)));
        let there = |stats: &Stats| stats.free_resident > 20 * MIB && stats.kept == 20 * MIB;
        let gone = |stats: &Stats| stats.free_resident <= 16 * 640 * KIB && stats.kept == 0;
        loop {
            drop(Block::new(600 * KIB));
            let (stats, after) = (A.stats(), start.elapsed());
            assert!(there(&stats) || gone(&stats) || after > DELAY, "after {after:?}: {stats:?}");
            if gone(&stats) {
                assert!(after + GRAIN >= DELAY, "after {after:?}: {stats:?}");
                break;
            }
            assert!(after < 20 * DELAY, "it stays: {stats:?}");
        }
    });
}
