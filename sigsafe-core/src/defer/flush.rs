//! The outermost exit's slow path: lets in what a region has held back.
//!
//! Runs in the main flow or in a handler, always outside a region, as the last thing that an exit does.

use core::sync::atomic::Ordering;

use crate::allocator;
use crate::defer::order::{find_lost_tokens, settle, settle_continue};
use crate::defer::slots::{self, Captured};
use crate::defer::trampoline;
use crate::defer::{owed, policy};
use crate::handler::table;
use crate::record::{RELEASING, ThreadRecord, get, put, record};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// The bit of `added` that says "a slot waits": SIGKILL's, which is never ours to block.
pub(crate) const SLOT_WAITS: u64 = SigSet::EMPTY.with(Signal::KILL).bits();

/// The bit of `releasing` that says "from before the call": SIGKILL's, which is in no mask that the kernel writes there.
const ANNOUNCED: u64 = SLOT_WAITS;

/// The slow path of every exit, taken when `added` is not zero: flushes if this was the outermost one.
#[cold]
#[inline(never)]
pub(crate) fn flush_if_outermost() {
    let r = record();
    // In a handler over an operation of the allocator: the operation's end is the outermost exit.
    let over_operation = get(&r.handlers) != 0 && allocator::busy(r, allocator::stack_pointer());
    if !(r.in_region() || over_operation) || mutant!("inner-exit-flushes") {
        // SIGNAL: as in the flush up to its announcement.
        find_lost_tokens(r);
        let owed = owed::below(r);
        flush(r);
        // SIGNAL: what lands before this line, and is captured, adds to the same word.
        if owed != 0 {
            r.added.fetch_or(owed, Ordering::Relaxed);
        }
    }
}

/// Unblocks what we blocked and releases the slots. The kernel delivers what waits before the unblocking call returns.
pub(crate) fn flush(r: &ThreadRecord) {
    let phase = get(&r.phase);
    put(&r.phase, RELEASING);
    // SIGNAL: from the exit's store of the counter up to here `added` still says that we hold signals blocked. A handler that runs
    // now (immediate, or a fault) has it set aside by its trampoline, so its own exits do not flush for this one. From here to the
    // unblocking call `releasing` says so: to a handler that asks for its mask, and not to its exits.
    announce(r, SigSet::from_bits(r.added.load(Ordering::Relaxed)));
    let added = r.added.swap(0, Ordering::Relaxed);
    let mut ours = SigSet::from_bits(added & !SLOT_WAITS);
    if added & SLOT_WAITS != 0 {
        let held_back = policy::deferrable();
        let mut blocked = SigSet::EMPTY;
        if !held_back.is_subset(ours) {
            // The thread has blocked some itself; or a handler that ran over the region has kept this, whose own mask is gone, and not
            // everything is blocked yet. It has to be, for the kernel to queue what arrives behind what is kept.
            let before = blocked_now();
            ours = ours.union(held_back.difference(before));
            blocked = before.difference(ours);
            // SIGNAL: before the call. What is announced and not blocked yet is in no handler's mask, and taking it away changes nothing.
            announce(r, ours);
            sys::sigprocmask(How::Block, held_back);
        }
        let process = sys::process_id();
        r.slots.drop_foreign(process);
        release_slots(r, process, blocked);
    }
    if !ours.is_empty() && !mutant!("no-flush") {
        // SIGNAL: what this lets in runs on the thread's own mask, and of two that it lets in one begins on the other's first
        // instruction. So the end of the announcement can be neither before the call nor behind it: the kernel makes it.
        if mutant!("announced-too-long") {
            sys::sigprocmask(How::Unblock, ours);
        } else {
            sys::unblock_announced(ours, &r.releasing);
        }
    }
    r.releasing.store(0, Ordering::Relaxed);
    if added & SLOT_WAITS != 0 && !mutant!("sent-faults-kept") {
        release_faults(r);
    }
    // What was captured and is blocked by the thread itself comes with a context of its own.
    r.captured_at.store(0, Ordering::Relaxed);
    put(&r.phase, phase);
}

/// From here on a handler that lands in the flush takes `ours` for held back, not for blocked by the thread.
fn announce(r: &ThreadRecord, ours: SigSet) {
    if !mutant!("unannounced-flush") {
        r.releasing.store(ours.bits() | ANNOUNCED, Ordering::Relaxed);
    }
}

/// What a handler that has landed in a flush finds blocked for it and its code below, of which `mask` is the kernel's mask.
pub(crate) fn announced(releasing: u64, mask: u64) -> u64 {
    // What a dispatch has let in finds little of it blocked.
    if releasing & ANNOUNCED == 0 { 0 } else { releasing & mask }
}

/// Sent faults come last: they are not blocked, so that each is delivered before the call returns, and by now their handlers find the
/// thread's own mask.
fn release_faults(r: &ThreadRecord) {
    while let Some((signal, mut kept)) = r.slots.take_waiting(|signal| !policy::may_block(signal)) {
        let process = sys::process_id();
        if requeue(process, signal, &kept) {
            continue;
        }
        let blocked = blocked_now();
        if blocked.contains(signal) {
            // The thread itself has blocked it since. It waits here: the next exit tries again.
            let _ = r.slots.keep(process, signal, kept.info());
            r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
            return;
        }
        dispatch(r, signal, &mut kept, blocked);
    }
}

/// Gives a kept signal back to the kernel. `false` when that refuses.
fn requeue(process: u32, signal: Signal, kept: &Captured) -> bool {
    // SAFETY: a kept siginfo is a whole one.
    unsafe { sys::queue_to_self(process, signal.number(), kept.info()) }
}

