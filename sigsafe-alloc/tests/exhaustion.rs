//! Where the system has no memory, or does not take any back: null, and never more than that. Afterwards everything works.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;
mod calls;

use std::ffi::c_long;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use block::{A, Block, KIB, MIB, errno, in_a_child, layout, set_errno};
use sigsafe_test_harness::isolate::isolated;
use sigsafe_test_harness::rng::Generator;

/// What a directory of chunks takes: no other mapping here is as long.
const LEAF: usize = 36 * KIB;

/// Every call that maps, watched.
const MAPS: [c_long; 2] = [libc::SYS_mmap, libc::SYS_mremap];

fn maps(number: c_long, _: usize, _: usize) -> bool {
    MAPS.contains(&number)
}

fn maps_a_leaf(number: c_long, _: usize, bytes: usize) -> bool {
    number == libc::SYS_mmap && bytes == LEAF
}

fn discards(number: c_long, _: usize, _: usize) -> bool {
    number == libc::SYS_madvise
}

/// Some of every kind, as many as there is memory for.
fn some_of_every_kind() -> Vec<Block> {
    let sizes = [8, 24, 64, 500, 3000, 50_000, 200 * KIB, 300 * KIB, MIB, 2 * MIB, 5 * MIB, 20 * MIB, 40 * MIB];
    let mut blocks: Vec<Block> = sizes.into_iter().filter_map(|size| Block::with(layout(size, 8))).collect();
    for block in &mut blocks {
        // A mapping may become longer where it is, or elsewhere.
        if block.layout().size() > 16 * MIB {
            block.resize(block.layout().size() + 4 * MIB);
        }
        block.resize(700);
    }
    blocks.extend(sizes.into_iter().filter_map(|size| Block::zeroed(layout(size, 64))));
    blocks.iter().for_each(Block::check);
    blocks
}

/// Every kind can be had, nothing is lost, and all is in order.
fn works() {
    let blocks = some_of_every_kind();
    assert_eq!(blocks.len(), 26);
    drop(blocks);
    A.verify().unwrap();
    A.purge();
    assert_eq!((A.stats().spans, A.stats().runs, A.stats().mapped), (0, 0, 0), "{:?}", A.stats());
}

#[test]
fn a_mapping_that_fails_first_last_or_in_between_is_no_more_than_null() {
    isolated("a_mapping_that_fails_first_last_or_in_between_is_no_more_than_null", || {
        calls::watch(&MAPS);
        // Each in a process of its own, so that the first of all mappings has its turn.
        let mut spared = 0;
        loop {
            let mapped = in_a_child(|| {
                set_errno(77);
                let (blocks, mapped) = calls::refusing(maps, spared, 1, libc::ENOMEM, some_of_every_kind);
                assert_eq!(errno(), 77);
                // One that fails when others do not: what is kept goes, and the system is asked again.
                drop(blocks);
                works();
                mapped
            });
            spared += 1;
            if spared > mapped {
                break;
            }
        }
        assert!(spared > 4, "{spared} mappings");
        // And all that come after it.
        for spared in 0..spared - 1 {
            in_a_child(|| {
                let (blocks, refused) = calls::refusing(maps, spared, usize::MAX >> 1, libc::ENOMEM, some_of_every_kind);
                assert!(refused > spared && (spared != 0 || blocks.is_empty()), "{spared}: {refused}, {} blocks", blocks.len());
                drop(blocks);
                works();
                0
            });
        }
    });
}

#[test]
fn a_directory_that_cannot_be_mapped_costs_no_chunk() {
    isolated("a_directory_that_cannot_be_mapped_costs_no_chunk", || {
        calls::watch(&[libc::SYS_mmap]);
        let (_, refused) = calls::refusing(maps_a_leaf, 0, usize::MAX >> 1, libc::ENOMEM, || {
            (0..1000).for_each(|_| assert!(Block::with(layout(300 * KIB, 8)).is_none()));
        });
        assert!(refused >= 1000, "{refused}");
        assert_eq!(A.stats().chunks, 0);
        works();
        assert!(A.stats().chunks <= 8 * MIB + 32 * MIB, "two chunks and a region");
    });
}

#[test]
fn a_thread_whose_cache_cannot_be_mapped_works_without_one_until_it_can() {
    isolated("a_thread_whose_cache_cannot_be_mapped_works_without_one_until_it_can", || {
        calls::watch(&[libc::SYS_mmap]);
        drop(Block::new(64));
        thread::spawn(|| {
            let ((), refused) = calls::refusing(maps, 0, usize::MAX >> 1, libc::ENOMEM, || {
                let first = Block::new(64);
                assert_eq!(A.stats().caches, 1, "the other thread's");
                let mut blocks = Block::new(64);
                assert!(blocks.resize(32));
                drop((first, blocks));
            });
            assert!(refused > 0);
            drop(Block::new(64));
            assert_eq!(A.stats().caches, 2);
        })
        .join()
        .unwrap();
        works();
    });
}

fn set_limit(bytes: Option<usize>) {
    let soft = bytes.map_or(libc::RLIM_INFINITY, |bytes| bytes as libc::rlim_t);
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads this frame.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

/// Of address space, in bytes.
fn in_use() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4 * KIB
}

