//! The trampoline: what the kernel calls for every managed signal.
//!
//! Runs as a signal handler, at any instruction of the thread, also of another trampoline. The kernel has blocked the signal itself
//! and the handler's `sa_mask`, always (`SA_NODEFER` is emulated below): so a trampoline is interrupted by its own number only where a
//! handler that nobody manages has interrupted it, and unblocks that.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::allocator;
use crate::defer::capture::{capture, frame_mask, hold_back, take_place};
use crate::defer::flush::{SLOT_WAITS, announced, flush};
use crate::defer::order::{Received, receive};
use crate::defer::policy::{self, Arrival, Verdict};
use crate::handler::entry::Entry;
use crate::handler::{Delivery, forward, table};
use crate::mask;
use crate::record::{ADMITTING, RELEASING, ThreadRecord, depth, fence, get, put, record, set_depth};
use crate::siginfo::is_raised;
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
    if let Some(call) = forward::passed_on(r, signal, info) {
        return call.to_next();
    }
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: the kernel's siginfo lives as long as its frame.
    let siginfo = unsafe { &*info };
    // SAFETY: the kernel's context.
    let mask = unsafe { *frame_mask(context) };
    // SAFETY: the kernel's context.
    let in_region = r.in_region() || unsafe { allocator::interrupted(r, context) };
    let admitting = get(&r.phase) & ADMITTING != 0;
    let arrival = Arrival {
        signal,
        code: siginfo.si_code,
        // Only asked where it matters: it costs a system call.
        from_self: in_region && signal == Signal::ABRT && siginfo.si_code == libc::SI_TKILL && sender(siginfo) == sys::process_id(),
        in_region,
        immediate: entry.immediate(),
        admitted: admitting || SigSet::from_bits(mask).contains(signal),
    };
    match policy::decide(arrival) {
        Verdict::Run => {
            match receive(r, signal, siginfo) {
                // SAFETY: info and context are the kernel's.
                Received::Itself => unsafe { run(r, signal, entry, info, context, SigSet::from_bits(mask)) },
                // SAFETY: the kept siginfo is a whole one, the context is the kernel's.
                Received::Instead(mut kept) => unsafe { run(r, signal, entry, kept.info_mut(), context, SigSet::from_bits(mask)) },
                Received::Nothing => {}
            }
        }
        // SAFETY: the kernel's context.
        Verdict::Requeue => unsafe { capture(r, signal, siginfo, context, false) },
        // SAFETY: the kernel's context.
        Verdict::Keep => unsafe { capture(r, signal, siginfo, context, true) },
    }
}

fn sender(info: &libc::siginfo_t) -> u32 {
    // SAFETY: asked of SI_TKILL's siginfo alone, which carries it.
    unsafe { info.si_pid() as u32 }
}

