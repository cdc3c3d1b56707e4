//! The end of a thread: what its regions have captured and that was meant for the process goes back to the process.
//!
//! A signal that was sent to the process becomes this thread's when a region gives it back to the kernel, and the kernel throws away
//! what waits for a thread that exits. Runs at the very end of a thread, with every signal blocked that can be.

use crate::defer::order::settle;
use crate::defer::policy;
use crate::defer::slots::Captured;
use crate::mask;
use crate::record::record;
use crate::signal::Signal;
use crate::sys::{self, How};

/// To be called by a thread that is about to exit, possibly out of a region: it runs no handler any more, since every signal is blocked
/// from here on, also when a region ends after this (a guard in a thread-local), and what a region has captured and not let in is sent on
/// to the process, where another thread handles it. What was sent to this thread goes with it, as POSIX has it.
///
/// Threads that this crate has created do it themselves. A signal that says nothing of how it was sent counts as sent to the
/// process. Except on the main thread, what `kill` has sent arrives with this process as its sender, since the kernel lets nobody
/// else say otherwise.
///
/// Async-signal safety: may be called from a handler. Cost: one system call; where a region holds something back, three more and up to
/// five for each signal that is sent on.
pub fn leave_thread() {
    let r = record();
    // As the thread's own mask: what regions have blocked is not theirs to unblock any more.
    if mutant!("leave-opens") {
        sys::sigprocmask(How::Block, policy::BLOCKABLE.difference(policy::FAULTS));
    } else {
        mask::block(policy::BLOCKABLE.difference(policy::FAULTS));
    }
    if r.slots.is_empty() || mutant!("exit-forgets") {
        return;
    }
    let pending = settle(r);
    while let Some((signal, captured, in_kernel)) = r.slots.take_any() {
        // A copy of what has been delivered since is no signal.
        if !in_kernel || pending.contains(signal) {
            send_on(signal, &captured);
        }
    }
}

fn send_on(signal: Signal, captured: &Captured) {
    let info = captured.info();
    if info.si_code == libc::SI_TKILL {
        return;
    }
    // A fault that somebody has sent: it must not come back to this thread.
    sys::sigprocmask(How::Block, signal.into());
    // The kernel lets only the main thread give its process a siginfo that says "from a user" or "from the kernel"; then the number
    // arrives, with this process as the sender.
    // SAFETY: a kept siginfo is a whole one.
    if !unsafe { sys::queue_to_process(signal.number(), info) } {
        sys::send_to_process(signal.number());
    }
}