/// Empties the slots: back into the kernel where that is right, to the handler where not. `blocked` is what the thread itself has
/// blocked; everything else that is deferrable is blocked by us.
#[cold]
fn release_slots(r: &ThreadRecord, process: u32, blocked: SigSet) {
    // SIGNAL: an immediate handler that lands between two of these steps may end a region of its own and release slots itself. So
    // each step claims the slot that it takes.
    if r.slots.waiting_signals().contains(Signal::CONT) {
        settle_continue(r);
    }
    // Everything deferrable is still blocked by us, so the tokens stand behind what waits there already. Also for what the thread has
    // blocked itself: given back, the signal would stand behind one that is sent just before, whatever was asked before that.
    send_tokens(r, process, blocked);
    // What the thread has blocked itself since the capture waits in the kernel like any other.
    while let Some((signal, kept)) =
        r.slots.take_waiting(|signal| blocked.contains(signal) && policy::may_block(signal) && !signal.is_real_time())
    {
        if !requeue(process, signal, &kept) {
            let _ = r.slots.keep(process, signal, kept.info());
            break;
        }
    }
    while let Some((signal, mut kept)) = r.slots.take_waiting(|signal| !blocked.contains(signal) && policy::may_block(signal)) {
        // What the kernel refused once it may have room for by now, and a delivery of its own is the better one. Not for SIGCONT,
        // which never goes there, nor for real-time signals, since those behind it may have been let in by a dispatch.
        let again = signal != Signal::CONT && !signal.is_real_time();
        if !again || !requeue(sys::process_id(), signal, &kept) {
            dispatch(r, signal, &mut kept, blocked);
        }
    }
    // What is still there is blocked by the thread and refused by the kernel: the next exit tries again.
    if r.slots.waiting_signals().iter().any(policy::may_block) {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
    }
}

/// For each kept real-time signal, its token. The kernel has them blocked; `blocked` is what the thread itself has blocked.
fn send_tokens(r: &ThreadRecord, process: u32, blocked: SigSet) {
    // Where our handler has been removed since nobody would take a token: the signal meets what is there now. What is blocked may still
    // be waited for, or get a handler again.
    let is_open = |signal| !blocked.contains(signal) || mutant!("removed-is-requeued");
    let nobody_s = |signal| (!table::installed(signal) && is_open(signal)) || mutant!("real-time-requeued-by-exit");
    while let Some((signal, kept)) = r.slots.take_waiting(|signal| signal.is_real_time() && nobody_s(signal)) {
        if !requeue(process, signal, &kept) {
            let _ = r.slots.keep(process, signal, kept.info());
            return;
        }
    }
    while let Some((signal, promise)) = r.slots.promise_token() {
        if mutant!("no-token") {
            promise.revoke();
            break;
        }
        if !requeue(process, signal, &slots::token(process, signal)) {
            if !mutant!("refused-token-forgotten") {
                promise.revoke();
            }
            break;
        }
    }
}

/// A temporary mask is about to be put in force, in a region: what waits in slots and is not in `mask` is to wait in the kernel with
/// the rest, or is handled here. Whether a handler has run.
///
/// Everything deferrable is blocked by the caller, and the record announces the mask.
pub(crate) fn release_for(r: &ThreadRecord, mask: SigSet) -> bool {
    let process = sys::process_id();
    settle(r);
    send_tokens(r, process, mask);
    let mut ran = false;
    // A fault that somebody sent is not blocked, so it is delivered before the call returns; SIGCONT would discard stops.
    while let Some((signal, mut kept)) = r.slots.take_waiting(|signal| !mask.contains(signal)) {
        // What is left of the real-time signals is what the kernel has refused a token for. Given back, it would stand behind later ones.
        let may_wait = signal != Signal::CONT && (!signal.is_real_time() || mutant!("tokenless-requeued"));
        let in_kernel = may_wait && requeue(process, signal, &kept);
        if !in_kernel {
            dispatch(r, signal, &mut kept, mask);
        }
        // The thread itself may have blocked a fault: then the call lets it in.
        let blocked = blocked_now().contains(signal) && (policy::may_block(signal) || !mutant!("blocked-fault-ran"));
        ran |= !(in_kernel && blocked);
    }
    ran
}

/// The kernel's mask.
fn blocked_now() -> SigSet {
    sys::sigprocmask(How::Block, SigSet::EMPTY)
}

/// Calls the handler without a delivery of the kernel's: with the mask that one would have set on top of `mask`, on the current stack,
/// and with no machine context to give.
fn dispatch(r: &ThreadRecord, signal: Signal, kept: &mut Captured, mask: SigSet) {
    let Some(entry) = table::current(signal).filter(|_| table::installed(signal)) else {
        // Its handler has been removed since: the signal meets what is there now.
        requeue(sys::process_id(), signal, kept);
        return;
    };
    let always = blocked_now().difference(policy::deferrable());
    let during = entry.mask().with(signal).intersection(policy::BLOCKABLE).union(mask).union(always);
    // What else waits is let in here, as it would be around a delivery; this signal's number is not.
    let blocked = sys::sigprocmask(How::Set, during);
    // SAFETY: the siginfo is whole and lives over the call; there is no context.
    unsafe { trampoline::run(r, signal, entry, kept.info_mut(), core::ptr::null_mut(), during) };
    // Back to what it was, blocked by us included: the caller unblocks that last.
    sys::sigprocmask(How::Set, blocked);
}
