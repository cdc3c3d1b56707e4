//! The table of managed handlers: per signal, the entry on top of a chain, and the kernel's disposition kept in step with it.
//!
//! Deliveries read it without a lock. Changes of one signal's handler exclude each other by a spin lock: between reading the kernel's
//! disposition and replacing it nobody else may do so, or a late call brings back what an earlier one has replaced. Whoever
//! holds the lock has every signal blocked that is no fault, so no handler of this thread can meet it held and no collector can
//! stop the thread inside; it is held for three system calls.

use core::hint;
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::bits::AtomicBits;
use crate::defer::policy::{self, IMMEDIATE};
use crate::defer::trampoline::trampoline;
use crate::defer::vfork;
use crate::handler::Handler;
use crate::handler::entry::{Below, Entry, FIRED, LIVE, REMOVED, SPENT, make};
use crate::signal::{LAST, Signal};
use crate::sigset::SigSet;
use crate::sys::{self, How};

const SIGNALS: usize = LAST as usize;

static TOP: [AtomicPtr<Entry>; SIGNALS] = [const { AtomicPtr::new(null_mut()) }; SIGNALS];

/// Per signal the process that changes it, or 0. In the child of a fork its parent's number, if another thread was at it: that
/// thread is not there, and its lock is free for the taking.
static LOCK: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];

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

/// Runs a change of this signal's handler alone.
fn locked<R>(signal: Signal, change: impl FnOnce() -> R) -> R {
    let before = sys::sigprocmask(How::Block, policy::BLOCKABLE.difference(policy::FAULTS));
    let lock = &LOCK[place(signal)];
    if mutant!("no-table-lock") {
        let result = change();
        sys::sigprocmask(How::Set, before);
        return result;
    }
    let process = sys::process_id();
    // A wait in a handler, but for a thread that no signal can stop and that is three system calls from its end.
    while let Err(holder) = lock.compare_exchange(0, process, Ordering::Acquire, Ordering::Relaxed) {
        if holder != process && lock.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            break;
        }
        hint::spin_loop();
    }
    let result = change();
    lock.store(0, Ordering::Release);
    sys::sigprocmask(How::Set, before);
    result
}

impl Entry {
    /// What the kernel should have while this entry is on top.
    fn effective(&'static self) -> Below {
        let mut entry = self;
        loop {
            match entry.below {
                _ if entry.is(LIVE) => return Below::Managed(entry),
                _ if !entry.is(REMOVED) => return Below::default_action(),
                Below::Managed(below) => entry = below,
                foreign @ Below::Foreign(_) => return foreign,
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum PushError {
    Refused,
    NoMemory,
}

/// The kernel's disposition.
fn kernel(signal: Signal) -> Option<libc::sigaction> {
    // SAFETY: nothing is installed.
    unsafe { sys::sigaction(signal.number(), None) }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == trampoline as *const () as usize
}

/// Whether the kernel calls the trampoline for `signal`.
pub(crate) fn installed(signal: Signal) -> bool {
    kernel(signal).is_some_and(|action| is_ours(&action))
}

/// Puts a handler on top.
pub(crate) fn push(signal: Signal, spec: Handler) -> Result<&'static Entry, PushError> {
    vfork::prepare();
    locked(signal, || {
        let action = kernel(signal).ok_or(PushError::Refused)?;
        // Where the kernel calls us, what is there is what a delivery would find, whatever else the chain remembers.
        let (below, under) = match current(signal) {
            Some(entry) if is_ours(&action) => (Below::Managed(entry), None),
            entry => (Below::Foreign(action), entry.filter(|entry| entry.is(LIVE))),
        };
        let made = make(signal, &spec, below, under).ok_or(PushError::NoMemory)?;
        if made.masks_differ {
            MASKS_DIFFER.fetch_or(SigSet::from(signal).bits(), Ordering::AcqRel);
        }
        set_top(signal, made.entry);
        tell_kernel(signal, Below::Managed(made.entry));
        Ok(made.entry)
    })
}

/// Takes a handler away and restores what was below. `false` when it is not the current one, or somebody else's `sigaction` has
/// replaced it.
pub(crate) fn remove(signal: Signal, entry: &'static Entry) -> bool {
    locked(signal, || {
        if entry.is(FIRED) {
            entry.set(SPENT);
            return true;
        }
        if !current(signal).is_some_and(|current| ptr::eq(current, entry)) || !installed(signal) {
            return false;
        }
        entry.set(REMOVED);
        let below = entry.effective();
        // Where nothing of ours is below, the entry stays on top: a trampoline that another thread has entered still finds its
        // handler.
        set_top(signal, if let Below::Managed(below) = below { below } else { entry });
        tell_kernel(signal, below);
        true
    })
}

/// A one-shot entry is about to run: from now on the disposition is the default, as `SA_RESETHAND` has it.
///
/// Two threads may both get here, or one may come back because somebody saved and restored our disposition: each runs the handler,
/// and the disposition becomes the default each time.
pub(crate) fn fire(signal: Signal, entry: &'static Entry) {
    locked(signal, || {
        if entry.is(LIVE) {
            entry.set(FIRED);
        }
        if current(signal).is_some_and(|current| ptr::eq(current, entry)) && installed(signal) {
            tell_kernel(signal, Below::default_action());
        }
    });
}

/// Under the lock: makes the kernel have what the table says.
fn tell_kernel(signal: Signal, effective: Below) {
    let bit = SigSet::from(signal).bits();
    let action = match effective {
        Below::Managed(entry) => kernel_action(signal, &entry.spec),
        Below::Foreign(action) => action,
    };
    if matches!(effective, Below::Managed(entry) if entry.immediate()) {
        IMMEDIATE.fetch_or(bit, Ordering::Relaxed);
    } else {
        IMMEDIATE.fetch_and(!bit, Ordering::Relaxed);
    }
    // SAFETY: the trampoline is made for any instruction, and the handler's author vouched for it in `install`; a foreign
    // disposition was there before, and whoever installed it vouched for it.
    unsafe { sys::sigaction(signal.number(), Some(&action)) };
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
