//! A program that notices the ends of its threads itself, as a library does that wraps `pthread_create`.

#![cfg(target_os = "linux")]

mod block;

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use block::{A, Block};
use sigsafe_alloc::thread_exit::{ThreadExit, notice_thread_ends_by, thread_ends};
use sigsafe_test_harness::isolate::isolated;

thread_local! {
    /// What `arm` says.
    static WILL_TELL: Cell<bool> = const { Cell::new(false) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Wrapped;

impl ThreadExit for Wrapped {
    fn arm() -> bool {
        ASKED.set(ASKED.get() + 1);
        WILL_TELL.get()
    }
}

extern "C" fn before_the_library_s_constructor() {
    notice_thread_ends_by::<Wrapped>();
}

/// Entries with a number run before those without one.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static BEFORE: extern "C" fn() = before_the_library_s_constructor;

/// What a wrapper of `pthread_create` has a thread run.
fn on_a_wrapped_thread<R: Send + 'static>(routine: impl FnOnce() -> R + Send + 'static) -> R {
    let wrapped = || {
        WILL_TELL.set(true);
        let result = routine();
        // SAFETY: not in a handler.
        unsafe { thread_ends() };
        result
    };
    thread::spawn(wrapped).join().unwrap()
}

/// A pair of operations. Whether the thread has a cache after it.
fn has_a_cache() -> bool {
    let before = A.stats().caches;
    drop(Block::new(64));
    A.stats().caches > before
}

#[test]
fn a_thread_has_a_cache_from_the_hook_s_consent_to_the_end_that_it_tells() {
    isolated("a_thread_has_a_cache_from_the_hook_s_consent_to_the_end_that_it_tells", || {
        thread::spawn(|| {
            assert!(!has_a_cache() && !has_a_cache());
            assert!(ASKED.get() >= 2, "each operation asks");
            WILL_TELL.set(true);
            assert!(has_a_cache());
            let (asked, block) = (ASKED.get(), Block::new(64));
            (0..1000).for_each(|_| drop(Block::new(64)));
            assert_eq!(ASKED.get(), asked, "an operation with a cache asks nobody");
            // SAFETY: not in a handler, here and below.
            unsafe { thread_ends() };
            assert_eq!(A.stats().caches, 0);
            drop(block);
            A.purge();
            assert_eq!(A.stats().blocks, 0, "what is freed after the end goes to the spans");
            assert!(!has_a_cache());
            assert_eq!(ASKED.get(), asked, "a thread that has ended gets no cache");
            // SAFETY: as above.
            unsafe { thread_ends() };
            drop((Block::new(64), Block::new(64)));
            A.verify().unwrap();
        })
        .join()
        .unwrap();
    });
}

#[test]
fn the_end_of_a_thread_that_has_not_allocated_is_its_end_all_the_same() {
    isolated("the_end_of_a_thread_that_has_not_allocated_is_its_end_all_the_same", || {
        thread::spawn(|| {
            WILL_TELL.set(true);
            // SAFETY: not in a handler.
            unsafe { thread_ends() };
            assert!(!has_a_cache());
            assert_eq!(ASKED.get(), 0);
        })
        .join()
        .unwrap();
    });
}

#[test]
fn wrapped_threads_leave_nothing_behind() {
    isolated("wrapped_threads_leave_nothing_behind", || {
        for _ in 0..200 {
            let blocks = on_a_wrapped_thread(|| {
                assert!(has_a_cache());
                (1..100).map(|index| Block::new(index * 37)).collect::<Vec<_>>()
            });
            on_a_wrapped_thread(|| drop(blocks));
        }
        A.verify().unwrap();
        A.purge();
        assert_eq!((A.stats().caches, A.stats().blocks), (0, 0));
    });
}

/// The values of this thread's keys, those that do not exist left out.
fn values() -> Vec<usize> {
    // SAFETY: for a key that does not exist there is no value, on any system here.
    (0..128).map(|key| unsafe { libc::pthread_getspecific(key) }.addr()).collect()
}

#[test]
fn the_library_s_own_key_is_not_used() {
    isolated("the_library_s_own_key_is_not_used", || {
        on_a_wrapped_thread(|| {
            let before = values();
            assert!(has_a_cache());
            assert_eq!(values(), before);
        });
    });
}

static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: c_int) {
    IN_HANDLER.fetch_add(usize::from(has_a_cache()), SeqCst);
}

#[test]
fn the_hook_is_asked_in_a_handler_when_that_is_the_first_to_allocate() {
    isolated("the_hook_is_asked_in_a_handler_when_that_is_the_first_to_allocate", || {
        // SAFETY: the handler uses the allocator and an atomic.
        unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
        on_a_wrapped_thread(|| {
            // SAFETY: a signal that has a handler.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!((IN_HANDLER.load(SeqCst), ASKED.get()), (1, 1));
        });
        assert_eq!(A.stats().caches, 0);
    });
}
