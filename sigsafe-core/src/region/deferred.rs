//! The deferring backend: a counter in the thread record.
//!
//! Runs in the main flow and in handlers. The fast paths are a few plain instructions, inlined; all else is in
//! [`flush`](crate::defer::flush).

use core::sync::atomic::Ordering;

use super::Backend;
use crate::defer::flush::flush_if_outermost;
use crate::record::{ThreadRecord, fence, get, put, record};

/// Holds back managed handlers by a counter in the thread record. No system call, unless a signal comes.
///
/// A signal whose handler is not managed, or that has the default action, acts at once.
///
/// Cost: a closure pair takes at most eight instructions, a guard pair at most twelve.
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
        #[cfg(sigsafe_mutant = "mask-per-guard")]
        return mutant::enter();
        let held = counter();
        put(held, get(held).wrapping_add(1));
        fence();
    }

    #[inline(always)]
    unsafe fn exit() {
        #[cfg(sigsafe_mutant = "mask-per-guard")]
        return mutant::exit();
        fence();
        let held = counter();
        put(held, get(held).wrapping_sub(1));
        after_exit(record());
    }

    #[inline(always)]
    fn scoped<R>(f: impl FnOnce() -> R) -> R {
        /// Stores back the depth that was found: closures nest strictly, so nothing needs to be counted down.
        struct Leave(u32);

        impl Drop for Leave {
            #[inline(always)]
            fn drop(&mut self) {
                let r = record();
                fence();
                put(&r.scoped, self.0);
                after_exit(r);
            }
        }

        let r = record();
        let leave = Leave(get(&r.scoped));
        put(&r.scoped, leave.0.wrapping_add(1));
        fence();
        let result = f();
        drop(leave);
        result
    }
}

/// The counter of guards.
#[inline(always)]
fn counter() -> &'static core::sync::atomic::AtomicU32 {
    if cfg!(sigsafe_mutant = "one-counter") { &record().scoped } else { &record().held }
}

/// A mask kept per guard, as a stack of saved masks that any drop pops: what the design rules out.
#[cfg(sigsafe_mutant = "mask-per-guard")]
mod mutant {
    use crate::defer::policy;
    use crate::record::{get, put, record};
    use crate::sigset::SigSet;
    use crate::sys::{How, sigprocmask};
    use core::sync::atomic::{AtomicU64, Ordering};

    static SAVED: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

    pub(super) fn enter() {
        let depth = get(&record().held);
        let old = sigprocmask(How::Block, policy::deferrable());
        SAVED[depth as usize % 64].store(old.bits(), Ordering::Relaxed);
        put(&record().held, depth + 1);
    }

    /// Guards are dropped first in, first out here: each restores the mask that it found.
    pub(super) fn exit() {
        let depth = get(&record().held).wrapping_sub(1);
        put(&record().held, depth);
        let first = SAVED[0].load(Ordering::Relaxed);
        for index in 0..63 {
            SAVED[index].store(SAVED[index + 1].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        sigprocmask(How::Set, SigSet::from_bits(first));
    }
}
