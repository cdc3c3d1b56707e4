//! The deferring backend: a counter in the thread record.
//!
//! Runs in the main flow and in handlers. The fast paths are a few plain instructions, inlined; all else is in
//! [`flush`](crate::defer::flush).

use core::sync::atomic::Ordering;

use super::Backend;
use crate::defer::flush::flush_if_outermost;
use crate::record::{ThreadRecord, depth, fence, record, set_depth};

/// Holds back managed handlers by a counter in the thread record. No system call, unless a signal comes.
///
/// A signal whose handler is not managed, or that has the default action, acts at once.
///
/// Cost: in a loop a closure pair takes at most eight instructions and a guard pair at most twelve (`benches/callgrind.sh`).
#[derive(Copy, Clone, Debug)]
pub struct DeferredCounter;

/// What an exit does after it has stored its counter. `added` is zero unless a signal came, so it is the one word to test; the
/// slow path looks at the counters.
#[inline(always)]
fn after_exit(r: &ThreadRecord) {
    // SIGNAL: a signal before the store was captured, and `added` says so here; one after the store finds no region and runs at
    // once, or finds `added` set by an earlier one and is blocked.
    fence();
    if r.added.load(Ordering::Relaxed) != 0 {
        flush_if_outermost();
    }
}

impl Backend for DeferredCounter {
    const NAME: &'static str = "deferred";

    #[inline(always)]
    fn enter() {
        let held = counter();
        set_depth(held, depth(held).wrapping_add(1));
        fence();
    }

    #[inline(always)]
    unsafe fn exit() {
        fence();
        let held = counter();
        set_depth(held, depth(held).wrapping_sub(1));
        after_exit(record());
    }

    #[inline(always)]
    fn scoped<R>(f: impl FnOnce() -> R) -> R {
        /// Stores back the depth that was found: closures nest strictly, so nothing needs to be counted down.
        struct Leave(u64);

        impl Drop for Leave {
            #[inline(always)]
            fn drop(&mut self) {
                let r = record();
                fence();
                set_depth(&r.scoped, self.0);
                after_exit(r);
            }
        }

        let r = record();
        let leave = Leave(depth(&r.scoped));
        set_depth(&r.scoped, leave.0.wrapping_add(1));
        fence();
        let result = f();
        drop(leave);
        result
    }
}

/// The counter of guards.
#[inline(always)]
fn counter() -> &'static core::sync::atomic::AtomicU64 {
    if mutant!("one-counter") { &record().scoped } else { &record().held }
}
