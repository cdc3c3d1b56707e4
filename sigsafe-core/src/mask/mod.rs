//! The thread's signal mask, with POSIX's semantics: what the *thread* has blocked.
//!
//! In a critical region the kernel's mask may hold more than that: signals that the region holds back. These functions speak of the
//! logical mask, without them, and keep the two apart: a signal blocked here in a region is still blocked after it; one unblocked in
//! a region is let in when the region ends. libc's `pthread_sigmask` in a region sees and edits the kernel's mask. Where a region holds
//! something back, a change costs up to two system calls more.
//!
//! SIGKILL, SIGSTOP and libc's own signals are silently left out of every set, as POSIX and libc have it.

mod temporary;
mod wait;

pub(crate) use temporary::temporary_in_force;
pub use temporary::{suspend, temporary};
pub use wait::{wait, wait_timeout};

use core::sync::atomic::Ordering;

use crate::defer::flush::flush_if_outermost;
use crate::defer::order::{find_lost_tokens, settle};
use crate::defer::{policy, vfork};
use crate::record::{ThreadRecord, record};
use crate::sigset::SigSet;
use crate::sys::{self, How};

fn editable(set: SigSet) -> SigSet {
    set.intersection(policy::BLOCKABLE)
}

/// What the kernel's mask shows as blocked because of regions, this frame's and those below it.
fn held_back(r: &ThreadRecord) -> SigSet {
    SigSet::from_bits(r.added.load(Ordering::Relaxed) | r.below.load(Ordering::Relaxed))
}

/// Whether the record is that of a parent whose memory this process shares (vfork): its region is to unblock what it blocked, whatever
/// is done to the mask here.
#[cold]
fn is_the_parents() -> bool {
    !mutant!("vfork-edits-mask") && vfork::is_child(sys::process_id())
}

/// The thread itself blocks `set` from now on. Returns what was held back before.
fn take_over(r: &ThreadRecord, set: SigSet) -> SigSet {
    let before = held_back(r);
    if !before.intersection(set).is_empty() && is_the_parents() {
        return before;
    }
    // One instruction each: a capture between a load and a store would be forgotten.
    let others = if mutant!("blocked-is-forgotten") { !0 } else { !set.bits() };
    SigSet::from_bits(r.added.fetch_and(others, Ordering::Relaxed) | r.below.fetch_and(others, Ordering::Relaxed))
}

/// In a region: what is blocked and deferrable becomes the region's to unblock.
fn let_in_later(r: &ThreadRecord, blocked: SigSet) {
    let blocked = blocked.intersection(policy::deferrable());
    if !blocked.is_empty() && !mutant!("unblocked-is-forgotten") && !is_the_parents() {
        r.added.fetch_or(blocked.bits(), Ordering::Relaxed);
    }
}

/// Outside a region: a slot that had to wait because its signal was blocked may be let in now.
fn release_kept(r: &ThreadRecord) {
    if r.added.load(Ordering::Relaxed) != 0 {
        flush_if_outermost();
    }
}

/// What the thread has blocked.
///
/// Async-signal safety: may be called from a handler. Cost: one system call.
#[doc(alias = "pthread_sigmask")]
pub fn current() -> SigSet {
    // SIGNAL: a capture between the two reads changes the kernel's mask and `added`; read in this order, its signals are missing
    // from the first, and taking them away changes nothing.
    let kernel = sys::sigprocmask(How::Block, SigSet::EMPTY);
    if mutant!("kernel-s-mask") { kernel } else { kernel.difference(held_back(record())) }
}

/// Blocks `set` as well. Returns what was blocked before.
///
/// Async-signal safety: may be called from a handler, where it lasts until the handler returns. Cost: one system call.
#[doc(alias = "SIG_BLOCK")]
pub fn block(set: SigSet) -> SigSet {
    let set = editable(set);
    let kernel = sys::sigprocmask(How::Block, set);
    // SIGNAL: a capture here adds nothing of `set`, which is blocked in the mask that it finds.
    kernel.difference(take_over(record(), set))
}

/// Unblocks `set`. Returns what was blocked before.
///
/// Outside a region, at least one signal that waited is delivered before this returns (POSIX, `pthread_sigmask`); in a region they
/// wait for its end. Unblocking what is not blocked is no error.
///
/// Async-signal safety: may be called from a handler, where it lasts until the handler returns. Cost: one system call; in a region, and
/// while a real-time signal that one has captured waits, up to two more.
#[doc(alias = "SIG_UNBLOCK")]
pub fn unblock(set: SigSet) -> SigSet {
    let r = record();
    let set = editable(set);
    if r.in_region() {
        let kernel = sys::sigprocmask(How::Block, SigSet::EMPTY);
        let before = kernel.difference(held_back(r));
        let_in_later(r, set.intersection(kernel));
        let now = set.intersection(kernel).difference(policy::deferrable());
        if !now.is_empty() {
            sys::sigprocmask(How::Unblock, now);
        }
        before
    } else {
        let held_back = held_back(r);
        find_lost_tokens(r);
        let kernel = sys::sigprocmask(How::Unblock, set);
        release_kept(r);
        kernel.difference(held_back)
    }
}

/// Blocks exactly `set`. Returns what was blocked before.
///
/// Async-signal safety: may be called from a handler, where it lasts until the handler returns. Cost: one system call; in a region, and
/// while a real-time signal that one has captured waits, up to two more.
#[doc(alias = "SIG_SETMASK")]
pub fn set(set: SigSet) -> SigSet {
    let r = record();
    let set = editable(set);
    if r.in_region() {
        let kernel = sys::sigprocmask(How::Block, set);
        let before = kernel.difference(take_over(r, set));
        let_in_later(r, kernel.difference(set));
        let now = kernel.intersection(editable(set.complement())).difference(policy::deferrable());
        if !now.is_empty() {
            sys::sigprocmask(How::Unblock, now);
        }
        before
    } else {
        let held_back = take_over(r, set);
        find_lost_tokens(r);
        let kernel = sys::sigprocmask(How::Set, set);
        release_kept(r);
        kernel.difference(held_back)
    }
}

/// What waits for this thread: blocked by it, or held back by a region.
///
/// Async-signal safety: may be called from a handler. Cost: one system call, two in a region that holds something back.
#[doc(alias = "sigpending")]
pub fn pending() -> SigSet {
    let r = record();
    if r.slots.is_empty() {
        return sys::sigpending();
    }
    settle(r).union(r.slots.waiting_signals())
}
