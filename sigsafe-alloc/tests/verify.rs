//! `verify` finds what must not be: a heap that somebody has spoilt, each time in a process of its own.

#![cfg(not(feature = "hardened"))]

use std::alloc::{GlobalAlloc, Layout};

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_test_harness::isolate::isolated;

static A: SigSafeAlloc = SigSafeAlloc;

const SMALL: Layout = Layout::new::<[u64; 8]>();
const LARGER: Layout = Layout::new::<[u64; 64]>();

fn alloc(layout: Layout) -> *mut u64 {
    // SAFETY: not of size 0.
    let block: *mut u64 = unsafe { A.alloc(layout) }.cast();
    assert!(!block.is_null());
    block
}

/// Which invariant does not hold, and the block.
fn found() -> (&'static str, usize) {
    let violation = A.verify().expect_err("a spoilt heap");
    (violation.what, violation.address)
}

/// Frees a block and overwrites its link.
fn overwritten_by(link: impl FnOnce(usize) -> usize) {
    let block = alloc(SMALL);
    A.verify().unwrap();
    let link = link(block.addr());
    // SAFETY: ours until the first line; the second is the mistake.
    unsafe {
        A.dealloc(block.cast(), SMALL);
        block.cast::<usize>().write(link);
    }
    assert_eq!(found(), ("a list has blocks of chunks", link));
}

#[test]
fn a_link_into_nowhere_is_found_and_not_followed() {
    isolated("a_link_into_nowhere_is_found_and_not_followed", || overwritten_by(|_| 0x1234_5678_9ab8));
}

#[test]
fn a_link_between_two_words_is_found_and_not_followed() {
    isolated("a_link_between_two_words_is_found_and_not_followed", || overwritten_by(|block| block + 1));
}

#[test]
fn a_block_that_is_free_twice_is_found() {
    isolated("a_block_that_is_free_twice_is_found", || {
        let block = alloc(SMALL);
        // SAFETY: the first is right; the second is the mistake.
        unsafe {
            A.dealloc(block.cast(), SMALL);
            A.dealloc(block.cast(), SMALL);
        }
        assert_eq!(found(), ("a free block is in one list, once", block.addr()));
    });
}

#[test]
fn a_block_in_another_class_s_list_is_found() {
    isolated("a_block_in_another_class_s_list_is_found", || {
        let block = alloc(LARGER);
        // SAFETY: the mistake.
        unsafe { A.dealloc(block.cast(), SMALL) };
        assert_eq!(found(), ("a list has blocks of its class", block.addr()));
    });
}

#[test]
fn a_block_that_is_none_of_its_span_s_is_found() {
    isolated("a_block_that_is_none_of_its_span_s_is_found", || {
        let block = alloc(LARGER);
        // SAFETY: the mistake: the middle of a block.
        unsafe { A.dealloc(block.add(1).cast(), LARGER) };
        assert_eq!(found(), ("a list has blocks of its span and class", block.addr() + 8));
    });
}
