//! The path without a cache: what handlers in the middle of an operation take and give is not lost, and their number costs nothing.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod step;

use std::alloc::{GlobalAlloc, Layout};
use std::thread;

use sigsafe_alloc::{SigSafeAlloc, in_allocator};
use sigsafe_test_harness::isolate::isolated;

static A: SigSafeAlloc = SigSafeAlloc;

fn pair_of(size: usize) {
    let layout = Layout::from_size_align(size, 8).unwrap();
    // SAFETY: our block.
    unsafe {
        let block = A.alloc(layout);
        assert!(!block.is_null());
        block.write_bytes(0xA5, size);
        A.dealloc(block, layout);
    }
}

fn pair() {
    pair_of(64);
}

fn pairs_of_many_sizes() {
    [8, 24, 64, 200, 3000, 50_000, 300_000].into_iter().for_each(pair_of);
}

#[test]
fn blocks_of_handlers_in_the_middle_of_an_operation_are_not_lost() {
    isolated("blocks_of_handlers_in_the_middle_of_an_operation_are_not_lost", || {
        step::install();
        let stepped = thread::spawn(|| step::during(0, pairs_of_many_sizes, pairs_of_many_sizes).1).join().unwrap();
        assert!(stepped.inside > 100, "{stepped:?}");
        A.purge();
        assert_eq!(A.stats().blocks, 0, "blocks that nobody has");
        assert_eq!((A.stats().spans, A.stats().runs), (0, 0));
        A.verify().unwrap();
    });
}

fn many_pairs_inside() {
    if in_allocator() {
        (0..20).for_each(|_| pair());
    }
}

#[test]
fn a_storm_over_an_operation_s_shortest_path_makes_few_caches() {
    isolated("a_storm_over_an_operation_s_shortest_path_makes_few_caches", || {
        step::install();
        pair();
        for _ in 0..60 {
            let (_, stepped) = step::during(0, many_pairs_inside, pair);
            assert!(stepped.runs > 20 && stepped.inside != 0, "{stepped:?}");
        }
        assert!(A.stats().caches < 16, "{:?}", A.stats());
        A.verify().unwrap();
    });
}

#[test]
fn handlers_on_a_signal_stack_above_the_thread_s_make_few_caches() {
    isolated("handlers_on_a_signal_stack_above_the_thread_s_make_few_caches", || {
        const SIZE: usize = 1 << 18;
        // SAFETY: new memory, of which the upper part is the signal stack, and the lower one the thread's.
        let both = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * SIZE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0)
        };
        assert_ne!(both, libc::MAP_FAILED);
        extern "C" fn body(both: *mut libc::c_void) -> *mut libc::c_void {
            let stack = libc::stack_t { ss_sp: both.wrapping_byte_add(SIZE), ss_flags: 0, ss_size: SIZE };
            // SAFETY: memory that is nothing else's.
            assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
            pair();
            for _ in 0..200 {
                let (_, stepped) = step::during(0, pair, pair);
                // The handlers lie above the operation, which is not in their way.
                assert!(stepped.runs > 20 && stepped.inside == 0, "{stepped:?}");
            }
            assert!(A.stats().caches < 16, "{:?}", A.stats());
            A.verify().unwrap();
            std::ptr::null_mut()
        }
        step::install_on_signal_stack();
        // SAFETY: the stack outlives the thread.
        unsafe {
            let mut attributes = std::mem::zeroed();
            assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
            assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, both, SIZE), 0);
            let mut thread = std::mem::zeroed();
            assert_eq!(libc::pthread_create(&raw mut thread, &raw const attributes, body, both), 0);
            assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
        }
    });
}
