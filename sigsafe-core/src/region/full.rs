//! The full-mask backend: real system calls around the outermost region.
//!
//! Runs in the main flow and in handlers.

use core::sync::atomic::Ordering;

use super::Backend;
use crate::defer::flush::flush_if_outermost;
use crate::defer::policy;
use crate::record::{ThreadRecord, depth, fence, record, set_depth};
use crate::sys::{self, How};

/// Holds back every handler, managed or not, by blocking in the kernel. Two system calls around the outermost region.
///
/// What is blocked is everything but the faults, SIGABRT, SIGKILL, SIGSTOP, libc's own signals, and those whose managed handler is
/// registered as immediate.
///
/// Cost: two `rt_sigprocmask` for the outermost pair, none for those inside it.
#[derive(Copy, Clone, Debug)]
pub struct FullSyscall;

#[cold]
fn enter_outermost(r: &ThreadRecord) {
    let set = policy::deferrable();
    let before = sys::sigprocmask(How::Block, set);
    // SIGNAL: only a fault or an immediate handler can land from here on. It finds a mask that looks like the thread's own and no
    // region; its own full-mask region then adds nothing and removes nothing.
    set_depth(&r.full, 1);
    // SIGNAL: a handler here finds a region and `added` as it was, and leaves both so.
    r.added.fetch_or(set.difference(before).bits(), Ordering::Relaxed);
    fence();
}

impl Backend for FullSyscall {
    const NAME: &'static str = "full";

    #[inline]
    fn enter() {
        let r = record();
        match depth(&r.full) {
            0 => enter_outermost(r),
            live => set_depth(&r.full, live.wrapping_add(1)),
        }
        fence();
    }

    #[inline]
    unsafe fn exit() {
        let r = record();
        fence();
        // What this region blocked is in `added`. Whichever region ends last, of either backend, unblocks it; until then the
        // signals stay blocked, which is no less than the others ask for.
        set_depth(&r.full, depth(&r.full).wrapping_sub(1));
        fence();
        if r.added.load(Ordering::Relaxed) != 0 {
            flush_if_outermost();
        }
    }

    #[inline]
    fn scoped<R>(f: impl FnOnce() -> R) -> R {
        super::guarded::<Self, R>(f)
    }
}
