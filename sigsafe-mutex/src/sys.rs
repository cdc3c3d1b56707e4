//! The one system call that is the locks' own: to give up the processor. Waiting is `sigsafe_core`'s.
//!
//! Runs in any context.

/// Gives up the processor once, for whoever else is ready. Keeps `errno`: the call has no error on any supported system.
#[doc(alias = "sched_yield")]
pub(crate) fn yield_processor() {
    // SAFETY: `sched_yield` has no preconditions.
    unsafe { libc::sched_yield() };
}
