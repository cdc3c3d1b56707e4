//! The table of managed handlers: per signal, the entry on top of a chain, and the kernel's disposition kept in step with it.
//!
//! Deliveries read it without a lock; changes of one signal's handler exclude each other ([`locked`]) and are three system calls long.
//! The table is written first and the kernel told last, so that a delivery finds its handler; what the kernel refuses is taken back.

use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::bits::AtomicBits;
use crate::defer::policy::{self, IMMEDIATE};
use crate::defer::trampoline::trampoline;
use crate::defer::vfork;
use crate::handler::Handler;
use crate::handler::entry::{Below, Entry, FIRED, LIVE, REMOVED, SPENT, make};
use crate::handler::lock::{Busy, locked};
use crate::signal::{LAST, Signal};
use crate::sigset::SigSet;
use crate::sys::{self, How};

const SIGNALS: usize = LAST as usize;

static TOP: [AtomicPtr<Entry>; SIGNALS] = [const { AtomicPtr::new(null_mut()) }; SIGNALS];

/// Signals that have had handlers with different masks: the kernel may have built a frame with the mask of one, and the trampoline
/// then finds another. It blocks the handler's mask itself.
static MASKS_DIFFER: AtomicBits = AtomicBits::new(0);

fn place(signal: Signal) -> usize {
    signal.number() as usize - 1
}

fn top(signal: Signal) -> Option<&'static Entry> {
    // SAFETY: entries are published whole (release) and never freed.
    unsafe { TOP[place(signal)].load(Ordering::Acquire).as_ref() }
}

fn set_top(signal: Signal, entry: &'static Entry) {
    TOP[place(signal)].store(ptr::from_ref(entry).cast_mut(), Ordering::Release);
}

/// The entry whose handler a delivery of `signal` goes to.
#[inline]
pub(crate) fn current(signal: Signal) -> Option<&'static Entry> {
    let top = top(signal)?;
    if !top.is(REMOVED) {
        return Some(top);
    }
    let next = |entry: &'static Entry| match entry.below {
        Below::Managed(below) => Some(below),
        Below::Foreign(_) => entry.under,
    };
    let live = core::iter::successors(next(top), |entry| next(entry)).find(|entry| !entry.is(REMOVED));
    // A trampoline that was entered before the last handler was removed: the kernel had already decided to call it.
    live.or(Some(top))
}

/// Whether the frame of a delivery may have been built with another handler's mask.
#[inline]
pub(crate) fn masks_differ(signal: Signal) -> bool {
    !mutant!("mask-of-another") && MASKS_DIFFER.load(Ordering::Acquire) & SigSet::from(signal).bits() != 0
}

/// Why a change did not happen.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ChangeError {
    /// The system did.
    Refused,
    NoMemory,
    /// See [`Busy`].
    Busy,
    /// To be adopted: there is none.
    NoHandler,
    /// To be adopted: it is ours.
    Managed,
    /// To be removed: it is not the current one.
    Replaced,
}

impl From<Busy> for ChangeError {
    fn from(_: Busy) -> ChangeError {
        ChangeError::Busy
    }
}

/// The kernel's disposition.
fn kernel(signal: Signal) -> Option<libc::sigaction> {
    let action = sys::action(signal.number());
    if mutant!("no-table-lock") {
        // SAFETY: the call takes nothing. It lets another thread come in between.
        unsafe { libc::sched_yield() };
    }
    action
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == trampoline as *const () as usize
}

/// Whether the kernel calls the trampoline for `signal`.
pub(crate) fn installed(signal: Signal) -> bool {
    kernel(signal).is_some_and(|action| is_ours(&action))
}

/// Puts a handler on top.
pub(crate) fn push(signal: Signal, spec: Handler) -> Result<&'static Entry, ChangeError> {
    vfork::prepare();
    locked(signal, || {
        let action = kernel(signal).ok_or(ChangeError::Refused)?;
        // Where the kernel calls us, what is there is what a delivery would find, whatever else the chain remembers.
        let (below, under) = match current(signal) {
            Some(entry) if is_ours(&action) => (Below::Managed(entry), None),
            entry => (Below::Foreign(action), entry.filter(|entry| entry.is(LIVE))),
        };
        place_on_top(signal, spec, below, under)
    })?
}

/// Puts an entry on top that stands for the foreign handler that is there.
pub(crate) fn adopt(signal: Signal) -> Result<&'static Entry, ChangeError> {
    vfork::prepare();
    locked(signal, || {
        let action = kernel(signal).ok_or(ChangeError::Refused)?;
        if matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
            return Err(ChangeError::NoHandler);
        }
        if is_ours(&action) {
            return Err(ChangeError::Managed);
        }
        // A handler that was adopted and then installed again by its owner is not below itself.
        let another = |entry: &&Entry| !(entry.adopted() && entry.calls(action.sa_sigaction));
        let candidates = core::iter::successors(current(signal), |entry| entry.under);
        let under = candidates.filter(another).find(|entry| entry.is(LIVE));
        place_on_top(signal, Handler::standing_for(&action), Below::Foreign(action), under)
    })?
}

