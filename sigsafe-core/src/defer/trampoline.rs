//! The trampoline: what the kernel calls for every managed signal.
//!
//! Runs as a signal handler, at any instruction of the thread, also of another trampoline. The kernel has blocked the signal itself
//! and the handler's `sa_mask`, always (`SA_NODEFER` is emulated below): so a trampoline is never interrupted by its own number.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::defer::flush::{SLOT_WAITS, flush};
use crate::defer::order::{Received, lost_siginfo, receive};
use crate::defer::policy::{self, Arrival, Verdict};
use crate::defer::slots::{self, Captured};
use crate::handler::entry::Entry;
use crate::handler::{Delivery, table};
use crate::record::{ADMITTING, RELEASING, ThreadRecord, fence, get, put, record};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys::{self, How};
use crate::waiting;

/// The kernel's entry.
///
/// # Safety
///
/// Called by the kernel, or by someone who passes on what the kernel gave him: `info` and `context` are those of a live delivery.
pub(crate) unsafe extern "C" fn trampoline(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Ok(signal) = Signal::new(number) else { return };
    // Null only when somebody else calls us for a signal that never had a handler of ours.
    let Some(entry) = table::current(signal) else { return };
    let r = record();
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: the kernel's siginfo lives as long as its frame.
    let siginfo = unsafe { &*info };
    // SAFETY: the kernel's frame holds its own eight bytes of mask there, aligned; libc's type is longer and must not be copied.
    let frame_mask = unsafe { &mut *(&raw mut (*context).uc_sigmask).cast::<u64>() };

    let in_region = r.in_region();
    let admitting = get(&r.phase) & ADMITTING != 0;
    let arrival = Arrival {
        signal,
        code: siginfo.si_code,
        // Only asked where it matters: it costs a system call.
        // SAFETY: SI_TKILL's siginfo carries the sender's pid.
        from_self: in_region && siginfo.si_code == libc::SI_TKILL && unsafe { siginfo.si_pid() } as u32 == sys::process_id(),
        in_region,
        immediate: entry.immediate(),
        admitted: admitting || SigSet::from_bits(*frame_mask).contains(signal),
    };
    match policy::decide(arrival) {
        Verdict::Run => {
            match receive(r, signal, siginfo) {
                // SAFETY: info and context are the kernel's.
                Received::Itself => unsafe { run(r, signal, entry, info, context) },
                // SAFETY: the kept siginfo is a whole one, the context is the kernel's.
                Received::Instead(mut kept) => unsafe { run(r, signal, entry, kept.info_mut(), context) },
                Received::Nothing => {}
            }
            // Under a temporary mask everything is blocked already in the code that gave it, which this frame may lie on by way of
            // another; what this one's mask shows is not the thread's.
            if in_region && !admitting {
                // What arrived in the handler has been captured there and waits in the kernel, as it should for the region below.
                // Let in now, each would be captured again, and a handler that comes with them would see them blocked.
                hold_back(r, policy::deferrable(), frame_mask);
            }
        }
        Verdict::Requeue => {
            // Captured a second time: the thread had it blocked since, and somebody has unblocked it in a region.
            let copy = lost_siginfo(r, signal, siginfo);
            note_place(r, signal, context);
            capture(r, signal, copy.as_ref().map_or(siginfo, Captured::info), frame_mask, false);
        }
        Verdict::Keep => {
            note_place(r, signal, context);
            capture(r, signal, siginfo, frame_mask, true);
        }
    }
}

/// Remembers where the signal arrived, for a handler that asks.
fn note_place(r: &ThreadRecord, signal: Signal, context: *const libc::ucontext_t) {
    // SAFETY: the context is the kernel's of a live frame.
    let program_counter = sys::program_counter(unsafe { &*context }).unwrap_or(0) as u64;
    // SIGNAL: one word. A trampoline that lands before the store is overwritten, and one that lands after it overwrites.
    r.captured_at.store((signal.number() as u64) << PLACE_BITS | program_counter & PLACE, Ordering::Relaxed);
}

/// Where the signal arrived, if it is the one that a region captured last. Asked once.
fn take_place(r: &ThreadRecord, signal: Signal) -> Option<usize> {
    let word = r.captured_at.load(Ordering::Relaxed);
    if word >> PLACE_BITS != signal.number() as u64 {
        return None;
    }
    r.captured_at.store(0, Ordering::Relaxed);
    Some((word & PLACE) as usize)
}

/// User addresses have at most 56 bits on the architectures that defer.
const PLACE_BITS: u32 = 56;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// Holds a signal back: it goes back to the kernel or into a slot, and everything deferrable is blocked from the moment that the
/// trampoline returns.
fn capture(r: &ThreadRecord, signal: Signal, info: &libc::siginfo_t, frame_mask: &mut u64, keep: bool) {
    let mut held_back = policy::deferrable();
    // By name too: its handler may have stopped being immediate a moment ago, and what goes back to the kernel must not be let in.
    if policy::may_block(signal) {
        held_back = held_back.with(signal);
    }
    let token = signal.is_real_time() && slots::is_token(info);
    // SAFETY: a live siginfo.
    let requeue = || unsafe { sys::queue_to_self(signal.number(), info) };
    let mut waits = false;
    if token {
        // A token that the kernel refuses leaves its signal to the next exit.
        waits = !requeue() && r.slots.lost_tokens(signal);
    } else if keep {
        waits = r.slots.keep(signal, info);
        if !waits {
            // No slot is left. In the kernel it is at least not lost; blocked, because it would come back at once.
            r.overflows.fetch_add(1, Ordering::Relaxed);
            requeue();
            held_back = held_back.with(signal);
        }
    } else if requeue() {
        if !mutant!("siginfo-not-copied") {
            r.slots.keep_copy(signal, info);
        }
    } else {
        waits = !mutant!("refused-is-lost") && r.slots.keep(signal, info);
        if !waits {
            r.overflows.fetch_add(1, Ordering::Relaxed);
        }
    }
    if policy::STOPS.contains(signal) {
        // A stop discards a SIGCONT that waits.
        r.slots.discard(Signal::CONT);
    }
    if waits {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
    }
    hold_back(r, held_back, frame_mask);
}

