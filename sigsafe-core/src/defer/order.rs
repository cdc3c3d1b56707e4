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
            // No token waits: somebody has taken it (`sigwait`) or discarded it (`SIG_IGN`), and no other delivery will come.
            find_lost_tokens_of(r, signal.into());
            Received::Instead(kept)
        }
        Exchanged::Empty => Received::Itself,
        Exchanged::Taken => Received::Nothing,
    }
}

/// Has those signals wait for an exit whose tokens somebody else has taken or discarded. To be called while they are blocked.
pub(crate) fn find_lost_tokens(r: &ThreadRecord) {
    // A handler may lie on the first instruction of another one's, whose token has left the kernel and has not been looked at yet.
    if get(&r.handlers) == 0 || mutant!("begun-is-lost") {
        find_lost_tokens_of(r, SigSet::FULL);
    }
}

/// Of these signals, none of which is about to be handled below.
pub(crate) fn find_lost_tokens_of(r: &ThreadRecord, signals: SigSet) {
    if r.slots.promised().is_empty() || mutant!("lost-token-unnoticed") {
        return;
    }
    let process = sys::process_id();
    if vfork::is_child(process) {
        return;
    }
    r.slots.drop_foreign(process);
    // SIGNAL: in this order. What is promised in between has its token behind the second.
    let promised = r.slots.promised().intersection(signals);
    for signal in promised.difference(sys::sigpending()) {
        if r.slots.lost_tokens(signal) {
            r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
        }
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

/// What waits in the kernel, for someone who is about to look at the slots too. A stop that waits there was sent after a SIGCONT that is
/// kept, since sending SIGCONT discards stops; so it has discarded that (POSIX, 2.4.1).
pub(crate) fn settle(r: &ThreadRecord) -> SigSet {
    r.slots.drop_foreign(sys::process_id());
    let pending = sys::sigpending();
    if !pending.intersection(policy::STOPS).is_empty() && !mutant!("stop-keeps-cont") {
        r.slots.discard(Signal::CONT);
    }
    pending
}