/// Under the lock.
fn place_on_top(signal: Signal, spec: Handler, below: Below, under: Option<&'static Entry>) -> Result<&'static Entry, ChangeError> {
    let made = make(signal, &spec, below, under).ok_or(ChangeError::NoMemory)?;
    if made.masks_differ {
        MASKS_DIFFER.fetch_or(SigSet::from(signal).bits(), Ordering::AcqRel);
    }
    let before = TOP[place(signal)].load(Ordering::Relaxed);
    set_top(signal, made.entry);
    if tell_kernel(signal, Below::Managed(made.entry)) || mutant!("refusal-unnoticed") {
        return Ok(made.entry);
    }
    made.entry.set(REMOVED);
    TOP[place(signal)].store(before, Ordering::Release);
    Err(ChangeError::Refused)
}

/// Takes a handler away and restores what was below.
pub(crate) fn remove(signal: Signal, entry: &'static Entry) -> Result<(), ChangeError> {
    locked(signal, || {
        if entry.is(FIRED) {
            entry.set(SPENT);
            return Ok(());
        }
        let action = kernel(signal).ok_or(ChangeError::Refused)?;
        if !current(signal).is_some_and(|current| ptr::eq(current, entry)) || !is_ours(&action) {
            return Err(ChangeError::Replaced);
        }
        entry.set(REMOVED);
        let below = entry.effective();
        // Where nothing of ours is below, the entry stays on top: a trampoline that another thread has entered still finds its
        // handler.
        set_top(signal, if let Below::Managed(below) = below { below } else { entry });
        if tell_kernel(signal, below) || mutant!("refusal-unnoticed") {
            return Ok(());
        }
        entry.set(LIVE);
        set_top(signal, entry);
        Err(ChangeError::Refused)
    })?
}

/// A one-shot entry is about to run: from now on the disposition is the default, as `SA_RESETHAND` has it. Whether it runs for the
/// first time.
///
/// In the trampoline two threads may both get here, or one may come back because somebody saved and restored our disposition: each
/// runs the handler, and the disposition becomes the default each time.
pub(crate) fn fire(signal: Signal, entry: &'static Entry) -> bool {
    let first = entry.fire();
    // Not while this very thread changes the handler (a one-shot for a fault of its own): then the change has the last word.
    let _: Result<(), Busy> = locked(signal, || {
        if current(signal).is_some_and(|current| ptr::eq(current, entry)) && installed(signal) {
            tell_kernel(signal, Below::default_action());
        }
    });
    first
}

/// Lets this thread have the default action of a stop: the process stops here, and goes on here after SIGCONT. `false` when the
/// system refuses.
pub(crate) fn stop(signal: Signal) -> bool {
    let stopped = locked(signal, || {
        let Some(before) = kernel(signal) else { return false };
        let Below::Foreign(default) = Below::default_action() else { return false };
        // SAFETY: the default action is no handler.
        if !unsafe { sys::restore_action(signal.number(), &default) } {
            return false;
        }
        sys::send_to_self(signal.number());
        // SIGNAL: the lock is held while the process is stopped, and so is every thread that could wait for it. No handler can run
        // here: the one signal that is let in has none.
        sys::sigprocmask(How::Unblock, SigSet::from(signal));
        sys::sigprocmask(How::Block, SigSet::from(signal));
        // SAFETY: it was there a moment ago.
        unsafe { sys::restore_action(signal.number(), &before) }
    });
    stopped.unwrap_or(false)
}

/// Under the lock: makes the kernel have what the table says. `false` when it refuses.
fn tell_kernel(signal: Signal, effective: Below) -> bool {
    let bit = SigSet::from(signal).bits();
    let before = IMMEDIATE.load(Ordering::Relaxed) & bit;
    if matches!(effective, Below::Managed(entry) if entry.immediate()) {
        IMMEDIATE.fetch_or(bit, Ordering::Relaxed);
    } else {
        IMMEDIATE.fetch_and(!bit, Ordering::Relaxed);
    }
    let done = match effective {
        // SAFETY: the trampoline is made for any instruction, and the handler's author vouched for it in `install`.
        Below::Managed(entry) => unsafe { sys::sigaction(signal.number(), Some(&kernel_action(signal, &entry.spec))) }.is_some(),
        // SAFETY: a foreign disposition was there before, and whoever installed it vouched for it.
        Below::Foreign(action) => unsafe { sys::restore_action(signal.number(), &action) },
    };
    if !done {
        IMMEDIATE.fetch_and(!bit, Ordering::Relaxed);
        IMMEDIATE.fetch_or(before, Ordering::Relaxed);
    }
    done
}

/// `SA_NODEFER` and `SA_RESETHAND` never reach the kernel: a requeued signal would re-enter its own trampoline without end, or
/// meet the default action. The trampoline emulates them. Where nothing is requeued the kernel gets the first; the second stays
/// ours, for the table has to know when a handler is gone.
fn kernel_action(signal: Signal, spec: &Handler) -> libc::sigaction {
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = trampoline as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    let nested = (cfg!(not(deferral)) || mutant!("no-defer-in-kernel")) && spec.no_defer;
    for (wanted, flag) in [
        (spec.on_stack && !mutant!("stack-not-asked-for"), libc::SA_ONSTACK),
        (spec.restart, libc::SA_RESTART),
        (spec.no_cld_stop, libc::SA_NOCLDSTOP),
        (spec.no_cld_wait, libc::SA_NOCLDWAIT),
        (nested, libc::SA_NODEFER),
        (spec.reset_hand && mutant!("reset-hand-in-kernel"), libc::SA_RESETHAND),
    ] {
        if wanted {
            action.sa_flags |= flag;
        }
    }
    let blocked = if nested { spec.mask } else { spec.mask.with(signal) }.intersection(policy::BLOCKABLE);
    action.sa_mask = sys::to_sigset(blocked);
    action
}
