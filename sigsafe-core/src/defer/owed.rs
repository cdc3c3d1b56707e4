//! What a capture over an operation of the allocator blocks as it returns, and so owes to that operation's end.
//!
//! Inside a region no exit flushes: it has a counter. An operation has none. A handler that nobody manages and that lands in the capture,
//! or in a fault behind it, may end operations and regions of its own, and lets in all that `added` names; but what the capture blocks is
//! blocked again when that handler, or the capture, returns, and has to be named still. What the handler's own regions have blocked is
//! not: it may have been blocked by somebody else since.
//!
//! Runs in trampolines, and at the end of outermost exits.

use core::sync::atomic::Ordering;

use crate::allocator;
use crate::record::{ThreadRecord, get, put};
use crate::thread::altstack;

/// A signal's frame is larger, and the stack between the start of an operation and its end is smaller.
const SIGNAL_FRAME: usize = 1024;

/// An operation that is left never ends, and code that lies further down than it did looks like a handler over it. After so many
/// flushes, nothing is owed any more.
const MOST_FLUSHES: u32 = 4096;

/// A capture is about to block `names`.
pub(super) fn note(r: &ThreadRecord, names: u64) {
    let mark = allocator::mark(r);
    if mark == 0 || (r.in_region() && !mutant!("owed-is-added")) {
        return;
    }
    // Of two operations the outer one: the stack grows down.
    if r.owed_at.load(Ordering::Relaxed) < mark {
        put(&r.owed_flushes, 0);
        r.owed_at.store(mark, Ordering::Relaxed);
    }
    // SIGNAL: the place first. A flush in between keeps what was owed before, and nobody has blocked these yet.
    r.owed.fetch_or(names, Ordering::Relaxed);
}

/// What an exit that is about to flush is to leave named.
pub(super) fn below(r: &ThreadRecord) -> u64 {
    let mark = r.owed_at.load(Ordering::Relaxed);
    if mark == 0 || mutant!("flushed-is-forgotten") {
        return 0;
    }
    let here = allocator::stack_pointer();
    let lies_over = here + SIGNAL_FRAME <= mark || (altstack::separates(here, mark) && !mutant!("one-stack"));
    let flushes = get(&r.owed_flushes);
    if lies_over && flushes < MOST_FLUSHES {
        put(&r.owed_flushes, flushes + 1);
        return if mutant!("owed-is-added") { r.added.load(Ordering::Relaxed) } else { r.owed.load(Ordering::Relaxed) };
    }
    // SIGNAL: what a handler notes in between is owed to an operation of its own, which ends before it does.
    r.owed.store(0, Ordering::Relaxed);
    r.owed_at.store(0, Ordering::Relaxed);
    0
}
