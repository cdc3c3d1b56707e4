//! Holding a signal back that has arrived in a region.
//!
//! Runs in the trampoline.

use core::sync::atomic::Ordering;

use crate::defer::flush::SLOT_WAITS;
use crate::defer::order::lost_siginfo;
use crate::defer::slots::{self, Captured};
use crate::defer::{owed, policy, vfork};
use crate::record::{ThreadRecord, record};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys;

/// Holds a signal back: it goes back to the kernel or, if it is to be kept, into a slot, and everything deferrable is blocked from the
/// moment that the trampoline returns.
///
/// # Safety
///
/// `context` is the kernel's of a live delivery.
pub(crate) unsafe fn capture(r: &ThreadRecord, signal: Signal, info: &libc::siginfo_t, context: *mut libc::ucontext_t, keep: bool) {
    let process = sys::process_id();
    let mut held_back = policy::deferrable();
    // By name too: its handler may have stopped being immediate a moment ago, and what goes back to the kernel must not be let in.
    if policy::may_block(signal) {
        held_back = held_back.with(signal);
    }
    // SAFETY: a live siginfo.
    let requeue = |info| unsafe { sys::queue_to_self(process, signal.number(), info) };
    if vfork::is_child(process) {
        // The record is the parent's, and so is the region. Blocked is everything in this child alone, which executes another program.
        requeue(info);
        // SAFETY: the caller's context.
        unsafe { *frame_mask(context) |= held_back.with(signal).bits() };
        return;
    }
    // SAFETY: the caller's context.
    unsafe { note_place(r, signal, context) };
    let mut waits = false;
    if signal.is_real_time() && slots::is_token(info) {
        // A token that the kernel refuses leaves its signal to the next exit.
        waits = !requeue(info) && r.slots.lost_tokens(signal);
    } else if keep {
        waits = r.slots.keep(process, signal, info);
        if !waits {
            // No slot is left. In the kernel it is at least not lost; blocked, because it would come back at once.
            r.overflows.fetch_add(1, Ordering::Relaxed);
            requeue(info);
            held_back = held_back.with(signal);
        }
    } else {
        // Captured a second time: the thread had it blocked since, and somebody has unblocked it in a region.
        let copy = lost_siginfo(r, process, signal, info);
        let info = copy.as_ref().map_or(info, Captured::info);
        if requeue(info) {
            if !mutant!("siginfo-not-copied") {
                r.slots.keep_copy(process, signal, info);
            }
        } else {
            waits = !mutant!("refused-is-lost") && r.slots.keep(process, signal, info);
            if !waits {
                r.overflows.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    if policy::STOPS.contains(signal) {
        // A stop discards a SIGCONT that waits.
        r.slots.discard(Signal::CONT);
    }
    if waits {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
    }
    // SAFETY: the caller's context.
    unsafe { block_on_return(r, held_back, context) };
}

/// Has everything in `set` blocked from the moment that the trampoline returns, to be unblocked by the outermost exit.
///
/// # Safety
///
/// `context` is the kernel's of a live delivery.
pub(crate) unsafe fn hold_back(process: u32, set: SigSet, context: *mut libc::ucontext_t) {
    if vfork::is_child(process) {
        // SAFETY: the caller's context.
        unsafe { *frame_mask(context) |= set.bits() };
    } else {
        // SAFETY: the caller's context.
        unsafe { block_on_return(record(), set, context) };
    }
}

unsafe fn block_on_return(r: &ThreadRecord, set: SigSet, context: *mut libc::ucontext_t) {
    // SAFETY: the caller's context.
    let frame_mask = unsafe { frame_mask(context) };
    // SIGNAL: another deferrable signal here is captured by a trampoline of its own. It blocks what is not blocked in *this*
    // context and adds that to `added`; both are part of what is added and blocked below.
    let names = set.bits() & !*frame_mask;
    owed::note(r, names);
    r.added.fetch_or(names, Ordering::Relaxed);
    // SIGNAL: `added` first, then the mask. In between `added` names signals that are not blocked yet, and unblocking those
    // changes nothing; the other way round they could stay blocked with nobody knowing. A foreign handler over an operation of the
    // allocator, whose own operation ends in between, leaves them named, since they are owed.
    if !mutant!("no-frame-mask") {
        *frame_mask |= set.bits();
    }
}

/// The mask that the kernel restores as the handler returns.
///
/// # Safety
///
/// `context` is the kernel's of a live delivery.
pub(crate) unsafe fn frame_mask<'f>(context: *mut libc::ucontext_t) -> &'f mut u64 {
    // SAFETY: the kernel's frame holds its own eight bytes there, aligned; libc's type is longer and must not be copied.
    unsafe { &mut *(&raw mut (*context).uc_sigmask).cast::<u64>() }
}

/// User addresses have at most 56 bits on the architectures that defer.
const PLACE_BITS: u32 = 56;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// Remembers where the signal arrived, for a handler that asks.
///
/// # Safety
///
/// `context` is the kernel's of a live delivery.
unsafe fn note_place(r: &ThreadRecord, signal: Signal, context: *const libc::ucontext_t) {
    // SAFETY: the caller's context.
    let program_counter = unsafe { sys::program_counter(context) }.unwrap_or(0) as u64;
    // SIGNAL: one word. A trampoline that lands before the store is overwritten, and one that lands after it overwrites.
    r.captured_at.store((signal.number() as u64) << PLACE_BITS | program_counter & PLACE, Ordering::Relaxed);
}

/// Where the signal arrived, if it is the one that a region captured last. Asked once.
pub(crate) fn take_place(r: &ThreadRecord, signal: Signal) -> Option<usize> {
    let word = r.captured_at.load(Ordering::Relaxed);
    if word >> PLACE_BITS != signal.number() as u64 {
        return None;
    }
    r.captured_at.store(0, Ordering::Relaxed);
    Some((word & PLACE) as usize)
}
