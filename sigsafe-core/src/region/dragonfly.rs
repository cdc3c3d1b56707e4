//! The deferring backend on DragonFly: the kernel reads the count.
//!
//! libc's `sigblockall(3)` adds one to a word that the thread shares with the kernel, and `sigunblockall(3)` takes one away and, if
//! the kernel has withheld a signal meanwhile, lets it in. Runs in the main flow and in handlers.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use super::Backend;
use crate::defer::flush::flush_if_outermost;
use crate::record::{depth, fence, record, set_depth};

unsafe extern "C" {
    safe fn sigblockall() -> c_int;
    safe fn sigunblockall() -> c_int;
}

/// Holds back every handler by DragonFly's `sigblockall`. No system call, unless a signal comes.
///
/// It reaches further than the counter of the same name on Linux: managed or not, registered as immediate or not, and whatever has
/// the default action, every signal but SIGKILL, SIGSTOP and those that the running instruction raises waits for the end. So does
/// the SIGABRT of an `abort` in a region, which then ends the process with an exit status and not by that signal. The thread's
/// mask does not change. The count belongs to the thread: its child by fork inherits it, and after the thread-local destructors
/// of libc have run it protects nothing.
///
/// Cost: two calls of libc, each an atomic addition; one system call when a signal has been held back.
#[doc(alias = "sigblockall")]
#[derive(Copy, Clone, Debug)]
pub struct DeferredCounter;

impl Backend for DeferredCounter {
    const NAME: &'static str = "deferred";

    #[inline]
    fn enter() {
        sigblockall();
        // Counted here too, for the queries and for full-mask regions inside this one.
        let r = record();
        set_depth(&r.held, depth(&r.held).wrapping_add(1));
        fence();
    }

    #[inline]
    unsafe fn exit() {
        let r = record();
        fence();
        set_depth(&r.held, depth(&r.held).wrapping_sub(1));
        // What a full-mask region that ended inside this one has left blocked. The signals themselves still wait for the next line.
        if r.added.load(Ordering::Relaxed) != 0 {
            flush_if_outermost();
        }
        sigunblockall();
    }

    #[inline]
    fn scoped<R>(f: impl FnOnce() -> R) -> R {
        super::guarded::<Self, R>(f)
    }
}
