//! The table of managed handlers: per signal, the entry on top of a chain.
//!
//! Lock-free, because a handler may install and remove handlers, and because no thread may wait for another that a collector has
//! stopped. An entry is immutable but for its state and is never freed: a trampoline on another thread may be about to call it.
//! What is never freed is bounded by being found again: the same handler with the same options over the same one below is the
//! same entry.
//!
//! The protocol: an entry is published first, then the kernel is told. Whoever has told the kernel looks at the table again, and if
//! another entry is on top by now, tells the kernel of that one; so the last call of all is for the top.

use core::mem::{align_of, size_of};
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use crate::defer::policy::{self, IMMEDIATE};
use crate::defer::trampoline::trampoline;
use crate::handler::{Handler, HandlerFn};
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::sys;

/// One registration. States: `INSTALLING` (published, the kernel may not know yet), `INSTALLED`, `REMOVED` (kept for trampolines
/// that are under way, skipped by everyone else).
#[derive(Debug)]
pub(crate) struct Entry {
    spec: Handler,
    signal: Signal,
    state: AtomicU32,
    below: Below,
    /// The entry allocated before this one, for finding equal ones.
    older: *const Entry,
}

// SAFETY: an entry is immutable after publication but for its atomic state; its pointers are to entries, which live for ever.
unsafe impl Sync for Entry {}

const INSTALLING: u32 = 0;
const INSTALLED: u32 = 1;
const REMOVED: u32 = 2;

/// What a removal restores.
#[derive(Copy, Clone)]
enum Below {
    /// A disposition that is not ours.
    Foreign(libc::sigaction),
    /// An entry of ours.
    Managed(&'static Entry),
}

impl core::fmt::Debug for Below {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Below::Foreign(action) => write!(f, "Foreign({:#x})", action.sa_sigaction),
            Below::Managed(entry) => write!(f, "Managed({entry:p})"),
        }
    }
}

static TOP: [AtomicPtr<Entry>; 64] = [const { AtomicPtr::new(null_mut()) }; 64];
static NEWEST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

fn top_of(signal: Signal) -> &'static AtomicPtr<Entry> {
    &TOP[signal.number() as usize - 1]
}

/// The entry whose handler a delivery of `signal` goes to.
#[inline]
pub(crate) fn current(signal: Signal) -> Option<&'static Entry> {
    // SAFETY: entries are published whole (release) and never freed.
    unsafe { top_of(signal).load(Ordering::Acquire).as_ref() }
}

impl Entry {
    pub(crate) fn handler(&self) -> HandlerFn {
        self.spec.function
    }
    pub(crate) fn mask(&self) -> SigSet {
        self.spec.mask
    }
    pub(crate) fn immediate(&self) -> bool {
        self.spec.immediate
    }
    pub(crate) fn one_shot(&self) -> bool {
        self.spec.reset_hand
    }
    pub(crate) fn no_defer(&self) -> bool {
        self.spec.no_defer
    }

