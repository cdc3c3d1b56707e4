//! A nap in place of a wait: right wherever there is a clock, and late by its length.
//!
//! A waiter costs the processor some ten thousand looks a second and takes a lock up to 100 microseconds after its release.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys::errno::keeping_errno;

const NAP_NS: i64 = 100_000;

/// Sleeps for a moment unless `word` no longer holds `expected`.
pub(crate) fn park(word: &AtomicU32, expected: u32) {
    if word.load(Ordering::Relaxed) != expected {
        return;
    }
    let nap = libc::timespec { tv_sec: 0, tv_nsec: NAP_NS as _ };
    // SAFETY: reads one time on this stack, and has no use for what is left of it.
    keeping_errno(|| unsafe { libc::nanosleep(&raw const nap, null_mut()) });
}

/// Nobody is parked for longer than a nap.
pub(crate) fn unpark_one(_address: usize) {}