#[test]
fn at_the_limit_of_address_space_every_operation_is_null_or_works() {
    isolated("at_the_limit_of_address_space_every_operation_is_null_or_works", || {
        // So much room, and the size that is first to use it up. What it has become, a chunk or a region, it stays in the next rounds.
        for (room, first) in [(0, 0), (50 * MIB, 6), (90 * MIB, 7), (100 * KIB, 1), (5 * MIB, 2), (9 * MIB, 3), (40 * MIB, 4)] {
            let mut blocks: Vec<Block> = Vec::with_capacity(1 << 20);
            set_limit(Some(in_use() + room));
            set_errno(77);
            for size in [64, 500, 3000, 40_000, 300 * KIB, 2 * MIB, 20 * MIB, 40 * MIB].into_iter().cycle().skip(first).take(8) {
                while let Some(block) = Block::with(layout(size, 8)) {
                    blocks.push(block);
                    assert!(blocks.len() < 1 << 20, "no limit");
                }
                assert!(Block::zeroed(layout(size, 16)).is_none() || size < 64 * KIB);
            }
            // What cannot grow stays.
            for block in &mut blocks {
                block.resize(if block.layout().size() > 16 * MIB { 120 * MIB } else { 6 * MIB });
            }
            assert_eq!(errno(), 77);
            // One that is freed is one that can be had.
            if let Some(block) = blocks.pop() {
                let layout = block.layout();
                drop(block);
                blocks.push(Block::with(layout).expect("memory that has just been freed"));
            }
            A.verify().unwrap();
            set_limit(None);
            drop(blocks);
            works();
        }
    });
}

#[test]
fn threads_at_the_limit_of_address_space_get_null_or_what_others_free() {
    isolated("threads_at_the_limit_of_address_space_get_null_or_what_others_free", || {
        static READY: AtomicUsize = AtomicUsize::new(0);
        static LIMITED: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                thread::spawn(move || {
                    let mut blocks: Vec<Block> = Vec::with_capacity(100_000);
                    READY.fetch_add(1, SeqCst);
                    while !LIMITED.load(SeqCst) {
                        thread::yield_now();
                    }
                    let (mut nulls, mut numbers) = (0, Generator::new(4, thread));
                    for _ in 0..20_000 {
                        let size = [24, 64, 700, 9000, 70_000, 400_000][numbers.below(6) as usize];
                        match Block::with(layout(size, 8)) {
                            Some(block) => blocks.push(block),
                            None => {
                                nulls += 1;
                                let left = blocks.len() / 2;
                                blocks.truncate(left);
                            }
                        }
                    }
                    nulls
                })
            })
            .collect();
        while READY.load(SeqCst) < 4 {
            thread::yield_now();
        }
        set_limit(Some(in_use() + 64 * MIB));
        LIMITED.store(true, SeqCst);
        // (To join a thread takes no memory.)
        let nulls: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        set_limit(None);
        assert!(nulls > 0);
        works();
    });
}

/// Frees spans of memory that the system does not take back. How often it was asked.
fn asked_for(rounds: usize) -> usize {
    let (_, asked) = calls::refusing(discards, 0, usize::MAX >> 1, libc::EINVAL, || {
        for _ in 0..rounds {
            drop((0..40).map(|_| Block::new(300 * KIB)).collect::<Vec<_>>());
        }
    });
    asked
}

#[test]
fn memory_that_the_system_does_not_take_back_is_not_offered_with_every_free() {
    isolated("memory_that_the_system_does_not_take_back_is_not_offered_with_every_free", || {
        calls::watch(&[libc::SYS_madvise]);
        // Much more than may stay, and nothing that is due by the clock.
        A.set_purge_policy(Duration::from_secs(3600), MIB);
        asked_for(1);
        let (few, many) = (asked_for(10), asked_for(1000));
        assert!(many <= few + 4, "offered {few} times in 400 frees, and {many} times in 40000");
        // As soon as the system takes it, all is as before.
        A.purge();
        assert_eq!(A.stats().free_resident, 0);
        drop((0..40).map(|_| Block::new(300 * KIB)).collect::<Vec<_>>());
        assert!(A.stats().free_resident <= MIB, "{:?}", A.stats());
        works();
    });
}

#[test]
fn what_the_system_does_not_take_back_is_offered_again_after_the_delay() {
    isolated("what_the_system_does_not_take_back_is_offered_again_after_the_delay", || {
        calls::watch(&[libc::SYS_madvise]);
        A.set_purge_policy(Duration::from_millis(20), MIB);
        asked_for(10);
        assert!(A.stats().free_resident > MIB);
        let start = Instant::now();
        while A.stats().free_resident > MIB {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", A.stats());
            drop(Block::new(300 * KIB));
        }
        works();
    });
}

#[test]
fn locked_pages_stay_and_nothing_else_changes() {
    isolated("locked_pages_stay_and_nothing_else_changes", || {
        A.set_purge_policy(Duration::from_secs(3600), MIB);
        let blocks: Vec<_> = (0..40).map(|_| Block::new(300 * KIB)).collect();
        let page = blocks[20].at();
        // SAFETY: a page of our block.
        assert_eq!(unsafe { libc::mlock(page.cast(), 4 * KIB) }, 0, "one page may be locked");
        drop(blocks);
        A.purge();
        assert!(A.stats().free_resident > 0, "the kernel does not take locked pages back");
        for _ in 0..100 {
            drop(Block::zeroed(layout(700 * KIB, 8)).unwrap());
        }
        // SAFETY: memory of a chunk, which stays mapped.
        assert_eq!(unsafe { libc::munlock(page.cast(), 4 * KIB) }, 0);
        works();
        assert_eq!(A.stats().free_resident, 0);
    });
}