    fn is(&self, state: u32) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// This entry or the first one below it that has not been removed; the foreign disposition when there is none.
    fn live(&'static self) -> Below {
        let mut entry = self;
        loop {
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

impl Below {
    fn same(&self, other: &Below) -> bool {
        match (self, other) {
            (Below::Managed(a), Below::Managed(b)) => ptr::eq(*a, *b),
            // The kernel keeps eight bytes of the mask.
            (Below::Foreign(a), Below::Foreign(b)) => {
                a.sa_sigaction == b.sa_sigaction && a.sa_flags == b.sa_flags && first_word(a) == first_word(b)
            }
            _ => false,
        }
    }
}

fn first_word(action: &libc::sigaction) -> u64 {
    // SAFETY: libc's set begins with the kernel's eight bytes.
    unsafe { (&raw const action.sa_mask).cast::<u64>().read() }
}

/// Puts a handler on top.
pub(crate) fn push(signal: Signal, spec: Handler) -> Result<&'static Entry, PushError> {
    loop {
        let top = top_of(signal).load(Ordering::Acquire);
        // SAFETY: entries are never freed.
        let current = unsafe { top.as_ref() };
        if let Some(entry) = current.filter(|entry| entry.is(INSTALLING)) {
            // Another thread is between publishing and telling the kernel: do it for it, so that the kernel's answer below says
            // who else is there.
            tell_kernel(signal, entry);
        }
        // SAFETY: nothing is installed.
        let action = unsafe { sys::sigaction(signal.number(), None) }.ok_or(PushError::Refused)?;
        let below = match current {
            Some(entry) if is_ours(&action) => entry.live(),
            _ => Below::Foreign(action),
        };
        let entry = find(signal, &spec, &below).or_else(|| allocate(signal, &spec, below)).ok_or(PushError::NoMemory)?;
        if top_of(signal).compare_exchange(top, ptr::from_ref(entry).cast_mut(), Ordering::AcqRel, Ordering::Acquire).is_ok() {
            // An entry found again is REMOVED up to now; a trampoline that reads it in between runs the same handler.
            entry.state.store(INSTALLING, Ordering::Release);
            tell_kernel(signal, entry);
            return Ok(entry);
        }
    }
}

#[derive(Debug)]
pub(crate) enum PushError {
    Refused,
    NoMemory,
}

/// Takes a handler away and restores what was below. `false` when it is not on top, or somebody else's `sigaction` has replaced it.
pub(crate) fn remove(signal: Signal, entry: &'static Entry) -> bool {
    if entry.is(REMOVED) {
        return true;
    }
    // SAFETY: nothing is installed.
    let ours = unsafe { sys::sigaction(signal.number(), None) }.is_some_and(|action| is_ours(&action));
    if !ours || !is_top(signal, entry) || !entry.change(INSTALLED, REMOVED) {
        return false;
    }
    restore(signal, entry);
    true
}

/// A one-shot entry's delivery: the disposition becomes the default, as `SA_RESETHAND` has it. `false` when it has been had.
pub(crate) fn take_one_shot(signal: Signal, entry: &Entry) -> bool {
    if !entry.change(INSTALLED, REMOVED) && !entry.change(INSTALLING, REMOVED) {
        return false;
    }
    // SAFETY: zero is a value of every field, and means SIG_DFL: no handler.
    let default = unsafe { core::mem::zeroed() };
    // SAFETY: no handler is installed.
    unsafe { sys::sigaction(signal.number(), Some(&default)) };
    true
}

fn is_top(signal: Signal, entry: &Entry) -> bool {
    ptr::eq(top_of(signal).load(Ordering::Acquire), entry)
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == trampoline as *const () as usize
}

/// After `entry` has become REMOVED.
fn restore(signal: Signal, entry: &'static Entry) {
    match entry.live() {
        Below::Managed(below) => {
            let (from, to) = (ptr::from_ref(entry).cast_mut(), ptr::from_ref(below).cast_mut());
            // When another thread has put one on top in the meantime, that one tells the kernel.
            if top_of(signal).compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                tell_kernel(signal, below);
            }
        }
        Below::Foreign(action) => {
            // The entry stays on top, REMOVED: a trampoline that another thread has entered still finds its handler.
            IMMEDIATE.fetch_and(!SigSet::from(signal).bits(), Ordering::Relaxed);
            // SAFETY: it was the disposition before; whoever installed it vouched for it.
            unsafe { sys::sigaction(signal.number(), Some(&action)) };
            if let Some(top) = current(signal).filter(|top| !ptr::eq(*top, entry)) {
                tell_kernel(signal, top);
            }
        }
    }
}

/// Makes the kernel deliver `signal` to the trampoline with this entry's mask and flags, or a later entry's.
fn tell_kernel(signal: Signal, entry: &'static Entry) {
    let mut entry = entry;
    loop {
        let bit = SigSet::from(signal).bits();
        if entry.immediate() {
            IMMEDIATE.fetch_or(bit, Ordering::Relaxed);
        } else {
            IMMEDIATE.fetch_and(!bit, Ordering::Relaxed);
        }
        let action = kernel_action(signal, &entry.spec);
        // SAFETY: the trampoline is made for any instruction; the registered handler's author vouched for it in `install`.
        unsafe { sys::sigaction(signal.number(), Some(&action)) };
        entry.change(INSTALLING, INSTALLED);
        match current(signal) {
            Some(top) if !ptr::eq(top, entry) && !top.is(REMOVED) => entry = top,
            _ => return,
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
    let blocked = spec.mask.union(SigSet::from(signal)).difference(policy::UNBLOCKABLE).difference(policy::RESERVED);
    // SAFETY: libc's set begins with the kernel's eight bytes and is longer.
    unsafe { (&raw mut action.sa_mask).cast::<u64>().write(blocked.bits()) };
    action
}

fn find(signal: Signal, spec: &Handler, below: &Below) -> Option<&'static Entry> {
    let mut next: *const Entry = NEWEST.load(Ordering::Acquire);
    // SAFETY: entries are published whole and never freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        // Claiming it by the state keeps two threads from taking the same one.
        if entry.signal == signal
            && entry.spec.same(spec)
            && entry.below.same(below)
            && !is_top(signal, entry)
            && entry.change(REMOVED, INSTALLING)
        {
            return Some(entry);
        }
        next = entry.older;
    }
    None
}

/// The memory of entries: pages that are mapped one at a time and never given back, handed out from the front.
fn allocate(signal: Signal, spec: &Handler, below: Below) -> Option<&'static Entry> {
    const PAGE: usize = 4096;
    const PER_PAGE: usize = (PAGE - size_of::<AtomicUsize>()) / size_of::<Entry>();
    #[repr(C)]
    struct Page {
        used: AtomicUsize,
        entries: [core::mem::MaybeUninit<Entry>; PER_PAGE],
    }
    const { assert!(size_of::<Page>() <= PAGE && align_of::<Page>() <= PAGE) };
    static PAGES: AtomicPtr<Page> = AtomicPtr::new(null_mut());

    let place = loop {
        let page = PAGES.load(Ordering::Acquire);
        if !page.is_null() {
            // SAFETY: pages are never unmapped; zero, as mapped, is a value of the counter.
            let index = unsafe { (*page).used.fetch_add(1, Ordering::Relaxed) };
            if index < PER_PAGE {
                // SAFETY: within the page, and nobody else has been given this index.
                break unsafe { (&raw mut (*page).entries).cast::<Entry>().add(index) };
            }
        }
        let fresh: *mut Page = sys::map_pages(PAGE).cast();
        if fresh.is_null() {
            return None;
        }
        // Losing the race leaves one page unused; the winner's is taken.
        let _ = PAGES.compare_exchange(page, fresh, Ordering::AcqRel, Ordering::Acquire);
    };
    let mut older = NEWEST.load(Ordering::Acquire);
    loop {
        // SAFETY: the place is ours until it is published.
        unsafe { place.write(Entry { spec: *spec, signal, state: AtomicU32::new(INSTALLING), below, older }) };
        match NEWEST.compare_exchange(older, place, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: written, published and never freed.
            Ok(_) => return Some(unsafe { &*place }),
            Err(newer) => older = newer,
        }
    }
}