/// Has everything in `set` blocked from the moment that the trampoline returns, to be unblocked by the outermost exit.
fn hold_back(r: &ThreadRecord, set: SigSet, frame_mask: &mut u64) {
    // SIGNAL: another deferrable signal here is captured by a trampoline of its own. It blocks what is not blocked in *this*
    // context and adds that to `added`; both are part of what is added and blocked below.
    r.added.fetch_or(set.bits() & !*frame_mask, Ordering::Relaxed);
    // SIGNAL: `added` first, then the mask. In between `added` names signals that are not blocked yet, and unblocking those
    // changes nothing; the other way round they could stay blocked with nobody knowing.
    if !mutant!("no-frame-mask") {
        *frame_mask |= set.bits();
    }
}

/// Calls the handler, and leaves the record as it was found: a handler's regions never flush for the code that it interrupts, and
/// its changes to the mask die with it, as the kernel has it.
///
/// # Safety
///
/// `info` is a live siginfo; `context` is the kernel's of a live delivery, or null.
pub(crate) unsafe fn run(
    r: &ThreadRecord,
    signal: Signal,
    entry: &'static Entry,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    let scoped = get(&r.scoped);
    let held = get(&r.held);
    let full = get(&r.full);
    let handlers = get(&r.handlers);
    let phase = get(&r.phase);
    let added = r.added.load(Ordering::Relaxed);
    let below = r.below.load(Ordering::Relaxed);
    let isolate = added != 0 || scoped | held | full != 0;
    // SAFETY: the caller vouches for `info`.
    let raised = policy::FAULTS.contains(signal) && unsafe { (*info).si_code } > 0;
    let deferred = phase & RELEASING != 0 && !entry.immediate() && !raised;

    // SIGNAL: a handler that lands between these sets aside what it finds and puts the same back.
    if !mutant!("handler-flushes-below") {
        r.added.store(0, Ordering::Relaxed);
    }
    r.below.store((below | added) & !entry.mask().with(signal).bits(), Ordering::Relaxed);
    put(&r.phase, 0);
    put(&r.handlers, handlers + 1);
    let waiting = waiting::pass_on(r);
    let mut place = None;
    if deferred {
        r.deferrals.fetch_add(1, Ordering::Relaxed);
        place = take_place(r, signal);
    }
    let captured_at = r.captured_at.load(Ordering::Relaxed);
    r.captured_at.store(0, Ordering::Relaxed);
    fence();

    if entry.one_shot() && !mutant!("one-shot-stays") {
        table::fire(signal, entry);
    }
    if table::masks_differ(signal) {
        sys::sigprocmask(How::Block, entry.mask().intersection(policy::BLOCKABLE));
    }
    if entry.no_defer() && !mutant!("no-defer-forgotten") && !entry.mask().contains(signal) && !blocked_below(context, signal) {
        sys::sigprocmask(How::Unblock, SigSet::from(signal));
    }
    let delivery = Delivery::new(signal, info, NonNull::new(context), deferred, place);
    let errno = sys::errno();
    call(entry, &delivery);
    sys::set_errno(errno);

    fence();
    if isolate {
        // A capture between putting `added` back and the return would add what is blocked only in this context, which is about
        // to end, and the code below would then unblock what the thread had blocked itself. So nothing is captured from here on.
        sys::sigprocmask(How::Block, policy::deferrable());
    }
    // The counters first: where the interrupted code was in no region nothing is captured after this, even if the handler leaked
    // a guard.
    put(&r.scoped, scoped);
    put(&r.held, held);
    put(&r.full, full);
    fence();
    put(&r.handlers, handlers);
    r.waiting.store(waiting, Ordering::Relaxed);
    put(&r.phase, phase);
    r.captured_at.store(captured_at, Ordering::Relaxed);
    r.below.store(below, Ordering::Relaxed);
    if !mutant!("handler-flushes-below") {
        r.added.store(added & !SLOT_WAITS, Ordering::Relaxed);
    }
    // SIGNAL: a sent fault, which is never blocked, may be kept before this line or after it: before, it is seen here; after, its
    // capture sets the bit.
    if r.slots.waiting() {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
        if !r.in_region() && added & !SLOT_WAITS == 0 {
            flush(r);
        }
    }
}

/// A panic in the handler aborts here: it must unwind neither into the kernel's frame nor into an exit that dispatches.
extern "C" fn call(entry: &Entry, delivery: &Delivery<'_>) {
    (entry.handler())(delivery);
}

/// Whether the code that the handler interrupts has the signal blocked.
fn blocked_below(context: *mut libc::ucontext_t, signal: Signal) -> bool {
    if context.is_null() {
        return false;
    }
    // SAFETY: a context that is not null is the kernel's; see `trampoline` for its mask.
    let mask = unsafe { *(&raw const (*context).uc_sigmask).cast::<u64>() };
    SigSet::from_bits(mask).contains(signal)
}
