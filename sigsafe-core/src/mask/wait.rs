//! Taking a signal by waiting for it, instead of having a handler run.

use core::mem::MaybeUninit;
use core::time::Duration;

use super::editable;
#[cfg(deferral)]
use crate::defer::capture::take_place;
use crate::defer::order::{Received, receive, settle};
use crate::record::{ThreadRecord, record};
use crate::siginfo::SigInfo;
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// Takes a signal of `set` that waits, or waits until one comes. No handler runs for it.
///
/// Of several the one with the lowest number comes first, and of one number's real-time signals the oldest (POSIX, `sigwaitinfo`). What
/// a region has held back is there to be taken. Other signals are handled meanwhile and do not end the wait. `set` is blocked for as
/// long as the call lasts, so that nothing of it slips to a handler in between; POSIX asks callers to have it blocked all the
/// time, and for signals that are sent to the process, in every thread. An empty set, or one of nothing but SIGKILL, SIGSTOP and
/// libc's own, is waited for without end.
///
/// ```
/// use sigsafe_core::{SigSet, Signal, mask};
///
/// let usr1 = SigSet::from(Signal::USR1);
/// mask::block(usr1);
/// unsafe { libc::raise(libc::SIGUSR1) };
/// assert_eq!(mask::wait(usr1).signal(), Signal::USR1);
/// ```
///
/// Async-signal safety: may be called from a handler. Cost: two system calls, three if `set` was not blocked.
#[doc(alias = "sigwait")]
#[doc(alias = "sigwaitinfo")]
pub fn wait(set: SigSet) -> SigInfo {
    loop {
        // Without a deadline nothing but a signal ends it.
        if let Some(info) = take(set, None) {
            return info;
        }
    }
}

/// [`wait`], for at most `timeout`; `None` when it has passed. Zero takes what waits already.
///
/// Async-signal safety: may be called from a handler. Cost: two system calls, three if `set` was not blocked.
#[doc(alias = "sigtimedwait")]
pub fn wait_timeout(set: SigSet, timeout: Duration) -> Option<SigInfo> {
    take(set, Some(timeout))
}

fn take(set: SigSet, timeout: Option<Duration>) -> Option<SigInfo> {
    let r = record();
    let set = editable(set);
    let before = sys::sigprocmask(How::Block, set);
    // SIGNAL: nothing of `set` is captured from here on.
    let info = take_blocked(r, set, timeout);
    #[cfg(deferral)]
    if let Some(info) = &info
        && !mutant!("taken-leaves-place")
    {
        // The next of its number arrived elsewhere.
        take_place(r, info.signal());
    }
    let opened = set.difference(before);
    if !opened.is_empty() {
        // SIGNAL: in a region a signal of `set` is captured as ever from here on.
        sys::sigprocmask(How::Unblock, opened);
    }
    info
}

fn take_blocked(r: &ThreadRecord, set: SigSet, timeout: Option<Duration>) -> Option<SigInfo> {
    // A timeout too long to be added up is none.
    let deadline = timeout.and_then(|timeout| sys::monotonic_time().checked_add(timeout));
    let mut left = timeout;
    loop {
        if let Some(info) = take_kept(r, set) {
            return Some(info);
        }
        let mut info = MaybeUninit::zeroed();
        // SAFETY: the siginfo is on this stack.
        match unsafe { sys::sigtimedwait(set, info.as_mut_ptr(), left) } {
            Ok(signal) => {
                // SAFETY: the kernel has filled it; what it leaves is zero, a value of every field.
                let info = unsafe { info.assume_init() };
                match receive(r, signal, &info) {
                    Received::Itself => return SigInfo::new(info),
                    Received::Instead(kept) => return SigInfo::new(*kept.info()),
                    Received::Nothing => {}
                }
            }
            Err(libc::EAGAIN) => return None,
            // EINTR: a handler has run.
            Err(_) => {}
        }
        if let Some(deadline) = deadline {
            left = Some(deadline.saturating_sub(sys::monotonic_time()));
        }
    }
}

/// What waits in a slot, where the kernel cannot hand it out, if it is its turn.
fn take_kept(r: &ThreadRecord, set: SigSet) -> Option<SigInfo> {
    if r.slots.is_empty() {
        return None;
    }
    let pending = settle(r);
    // Where a token waits in the kernel, it is the token that brings the oldest.
    let kept = r.slots.waiting_signals().difference(r.slots.promised());
    let next = kept.union(pending).intersection(set).iter().next()?;
    if !kept.contains(next) {
        return None;
    }
    let (_, captured) = r.slots.take_waiting(|signal| signal == next)?;
    SigInfo::new(*captured.info())
}
