//! Entries of the handler table, and their memory.
//!
//! Runs wherever handlers are installed, in a signal handler too, under the lock of the signal's table. The memory comes from the
//! system by the page.

use core::fmt;
use core::mem::{MaybeUninit, align_of, size_of};
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::Handler;
use crate::signal::{LAST, Signal};
use crate::sys;

/// One registration. Immutable after publication but for its state, and never freed: a trampoline on another thread may be about
/// to call it.
///
/// | state | meaning |
/// |---|---|
/// | `LIVE` | installed, on top or below others |
/// | `FIRED` | a one-shot that has run: the disposition is the default |
/// | `SPENT` | the same, given up by its registration; may be used again for an equal one |
/// | `REMOVED` | only trampolines that are under way may still call it; may be used again for an equal registration |
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) spec: Handler,
    state: AtomicU32,
    pub(crate) below: Below,
    /// Where `below` is a foreign one-shot: whether a handler above has passed a signal on to it, so that it is the default by now.
    spent_below: AtomicBool,
    /// Where `below` is foreign: the live entry that was there before the foreign handler came, and that gets the signal when
    /// that handler passes it on.
    pub(crate) under: Option<&'static Entry>,
    /// The entry of this signal that was allocated before this one.
    older: *const Entry,
}

// SAFETY: immutable after publication but for an atomic; its pointer is to an entry, which lives for ever.
unsafe impl Sync for Entry {}

pub(crate) const LIVE: u32 = 0;
pub(crate) const FIRED: u32 = 1;
pub(crate) const SPENT: u32 = 2;
pub(crate) const REMOVED: u32 = 3;

/// What a removal restores.
#[derive(Copy, Clone)]
pub(crate) enum Below {
    /// A disposition that is not ours.
    Foreign(libc::sigaction),
    /// An entry of ours.
    Managed(&'static Entry),
}

impl fmt::Debug for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Below::Foreign(action) => write!(f, "Foreign({:#x})", action.sa_sigaction),
            Below::Managed(entry) => write!(f, "Managed({entry:p})"),
        }
    }
}

impl Below {
    /// SIG_DFL.
    pub(crate) fn default_action() -> Below {
        // SAFETY: zero is a value of every field; zero as the handler is SIG_DFL.
        Below::Foreign(unsafe { core::mem::zeroed() })
    }

    pub(crate) fn same(&self, other: &Below) -> bool {
        match (self, other) {
            (Below::Managed(a), Below::Managed(b)) => ptr::eq(*a, *b),
            (Below::Foreign(a), Below::Foreign(b)) => sys::same_action(a, b),
            _ => false,
        }
    }
}

impl Entry {
    pub(crate) fn is(&self, state: u32) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    pub(crate) fn set(&self, state: u32) {
        self.state.store(state, Ordering::Release);
    }

    /// Whether the foreign disposition below is this handler.
    pub(crate) fn calls(&self, function: usize) -> bool {
        matches!(self.below, Below::Foreign(action) if action.sa_sigaction == function)
    }

    /// A one-shot is about to run. `false` when it has run already.
    pub(crate) fn fire(&self) -> bool {
        self.state.compare_exchange(LIVE, FIRED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The same for a foreign one-shot below.
    pub(crate) fn fire_below(&self) -> bool {
        !self.spent_below.swap(true, Ordering::AcqRel)
    }

    /// The disposition that this entry makes: its own handler, or what a signal meets when this is none any more.
    pub(crate) fn effective(&'static self) -> Below {
        match self.state.load(Ordering::Acquire) {
            LIVE => Below::Managed(self),
            REMOVED => self.next(),
            _ => Below::default_action(),
        }
    }

    /// The disposition that this entry's handler stands over: what it passes signals on to, and what its removal restores.
    pub(crate) fn next(&'static self) -> Below {
        match self.below {
            Below::Managed(below) => below.effective(),
            Below::Foreign(_) if self.spent_below.load(Ordering::Acquire) => Below::default_action(),
            foreign => foreign,
        }
    }
}

/// The newest entry of each signal.
static NEWEST: [AtomicPtr<Entry>; LAST as usize] = [const { AtomicPtr::new(null_mut()) }; LAST as usize];

/// What [`make`] returns.
pub(crate) struct Made {
    pub(crate) entry: &'static Entry,
    /// Whether this signal has had an entry with another mask.
    pub(crate) masks_differ: bool,
}

/// A live entry: an equal one that has been removed, or a fresh one. `None` when there is no memory.
pub(crate) fn make(signal: Signal, spec: &Handler, below: Below, under: Option<&'static Entry>) -> Option<Made> {
    let newest = &NEWEST[signal.number() as usize - 1];
    let same_under = |other: Option<&'static Entry>| other.map(ptr::from_ref) == under.map(ptr::from_ref);
    let mut found = None;
    let mut masks_differ = false;
    let older: *const Entry = newest.load(Ordering::Acquire);
    let mut next = older;
    // SAFETY: entries are published whole and never freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        masks_differ |= entry.spec.mask != spec.mask;
        let equal = entry.spec.same(spec) && entry.below.same(&below) && same_under(entry.under);
        if equal && (entry.is(REMOVED) || entry.is(SPENT)) {
            found = Some(entry);
        }
        next = entry.older;
    }
    if let Some(entry) = found {
        entry.spent_below.store(false, Ordering::Relaxed);
        entry.set(LIVE);
        return Some(Made { entry, masks_differ });
    }
    let place = allocate()?;
    // SAFETY: the place is ours until it is published, and the caller holds the signal's lock, so nobody else publishes.
    let entry = unsafe {
        place.write(Entry { spec: *spec, state: AtomicU32::new(LIVE), below, spent_below: AtomicBool::new(false), under, older });
        &*place
    };
    newest.store(place, Ordering::Release);
    Some(Made { entry, masks_differ })
}

/// Room for one entry, out of pages that are mapped one at a time, handed out from the front and never given back.
fn allocate() -> Option<*mut Entry> {
    const PAGE: usize = 4096;
    const PER_PAGE: usize = (PAGE - size_of::<AtomicUsize>()) / size_of::<Entry>();
    #[repr(C)]
    struct Page {
        used: AtomicUsize,
        entries: [MaybeUninit<Entry>; PER_PAGE],
    }
    const { assert!(size_of::<Page>() <= PAGE && align_of::<Page>() <= PAGE && PER_PAGE > 0) };
    static CURRENT: AtomicPtr<Page> = AtomicPtr::new(null_mut());
    loop {
        let page = CURRENT.load(Ordering::Acquire);
        if !page.is_null() {
            // SAFETY: pages are never unmapped; zero, as mapped, is a value of the counter.
            let index = unsafe { (*page).used.fetch_add(1, Ordering::Relaxed) };
            if index < PER_PAGE {
                // SAFETY: within the page, and nobody else has been given this index.
                return Some(unsafe { (&raw mut (*page).entries).cast::<Entry>().add(index) });
            }
        }
        let fresh: *mut Page = sys::map_pages(PAGE).cast();
        if fresh.is_null() {
            return None;
        }
        // Losing the race leaves one page unused; the winner's is taken.
        let _ = CURRENT.compare_exchange(page, fresh, Ordering::AcqRel, Ordering::Acquire);
    }
}