/// Calls the handler, and leaves the record as it was found: a handler's regions never flush for the code that it interrupts, and
/// its changes to the mask die with it, as the kernel has it. `mask` is what the kernel has blocked in the interrupted code.
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
    mask: SigSet,
) {
    let scoped = depth(&r.scoped);
    let held = depth(&r.held);
    let full = depth(&r.full);
    let handlers = get(&r.handlers);
    let phase = get(&r.phase);
    let below = r.below.load(Ordering::Relaxed);
    let releasing = r.releasing.load(Ordering::Relaxed);
    let of_entry = entry.mask().with(signal).bits();
    let held_below = |added| (below | added | announced(releasing, mask.bits())) & !of_entry;
    // SAFETY: a context that is not null is the kernel's.
    let allocating = !context.is_null() && unsafe { allocator::interrupted(r, context) };
    let over_region = scoped | held | full != 0 || allocating;
    // SAFETY: the caller vouches for `info`.
    let raised = is_raised(signal, unsafe { (*info).si_code });
    let deferred = phase & RELEASING != 0 && !entry.immediate() && !raised;

    // SIGNAL: a handler that lands between these sets aside what it finds and puts the same back. `below` first: what is held back is
    // in one of the three words at any time.
    if !mutant!("below-forgotten") {
        r.below.store(held_below(r.added.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
    let added = if mutant!("handler-flushes-below") { r.added.load(Ordering::Relaxed) } else { r.added.swap(0, Ordering::Relaxed) };
    // SIGNAL: a capture between the two, in a region, has blocked more in this frame.
    if !mutant!("below-forgotten") {
        r.below.store(held_below(added), Ordering::Relaxed);
    }
    r.releasing.store(0, Ordering::Relaxed);
    if full != 0 && phase & ADMITTING != 0 && !mutant!("admitted-in-full-region") && mask::temporary_in_force() {
        // So that of the full-mask region below is not: such a region of the handler's has to block.
        set_depth(&r.full, 0);
    }
    put(&r.phase, 0);
    put(&r.handlers, handlers + 1);
    let waiting = waiting::pass_on(r);
    if deferred {
        r.deferrals.fetch_add(1, Ordering::Relaxed);
    }
    // Also where a temporary mask lets in what the region had captured: the next of its number arrived elsewhere.
    let leaves_place = raised || (!deferred && mutant!("admitted-leaves-place"));
    let place = if leaves_place { None } else { take_place(r, signal).filter(|_| deferred) };
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
    // SAFETY: a live siginfo is nowhere null; the rest is as the caller vouches.
    let delivery = unsafe { Delivery::new(signal, entry, NonNull::new_unchecked(info), NonNull::new(context), deferred, place) };
    let errno = sys::errno();
    call(entry, &delivery);
    if !mutant!("errno-spoiled") {
        sys::set_errno(errno);
    }

    fence();
    // Under a temporary mask everything is blocked already in the code that gave it, which this frame may lie on by way of another;
    // what this one's mask shows is not the thread's.
    let holds_back = over_region && phase & ADMITTING == 0 && !context.is_null();
    if holds_back && !mutant!("below-until-return") {
        // SIGNAL: up to its return the frame is about to have everything blocked, for the region. Of that only what the region's code
        // has blocked itself is the thread's, whatever the handler has changed.
        r.below.store(below | added | !mask.bits(), Ordering::Relaxed);
    }
    if over_region && !mutant!("handler-returns-open") {
        // A capture between putting `added` back and the return would add what it blocks in this context, which is about to end. If
        // the handler has unblocked what the thread had blocked itself, the region's exit would then unblock it for good. So nothing
        // is captured from here on. Over code in no region nothing is, once the counters are back.
        sys::sigprocmask(How::Block, policy::deferrable());
    }
    // The counters first: where the interrupted code was in no region nothing is captured after this, even if the handler leaked
    // a guard.
    set_depth(&r.scoped, scoped);
    if !mutant!("guards-leak") {
        set_depth(&r.held, held);
    }
    set_depth(&r.full, full);
    fence();
    put(&r.handlers, handlers);
    r.waiting.store(waiting, Ordering::Relaxed);
    put(&r.phase, phase);
    r.captured_at.store(captured_at, Ordering::Relaxed);
    // SIGNAL: `below` last, as above.
    if mutant!("below-restored-first") {
        r.below.store(below, Ordering::Relaxed);
    }
    if !mutant!("handler-flushes-below") {
        r.added.store(added & !SLOT_WAITS, Ordering::Relaxed);
    }
    // SIGNAL: a sent fault, which is never blocked, may be kept before this line or after it: before, it is seen here; after, its
    // capture sets the bit.
    if r.slots.waiting() {
        r.added.fetch_or(SLOT_WAITS, Ordering::Relaxed);
        if !r.in_region() && !allocating && added & !SLOT_WAITS == 0 {
            flush(r);
        }
    }
    if holds_back {
        // What arrived in the handler has been captured there and waits in the kernel, as it should for the region below. Let in now,
        // each would be captured again, and a handler that comes with them would see them blocked.
        // SAFETY: a context that is not null is the kernel's.
        unsafe { hold_back(sys::process_id(), policy::deferrable(), context) };
    }
    r.releasing.store(releasing, Ordering::Relaxed);
    r.below.store(below, Ordering::Relaxed);
}

/// A panic in the handler aborts here: it must unwind neither into the kernel's frame nor into an exit that dispatches.
pub(crate) extern "C" fn call(entry: &Entry, delivery: &Delivery<'_>) {
    (entry.handler())(delivery);
}

/// Whether the code that the handler interrupts has the signal blocked.
fn blocked_below(context: *mut libc::ucontext_t, signal: Signal) -> bool {
    if context.is_null() {
        return false;
    }
    // SAFETY: a context that is not null is the kernel's.
    SigSet::from_bits(unsafe { *frame_mask(context) }).contains(signal)
}
