//! A program that has used up the pthread keys that cost no memory, before the allocator's constructor runs.
//!
//! glibc allocates when a thread sets the value of another one. Then threads work without a cache.

#![cfg(target_os = "linux")]

mod block;

use std::ffi::c_int;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use block::{A, Block, KIB, MIB};
use sigsafe_test_harness::isolate::isolated;
use sigsafe_test_harness::rng::Generator;

/// What glibc has room for in a thread's own block. musl has room for all keys.
const KEYS: usize = 32;

static CREATED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn use_up_keys() {
    for _ in 0..KEYS {
        // SAFETY: writes a key on this stack.
        if unsafe { libc::pthread_key_create(&mut 0, None) } == 0 {
            CREATED.fetch_add(1, SeqCst);
        }
    }
}

/// Entries with a number run before those without one.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static BEFORE: extern "C" fn() = use_up_keys;

#[test]
fn a_key_whose_value_would_have_to_be_allocated_is_not_used() {
    isolated("a_key_whose_value_would_have_to_be_allocated_is_not_used", || {
        assert_eq!(CREATED.load(SeqCst), KEYS);
        drop(Block::new(64));
        thread::spawn(|| drop(Block::new(64))).join().unwrap();
        assert_eq!(A.stats().caches, usize::from(!cfg!(target_env = "gnu")));
    });
}

static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: c_int) {
    drop((Block::new(100), Block::new(300 * KIB)));
    IN_HANDLER.fetch_add(1, SeqCst);
}

#[test]
fn threads_without_a_cache_work_and_lose_nothing() {
    isolated("threads_without_a_cache_work_and_lose_nothing", || {
        // SAFETY: the handler uses the allocator and an atomic.
        unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
        static OTHERS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
        let threads: Vec<_> = (1..5)
            .map(|seed| {
                thread::spawn(move || {
                    let mut numbers = Generator::new(seed, 0);
                    for round in 0..5_000 {
                        let most = [64, 700, 9000, 70_000, 400_000][numbers.below(5) as usize];
                        let mut block = Block::new(numbers.between(1, most) as usize);
                        assert!(block.resize(numbers.between(1, 2000) as usize));
                        let mut others = OTHERS.lock().unwrap();
                        others.push(block);
                        if others.len() > 200 {
                            others.swap_remove(numbers.below(200) as usize);
                        }
                        if round % 16 == 0 {
                            // SAFETY: a signal that has a handler.
                            unsafe { libc::raise(libc::SIGUSR1) };
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        OTHERS.lock().unwrap().clear();
        assert!(IN_HANDLER.load(SeqCst) > 1000);
        drop((0..200).map(|_| Block::new(MIB)).collect::<Vec<_>>());
        A.verify().unwrap();
        A.purge();
        let stats = A.stats();
        assert_eq!((stats.blocks, stats.spans, stats.runs), (0, 0, 0));
        assert_eq!(stats.caches, usize::from(!cfg!(target_env = "gnu")));
    });
}
