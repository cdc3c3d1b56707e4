//! What a signal that the kernel hands out really brings: itself, or one of its number that was captured before it.
//!
//! Runs in the trampoline, and in the thread that takes a signal by waiting for it.

use core::sync::atomic::Ordering;

use crate::defer::flush::SLOT_WAITS;
use crate::defer::slots::{self, Captured, Exchanged};
use crate::defer::{policy, vfork};
use crate::record::{ThreadRecord, get};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys;

/// What was handed out.
pub(crate) enum Received {
    /// The signal itself.
    Itself,
    /// Another siginfo of the same number belongs in its place.
    Instead(Captured),
    /// A token that brings nothing: somebody has forged it, or taken what it stood for.
    Nothing,
}

/// To be asked once for each signal that the kernel has handed out and that is not captured again.
pub(crate) fn receive(r: &ThreadRecord, signal: Signal, info: &libc::siginfo_t) -> Received {
    if signal.is_real_time() && slots::is_token(info) {
        return r.slots.take_oldest(slots::process_of_token(info), signal).map_or(Received::Nothing, Received::Instead);
    }
    if r.slots.is_empty() {
        return Received::Itself;
    }
    let process = sys::process_id();
    if vfork::is_child(process) {
        return Received::Itself;
    }
    if !signal.is_real_time() {
        return lost_siginfo(r, process, signal, info).map_or(Received::Itself, Received::Instead);
    }
    if mutant!("no-exchange") {
        return Received::Itself;
    }
    match r.slots.exchange_oldest(process, signal, info) {
        Exchanged::Head(kept) => {
            if !sys::sigpending().contains(signal) {
                // No token waits: somebody has taken it (`sigwait`) or discarded it (`SIG_IGN`), and no other delivery will come.
                lose_tokens(r, signal);
            }
            Received::Instead(kept)
        }
        Exchanged::Empty => Received::Itself,
        Exchanged::Taken => Received::Nothing,
    }
}

/// No token of this number waits in the kernel: its signals wait for an exit.
fn lose_tokens(r: &ThreadRecord, signal: Signal) {
    if !mutant!("lost-token-unnoticed") && r.slots.lost_tokens(signal) {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
    }
}

/// Finds tokens that somebody else has taken, before their signals are unblocked. Most often none is promised, and nothing is asked.
pub(crate) fn find_lost_tokens(r: &ThreadRecord) {
    if !r.slots.promised().is_empty() {
        settle(r);
    }
}

/// A legacy signal that we gave back to the kernel while `RLIMIT_SIGPENDING` was exhausted comes without its siginfo (the kernel then
/// queues the number alone, and delivers zeros): the copy of it.
pub(crate) fn lost_siginfo(r: &ThreadRecord, process: u32, signal: Signal, info: &libc::siginfo_t) -> Option<Captured> {
    // Taken in any case: the delivery that it was kept for is here.
    let (copy, owner) = r.slots.take_copy(signal)?;
    // SAFETY: SI_USER's siginfo carries the sender's pid and uid.
    let empty = info.si_code == libc::SI_USER && unsafe { info.si_pid() == 0 && info.si_uid() == 0 };
    (empty && owner == process).then_some(copy)
}

/// What waits in the kernel, for someone who is about to look at the slots too. Those signals whose token does not wait there wait for
/// an exit again: somebody else has taken it.
pub(crate) fn settle(r: &ThreadRecord) -> SigSet {
    let process = sys::process_id();
    r.slots.drop_foreign(process);
    // SIGNAL: before the question. What is promised in between has its token behind it.
    let promised = r.slots.promised();
    let pending = settle_continue(r);
    // A handler may lie on the first instruction of another one's, whose token has left the kernel and has not been looked at yet.
    let may_begin = get(&r.handlers) != 0 && !mutant!("begun-is-lost");
    if !may_begin && !promised.is_subset(pending) && !vfork::is_child(process) {
        promised.difference(pending).iter().for_each(|signal| lose_tokens(r, signal));
    }
    pending
}

/// What waits in the kernel. A stop that waits there was sent after a SIGCONT that is kept, since sending SIGCONT discards stops; so it
/// has discarded that (POSIX, 2.4.1).
pub(crate) fn settle_continue(r: &ThreadRecord) -> SigSet {
    let pending = sys::sigpending();
    if !pending.intersection(policy::STOPS).is_empty() && !mutant!("stop-keeps-cont") {
        r.slots.discard(Signal::CONT);
    }
    pending
}
