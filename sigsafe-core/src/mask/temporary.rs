//! Masks for the length of one system call: `sigsuspend`, `ppoll` and kin.
//!
//! Whoever gives such a mask waits for a handler, so what it lets in runs at once, in a region too: the record says so for as long
//! as the call lasts.

use super::editable;
use crate::defer::{flush, policy};
use crate::record::{ADMITTING, ThreadRecord, fence, get, put, record};
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// Waits, with `set` blocked instead of what the thread has blocked, until a handler has run.
///
/// The mask changes and the wait begins in one step, so a signal that is blocked until then cannot come too early. Handlers of
/// signals outside `set` run **in a critical region too**, since that is what the caller waits for. What a region has held back
/// counts as waiting. Afterwards the mask is what it was, and the region holds back again.
///
/// Async-signal safety: may be called from a handler. Cost: one system call, two in a region.
#[doc(alias = "sigsuspend")]
pub fn suspend(set: SigSet) {
    temporary(set, sys::sigsuspend);
}

/// Makes a system call that takes a mask of its own (`ppoll`, `pselect`, `epoll_pwait`), with `set` in libc's form.
///
/// As with [`suspend`], handlers of signals outside `set` run in a critical region too while the call lasts. `None` when one had
/// to run before the call could be made: the caller does what it does on `EINTR`.
///
/// ```
/// use sigsafe_core::{SigSet, mask};
///
/// let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
/// let ready = mask::temporary(SigSet::EMPTY, |mask| unsafe { libc::ppoll(core::ptr::null_mut(), 0, &now, mask) });
/// assert_eq!(ready, Some(0));
/// ```
///
/// Async-signal safety: may be called from a handler. Cost: that of `call`, and one system call in a region.
#[doc(alias = "ppoll")]
#[doc(alias = "pselect")]
#[doc(alias = "epoll_pwait")]
pub fn temporary<R>(set: SigSet, call: impl FnOnce(&libc::sigset_t) -> R) -> Option<R> {
    let r = record();
    let mask = sys::to_sigset(editable(set));
    if !r.in_region() && r.slots.is_empty() {
        return Some(call(&mask));
    }
    /// Also when `call` panics.
    struct Ended(u32);

    impl Drop for Ended {
        fn drop(&mut self) {
            put(&record().phase, self.0);
        }
    }

    if r.in_region() {
        // So that nothing is captured between here and the system call, which would then wait for what has come already.
        let held_back = policy::deferrable();
        let before = sys::sigprocmask(How::Block, held_back);
        // SIGNAL: only a fault or an immediate handler can land here, and leaves `added` as it is.
        r.added.fetch_or(held_back.difference(before).bits(), core::sync::atomic::Ordering::Relaxed);
    }
    let ended = Ended(get(&r.phase));
    if !mutant!("suspend-unannounced") {
        put(&r.phase, ended.0 | ADMITTING);
    }
    fence();
    if admit_kept(r, set) { None } else { Some(call(&mask)) }
}

/// Gives the kernel what waits in slots and is let in by the mask, behind what waits there. Whether a handler has run for it.
fn admit_kept(r: &ThreadRecord, set: SigSet) -> bool {
    if r.slots.is_empty() || mutant!("suspend-forgets-kept") {
        return false;
    }
    flush::release_for(r, set)
}

/// Whether the temporary mask that is announced is in force already. Before, everything deferrable is blocked, and a handler that
/// let it in would have the call wait for what has come.
#[cold]
pub(crate) fn temporary_in_force() -> bool {
    mutant!("announced-is-in-force") || !policy::deferrable().is_subset(sys::sigprocmask(How::Block, SigSet::EMPTY))
}
