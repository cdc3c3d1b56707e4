//! A signal at every instruction of `alloc`, `dealloc` and `realloc`, in every state that has a way of its own.
//!
//! Each boundary is met three times: by a handler that allocates blocks of every kind, resizes and frees them; by one that frees the
//! main flow's blocks and leaves it some to free; and by a managed one, which the operation holds back for exactly as long as it has
//! the cache in hand. Of one way in four a sample of the
//! boundaries is met by two signals, the second in the handling of the first. After each run the
//! blocks' contents are looked at, and `verify` walks the whole heap, before the blocks are freed and after.
//!
//! `SIGSAFE_SWEEP_STRIDE=1` takes all of them. Without it, all that the lists of the cache have, and a sample of the others.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;
mod landing;
mod sweep;

use std::time::Duration;

use sigsafe_test_harness::isolate::isolated_within;
use sweep::way::{CACHE, LARGE, NO_CACHE, SPANS};

/// Of a loaded machine, and of every boundary.
const LIMIT: Duration = Duration::from_secs(3600);
/// Of the sample.
const STRIDE: u64 = 41;

#[test]
fn the_lists_of_the_cache() {
    isolated_within("the_lists_of_the_cache", LIMIT, || sweep::sweep(CACHE, 1));
}

#[test]
fn spans_their_stack_and_chunks() {
    isolated_within("spans_their_stack_and_chunks", LIMIT, || sweep::sweep(SPANS, STRIDE));
}

#[test]
fn without_the_cache() {
    isolated_within("without_the_cache", LIMIT, || sweep::sweep(NO_CACHE, STRIDE));
}

#[test]
fn runs_and_mappings() {
    isolated_within("runs_and_mappings", LIMIT, || sweep::sweep(LARGE, STRIDE));
}

#[test]
fn a_second_signal_in_the_handling_of_the_first() {
    isolated_within("a_second_signal_in_the_handling_of_the_first", LIMIT, sweep::sweep_pairs);
}
