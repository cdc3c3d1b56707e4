//! The table of managed handlers: per signal, the entry on top of a chain, and the kernel's disposition kept in step with it.
//!
//! Lock-free, because a handler may install and remove handlers, and because no thread may wait for another that a collector has
//! stopped.
//!
//! The protocol: whoever changes the table, by a new top or by an entry's state, calls [`settle`] afterwards. That computes what the
//! kernel should have from the table, tells it, and looks again; if the table has changed in between, it starts over. So
//! whichever thread makes the last call to the kernel makes it with the table's last word. Between a change and the end of its
//! `settle` the kernel may still have the mask of another entry: [`moving`] says so, and the trampoline then blocks the handler's
//! mask itself.

use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::defer::policy::{self, IMMEDIATE};
use crate::defer::trampoline::trampoline;
use crate::handler::Handler;
use crate::handler::entry::{Below, Entry, FIRED, LIVE, NEW, REMOVED, make};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys;

/// Per signal the top entry, with a count of changes in the upper 16 bits, which no user address has: an entry may be used again,
/// and a comparison of the address alone would then overlook what happened in between.
static TOP: [AtomicPtr<Entry>; 64] = [const { AtomicPtr::new(null_mut()) }; 64];
static MOVING: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
const ADDRESS_BITS: u32 = 48;

#[derive(Copy, Clone, PartialEq, Eq)]
struct Top(*mut Entry);

impl Top {
    fn of(signal: Signal) -> Top {
        Top(TOP[signal.number() as usize - 1].load(Ordering::Acquire))
    }

    fn entry(self) -> Option<&'static Entry> {
        // SAFETY: entries are published whole (release) and never freed.
        unsafe { self.0.map_addr(|address| address & ((1 << ADDRESS_BITS) - 1)).as_ref() }
    }

    /// Makes `entry` the top, if nothing has changed since `self` was read.
    fn replace(self, signal: Signal, entry: &'static Entry) -> bool {
        let changes = (self.0.addr() >> ADDRESS_BITS).wrapping_add(1);
        let tagged = ptr::from_ref(entry).cast_mut().map_addr(|address| address | changes << ADDRESS_BITS);
        TOP[signal.number() as usize - 1].compare_exchange(self.0, tagged, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The entry whose handler a delivery of `signal` goes to.
#[inline]
pub(crate) fn current(signal: Signal) -> Option<&'static Entry> {
    let top = Top::of(signal).entry()?;
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

/// Whether a change of this signal's handler is not finished.
#[inline]
pub(crate) fn moving(signal: Signal) -> bool {
    MOVING[signal.number() as usize - 1].load(Ordering::Acquire) != 0
}

/// Runs a change of the table.
fn change<R>(signal: Signal, body: impl FnOnce() -> R) -> R {
    let moving = &MOVING[signal.number() as usize - 1];
    moving.fetch_add(1, Ordering::AcqRel);
    let result = body();
    moving.fetch_sub(1, Ordering::AcqRel);
    result
}

impl Entry {
    /// What the kernel should have while this entry is on top.
    fn effective(&'static self) -> Below {
        let mut entry = self;
        loop {
            if entry.is(FIRED) {
                return Below::default_action();
            }
            if !entry.is(REMOVED) {
                return Below::Managed(entry);
            }
            match entry.below {
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
    loop {
        let top = Top::of(signal);
        let effective = top.entry().map(Entry::effective);
        if matches!(effective, Some(Below::Managed(entry)) if entry.is(NEW)) {
            // Another thread has published and may not have told the kernel: then what the kernel says below would not be what is
            // there.
            settle(signal);
        }
        let action = kernel(signal).ok_or(PushError::Refused)?;
        let below = match effective {
            Some(effective) if is_ours(&action) => effective,
            _ => Below::Foreign(action),
        };
        let under = match below {
            Below::Managed(_) => None,
            Below::Foreign(_) => current(signal).filter(|entry| entry.is(LIVE)),
        };
        let entry = make(signal, &spec, below, under).ok_or(PushError::NoMemory)?;
        let pushed = change(signal, || {
            let pushed = top.replace(signal, entry);
            if pushed {
                settle(signal);
            } else {
                entry.give_back();
            }
            pushed
        });
        if pushed {
            return Ok(entry);
        }
    }
}

/// Takes a handler away and restores what was below. `false` when it is not the current one, or somebody else's `sigaction` has
/// replaced it.
pub(crate) fn remove(signal: Signal, entry: &'static Entry) -> bool {
    loop {
        if entry.is(FIRED) {
            return true;
        }
        let top = Top::of(signal);
        if !current(signal).is_some_and(|current| ptr::eq(current, entry)) || !installed(signal) {
            return false;
        }
        let removed = change(signal, || {
            // Removed entries above it, if any, are forgotten.
            if !top.replace(signal, entry) {
                return false;
            }
            let removed = entry.change(LIVE, REMOVED) || entry.change(NEW, REMOVED);
            settle(signal);
            removed
        });
        if removed {
            return true;
        }
    }
}

/// A one-shot entry is about to run: from now on the disposition is the default, as `SA_RESETHAND` has it.
///
/// Two threads may both get here, or one may come back because somebody saved and restored our disposition: each runs the handler,
/// and the disposition becomes the default each time.
pub(crate) fn fire(signal: Signal, entry: &Entry) {
    change(signal, || {
        let _ = entry.change(LIVE, FIRED) || entry.change(NEW, FIRED);
        if installed(signal) {
            settle(signal);
        }
    });
}

/// Brings the kernel in step with the table.
fn settle(signal: Signal) {
    let bit = SigSet::from(signal).bits();
    loop {
        let top = Top::of(signal);
        let Some(effective) = top.entry().map(Entry::effective) else { return };
        if matches!(effective, Below::Managed(entry) if entry.immediate()) {
            IMMEDIATE.fetch_or(bit, Ordering::Relaxed);
        } else {
            IMMEDIATE.fetch_and(!bit, Ordering::Relaxed);
        }
        let action = match effective {
            Below::Managed(entry) => kernel_action(signal, &entry.spec),
            Below::Foreign(action) => action,
        };
        // SAFETY: the trampoline is made for any instruction, and the handler's author vouched for it in `install`; a foreign
        // disposition was there before, and whoever installed it vouched for it.
        unsafe { sys::sigaction(signal.number(), Some(&action)) };
        if let Below::Managed(entry) = effective {
            entry.change(NEW, LIVE);
        }
        if Top::of(signal) == top && top.entry().is_some_and(|entry| entry.effective().same(&effective)) {
            return;
        }
    }
}

/// `SA_NODEFER` and `SA_RESETHAND` never reach the kernel: a requeued signal would re-enter its own trampoline without end, or
/// meet the default action. The trampoline emulates them.
fn kernel_action(signal: Signal, spec: &Handler) -> libc::sigaction {
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = trampoline as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    for (wanted, flag) in [
        (spec.on_stack, libc::SA_ONSTACK),
        (spec.restart, libc::SA_RESTART),
        (spec.no_cld_stop, libc::SA_NOCLDSTOP),
        (spec.no_cld_wait, libc::SA_NOCLDWAIT),
    ] {
        if wanted {
            action.sa_flags |= flag;
        }
    }
    let blocked = spec.mask.with(signal).intersection(policy::BLOCKABLE);
    // SAFETY: libc's set begins with the kernel's eight bytes and is longer.
    unsafe { (&raw mut action.sa_mask).cast::<u64>().write(blocked.bits()) };
    action
}
