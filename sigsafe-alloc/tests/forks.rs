//! Children of `fork`, which is called while other threads, and the calling one, are in the middle of operations.

#![cfg(target_os = "linux")]

mod block;
#[cfg(target_arch = "x86_64")]
mod step;

#[cfg(target_arch = "x86_64")]
use std::alloc::GlobalAlloc;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::thread;

use block::{A, Block, KIB, MIB, in_a_child};
use sigsafe_test_harness::isolate::isolated;
use sigsafe_test_harness::rng::Generator;

/// Blocks that threads leave each other.
static SHARED: [AtomicPtr<Block>; 64] = [const { AtomicPtr::new(null_mut()) }; 64];

/// The block that was in the slot, if there was one.
fn exchange(slot: usize, block: *mut Block) -> Option<Box<Block>> {
    let old = SHARED[slot % SHARED.len()].swap(block, SeqCst);
    // SAFETY: the exchange made it ours; only boxes are stored.
    (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
}

fn churn(seed: u64, rounds: usize) {
    let mut numbers = Generator::new(seed, 0);
    let mut own: Vec<Block> = Vec::with_capacity(64);
    for _ in 0..rounds {
        let most = [24, 64, 64, 700, 700, 9000, 70_000, 400_000][numbers.below(8) as usize];
        let block = Block::new(numbers.between(1, most) as usize);
        let place = numbers.below(64) as usize;
        if numbers.one_in(16) {
            // `Block` looks at what is in it.
            drop(exchange(place, Box::into_raw(Box::new(block))));
        } else if own.len() < 64 {
            own.push(block);
        } else {
            own[place] = block;
        }
    }
}

#[test]
fn children_work_whatever_the_other_threads_were_doing() {
    isolated("children_work_whatever_the_other_threads_were_doing", || {
        static DONE: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (1..4)
            .map(|seed| {
                thread::spawn(move || {
                    let mut round = seed;
                    while !DONE.load(SeqCst) {
                        round += 3;
                        churn(round, 500);
                    }
                })
            })
            .collect();
        churn(100, 1000);
        for fork in 0..120 {
            in_a_child(|| {
                // What the others had in hand is in no list, and nothing is in two.
                A.verify().unwrap();
                churn(fork, 300);
                (0..SHARED.len()).for_each(|slot| drop(exchange(slot, null_mut())));
                A.verify().unwrap();
                if fork % 4 == 0 {
                    // Joined, so that their caches have gone back.
                    let threads: Vec<_> = (1..3).map(|seed| thread::spawn(move || churn(fork + seed, 300))).collect();
                    threads.into_iter().for_each(|thread| thread.join().unwrap());
                    A.purge();
                    A.verify().unwrap();
                }
                0
            });
            churn(fork, 100);
        }
        DONE.store(true, SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        (0..SHARED.len()).for_each(|slot| drop(exchange(slot, null_mut())));
        A.verify().unwrap();
        A.purge();
        assert_eq!((A.stats().blocks, A.stats().spans, A.stats().runs), (0, 0, 0));
    });
}

#[test]
fn children_of_children_work_and_what_is_stranded_is_bounded() {
    isolated("children_of_children_work_and_what_is_stranded_is_bounded", || {
        const GENERATIONS: usize = 8;
        fn generation(left: usize) {
            static STOP: AtomicBool = AtomicBool::new(false);
            static STARTED: AtomicUsize = AtomicUsize::new(0);
            STOP.store(false, SeqCst);
            STARTED.store(0, SeqCst);
            let threads: Vec<_> = (0..2)
                .map(|seed| {
                    thread::spawn(move || {
                        churn(seed + 7, 50);
                        STARTED.fetch_add(1, SeqCst);
                        while !STOP.load(SeqCst) {
                            churn(seed, 50);
                        }
                    })
                })
                .collect();
            while STARTED.load(SeqCst) < 2 {
                thread::yield_now();
            }
            if left > 0 {
                in_a_child(|| {
                    generation(left - 1);
                    0
                });
            }
            STOP.store(true, SeqCst);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            A.verify().unwrap();
            // Those of two threads are stranded in each generation. Where the C library uses the places of their records again, as glibc
            // does, the next threads take them over.
            let stranded = if cfg!(target_env = "gnu") { 2 } else { 2 * (GENERATIONS - left) };
            assert!(A.stats().caches <= stranded, "{} left: {:?}", left, A.stats());
        }
        generation(GENERATIONS);
    });
}

/// Calls `fork` at each boundary of an operation, in a handler; the child goes on with the operation.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_interrupted_operation_goes_on_in_parent_and_child() {
    isolated("the_interrupted_operation_goes_on_in_parent_and_child", || {
        static FORKS: AtomicUsize = AtomicUsize::new(0);
        static IN_CHILD: AtomicBool = AtomicBool::new(false);
        static FAILED: AtomicBool = AtomicBool::new(false);
        fn forks() {
            // SAFETY: the process has no other thread that does anything.
            let child = unsafe { libc::fork() };
            if child == 0 {
                IN_CHILD.store(true, SeqCst);
                // SAFETY: as in `in_a_child`.
                unsafe { libc::alarm(20) };
            } else {
                let mut status = -1;
                // SAFETY: writes the status.
                let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
                if ended != child || status != 0 {
                    FAILED.store(true, SeqCst);
                }
            }
            FORKS.fetch_add(1, SeqCst);
            // Both use the allocator while the operation is under way.
            drop((Block::new(64), Block::new(70_000)));
        }
        type Prepare = fn() -> Vec<Block>;
        let paths: [(usize, Prepare); 5] = [
            (64, || Block::many(64, 1)),
            (70_000, Vec::new),
            (300 * KIB, Vec::new),
            (2 * MIB, || Block::many(2 * MIB, 1)),
            (20 * MIB, || Block::many(20 * MIB, 1)),
        ];
        step::install();
        for (size, prepare) in paths {
            let layout = block::layout(size, 8);
            // Without a look at the contents, so that what is stepped through is the allocator.
            let pair = || {
                // SAFETY: our block.
                unsafe {
                    let at = A.alloc(layout);
                    A.dealloc(at, layout);
                }
            };
            pair();
            let boundaries = step::during(u64::MAX, || {}, pair).1.boundaries;
            for at in (1..=boundaries).step_by(1 + boundaries as usize / 40) {
                let held = prepare();
                step::during(at, forks, pair);
                drop(held);
                let verified = A.verify();
                if IN_CHILD.load(SeqCst) {
                    (0..5).for_each(|seed| churn(seed, 20));
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(if verified.is_ok() && A.verify().is_ok() { 0 } else { 1 }) };
                }
                verified.unwrap();
                assert!(!FAILED.load(SeqCst), "the child of boundary {at}, {size} bytes");
            }
        }
        assert!(FORKS.load(SeqCst) > 100, "{FORKS:?}");
    });
}
