//! Lists of free blocks on their way from one thread's cache to another's.
//!
//! For each class up to 128 places, each with a whole list or nothing. A list is put by one compare-and-swap and taken by one exchange, and
//! counted: nobody waits for anybody, and what a place held before is of no interest. So blocks that are asked for in one thread and freed in
//! another come back without their spans being looked at, and what a thread that ends has in its cache is there for the next one.
//!
//! Runs in any context.

use core::ptr::null_mut;

use sigsafe_core::mutant;

use super::cache::give_back;
use super::class::{self, CLASSES, Class};
use super::link::Block;
use super::sync::{AtomicPtr, AtomicUsize, Ordering};

/// Of a class. Those of larger blocks use some of them.
const PLACES: usize = 128;

/// Bytes that wait, of a class, in lists of the usual length: one that has come as a whole span may be longer.
const WAITING: usize = 2 << 20;

/// How many places each class uses.
static PLACES_OF: [u8; CLASSES] = {
    let mut places = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let lists = WAITING / class::bytes_of_list(class);
        places[class] = if lists > PLACES {
            PLACES as u8
        } else if lists == 0 {
            1
        } else {
            lists as u8
        };
        class += 1;
    }
    places
};

/// A class's.
#[repr(align(64))]
struct Places {
    places: [AtomicPtr<Block>; PLACES],
    /// How many lists there are, or somewhat more: where to look first. Not in a line with places.
    lists: AtomicUsize,
}

static DEPOT: [Places; CLASSES] =
    [const { Places { places: [const { AtomicPtr::new(null_mut()) }; PLACES], lists: AtomicUsize::new(0) } }; CLASSES];

impl Places {
    /// From the `step`th place of `many` on, upwards and round.
    #[inline(always)]
    fn at(&self, step: usize, many: usize) -> &AtomicPtr<Block> {
        let index = if step < many { step } else { step - many };
        &self.places[index % PLACES]
    }
}

/// Leaves a list for others, or gives it back to its spans where there is no place.
///
/// # Safety
///
/// A list of free blocks of the class, or null, that is the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn put(class: Class, list: *mut Block) {
    if list.is_null() {
        return;
    }
    let (depot, many) = (&DEPOT[class.index()], usize::from(PLACES_OF[class.index()]));
    let first = depot.lists.load(Ordering::Relaxed).min(many);
    // Those below the count are taken, as far as it tells.
    for step in first..first + many {
        let place = depot.at(step, many);
        if !place.load(Ordering::Relaxed).is_null() {
            continue;
        }
        // SIGNAL: counted before it is there, and until it is gone, so that the count is never too low. A handler that leaves by longjmp
        // in between leaves it too high for good: a later look that finds nothing looks everywhere. The list is nobody's then.
        depot.lists.fetch_add(usize::from(!mutant!("waiting-uncounted")), Ordering::Relaxed);
        if place.compare_exchange(null_mut(), list, Ordering::Release, Ordering::Relaxed).is_ok() {
            return;
        }
        depot.lists.fetch_sub(1, Ordering::Relaxed);
    }
    // SAFETY: the caller's promise.
    unsafe { give_back(list) };
}

/// Takes a list that somebody has left, or null.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn take(class: Class) -> *mut Block {
    let (depot, many) = (&DEPOT[class.index()], usize::from(PLACES_OF[class.index()]));
    let lists = depot.lists.load(Ordering::Relaxed).min(many);
    if lists == 0 {
        return null_mut();
    }
    // The last that was put comes first, unless others came in between: its blocks are the likeliest to be in the processor's caches.
    for step in 1..=many {
        let place = depot.at(lists + many - step, many);
        if !place.load(Ordering::Relaxed).is_null() {
            let list = place.swap(null_mut(), Ordering::Acquire);
            // SIGNAL: as in `put`.
            if !list.is_null() {
                depot.lists.fetch_sub(1, Ordering::Relaxed);
                return list;
            }
        }
    }
    null_mut()
}

/// As a bound: all lists go back.
pub(super) const ALL: usize = usize::MAX;

/// Gives up to `bound` lists back to their spans, those of large blocks first: they have the fewest. Whether there were any.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn empty(bound: usize) -> bool {
    let mut left = bound;
    for index in 1..=CLASSES {
        let Some(class) = Class::from_index(CLASSES - index) else { break };
        // SIGNAL: a handler that leaves by longjmp here keeps one list from everybody.
        for _ in 0..PLACES {
            let list = if left == 0 { null_mut() } else { take(class) };
            if list.is_null() {
                break;
            }
            left -= 1;
            // SAFETY: free blocks that were just taken.
            unsafe { give_back(list) };
        }
    }
    left != bound
}

/// The first block of each list, for checks while nobody is at work.
pub(super) fn lists(class: Class) -> impl Iterator<Item = *mut Block> {
    DEPOT[class.index()].places.iter().map(|place| place.load(Ordering::Acquire)).filter(|list| !list.is_null())
}
