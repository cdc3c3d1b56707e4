//! No deferral: what takes the place of the other modules here where a signal cannot be given back to the kernel as it came.
//!
//! The kernel's entry runs the handler at once. A region holds signals back by the kernel's mask alone (`FullSyscall`, or DragonFly's own
//! block), so that in one only a fault or an immediate handler gets here. Nothing is ever captured, so the slots are empty. The entry
//! runs as a signal handler, at any instruction of the thread; the flush as the last thing that an exit does.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::defer::policy;
use crate::handler::entry::Entry;
use crate::handler::{Delivery, forward, table};
use crate::mask;
use crate::record::{ADMITTING, ThreadRecord, depth, fence, get, put, record, set_depth};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys::{self, How};
use crate::waiting;

/// The kernel's entry. It leaves the record as it was found: a handler's regions never unblock for the code that it interrupts, and
/// its changes to the mask die with it, as the kernel has it.
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
    let errno = sys::errno();
    let regions = [&r.scoped, &r.held, &r.full];
    let found = regions.map(depth);
    let (handlers, phase) = (get(&r.handlers), get(&r.phase));
    let added = r.added.load(Ordering::Relaxed);
    let below = r.below.load(Ordering::Relaxed);

    // SIGNAL: a handler that lands between these sets aside what it finds and puts the same back.
    r.added.store(0, Ordering::Relaxed);
    r.below.store((below | added) & !entry.mask().with(signal).bits(), Ordering::Relaxed);
    if phase & ADMITTING != 0 && mask::temporary_in_force() {
        // Let in by a temporary mask: the region below blocks nothing here, so a region of this handler has to.
        set_depth(&r.full, 0);
    }
    put(&r.phase, 0);
    put(&r.handlers, handlers + 1);
    let waiting = waiting::pass_on(r);
    fence();

    if entry.one_shot() {
        table::fire(signal, entry);
    }
    if table::masks_differ(signal) {
        sys::sigprocmask(How::Block, entry.mask().intersection(policy::BLOCKABLE));
    }
    // SAFETY: the kernel's siginfo, which is nowhere null, and context live as long as its frame.
    let delivery = unsafe { Delivery::new(signal, entry, NonNull::new_unchecked(info), NonNull::new(context.cast()), false, None) };
    call(entry, &delivery);

    fence();
    for (counter, value) in regions.into_iter().zip(found) {
        set_depth(counter, value);
    }
    put(&r.phase, phase);
    put(&r.handlers, handlers);
    r.waiting.store(waiting, Ordering::Relaxed);
    r.below.store(below, Ordering::Relaxed);
    r.added.store(added, Ordering::Relaxed);
    sys::set_errno(errno);
}

/// A panic in the handler aborts here: it must not unwind into the kernel's frame.
pub(crate) extern "C" fn call(entry: &Entry, delivery: &Delivery<'_>) {
    (entry.handler())(delivery);
}

/// The slow path of every exit, taken when `added` is not zero: unblocks what the regions have blocked if this was the outermost one.
/// The kernel delivers what waits before the unblocking call returns.
#[cold]
#[inline(never)]
pub(crate) fn flush_if_outermost() {
    let r = record();
    if r.in_region() {
        return;
    }
    // SIGNAL: from the swap to the call nothing in the record knows that the signals are blocked. An immediate handler or a fault's
    // that lands here finds them blocked like a user's, and leaves them so.
    let ours = SigSet::from_bits(r.added.swap(0, Ordering::Relaxed));
    if !ours.is_empty() {
        sys::sigprocmask(How::Unblock, ours);
    }
}

/// A temporary mask lets in nothing that only we keep.
pub(crate) fn release_for(_: &ThreadRecord, _: SigSet) -> bool {
    false
}

/// To be called by a thread that is about to exit, possibly out of a region: it runs no handler any more, since every signal is blocked
/// from here on, also when a region ends after this. (Where regions capture signals, this is also where they are sent on to the process.)
///
/// Threads that this crate has created do it themselves.
///
/// Async-signal safety: may be called from a handler. Cost: one system call.
pub fn leave_thread() {
    // As the thread's own mask: what regions have blocked is not theirs to unblock any more.
    mask::block(policy::BLOCKABLE.difference(policy::FAULTS));
}

/// A captured signal: there are none.
pub(crate) enum Captured {}

impl Captured {
    pub(crate) fn info(&self) -> &libc::siginfo_t {
        match *self {}
    }
}

/// What the kernel has handed out.
pub(crate) enum Received {
    /// The signal itself, always.
    Itself,
    #[allow(dead_code, reason = "for those who ask in the same words where there is deferral")]
    Instead(Captured),
    #[allow(dead_code, reason = "as above")]
    Nothing,
}

pub(crate) fn receive(_: &ThreadRecord, _: Signal, _: &libc::siginfo_t) -> Received {
    Received::Itself
}

/// There are no tokens.
pub(crate) fn find_lost_tokens(_: &ThreadRecord) {}

/// What waits, with nothing else to look at.
pub(crate) fn settle(_: &ThreadRecord) -> SigSet {
    sys::sigpending()
}

/// Nothing is kept that a child which shares memory could take.
pub(crate) fn prepare() {}

/// Nobody is taken for the child of a `vfork`.
pub(crate) fn is_child(_: u32) -> bool {
    false
}

/// The slots of the thread record: none, and so empty.
#[derive(Debug)]
pub(crate) struct Slots([u64; 0]);

impl Slots {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn waiting_signals(&self) -> SigSet {
        SigSet::EMPTY
    }

    pub(crate) fn promised(&self) -> SigSet {
        SigSet::EMPTY
    }

    pub(crate) fn take_waiting(&self, _: impl Fn(Signal) -> bool) -> Option<(Signal, Captured)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Handler;
    use crate::region::{FullSyscall, critical_with};
    use core::sync::atomic::AtomicBool;

    /// Between the store of its counter and the flush an exit has signals blocked that only `added` knows of. A handler that lands
    /// there has regions of its own, whose exits must leave them alone.
    #[test]
    fn a_handler_does_not_flush_for_the_code_below() {
        static STILL_BLOCKED: AtomicBool = AtomicBool::new(false);
        fn immediate(_: &Delivery<'_>) {
            critical_with::<FullSyscall, _>(|_| ());
            STILL_BLOCKED.store(sys::sigprocmask(How::Block, SigSet::EMPTY).contains(Signal::TTOU), Ordering::Relaxed);
        }
        // SAFETY: the handler touches a region of its own.
        let registration = unsafe { Handler::new(immediate).immediate(true).install(Signal::WINCH).unwrap() };
        let r = record();
        let ours = SigSet::from(Signal::TTOU);
        sys::sigprocmask(How::Block, ours);
        r.added.store(ours.bits(), Ordering::Relaxed);
        // SAFETY: the signal has a handler.
        unsafe { libc::raise(libc::SIGWINCH) };
        assert!(STILL_BLOCKED.load(Ordering::Relaxed));
        assert_eq!(r.added.load(Ordering::Relaxed), ours.bits());
        flush_if_outermost();
        assert!(!sys::sigprocmask(How::Block, SigSet::EMPTY).contains(Signal::TTOU));
        registration.remove().unwrap();
    }
}
