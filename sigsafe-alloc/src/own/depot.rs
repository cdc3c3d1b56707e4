//! Lists of free blocks on their way from one thread's cache to another's.
//!
//! For each class a few places, each with a whole list or nothing. A list is put by one compare-and-swap and taken by one exchange: nobody
//! waits for anybody, and what a place held before is of no interest. So blocks that are asked for in one thread and freed in
//! another come back without their spans being looked at, and what a thread that ends has in its cache is there for the next one.
//!
//! Runs in any context.

use core::ptr::null_mut;

use super::cache::give_back;
use super::class::{self, CLASSES, Class};
use super::link::Block;
use super::sync::{AtomicPtr, Ordering};

/// Of a class, in a cache line. Those of larger blocks use some of them.
const PLACES: usize = 8;

/// Bytes that wait, of a class, unless a single list has more.
const WAITING: usize = 512 << 10;

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

#[repr(align(64))]
struct Places([AtomicPtr<Block>; PLACES]);

static DEPOT: [Places; CLASSES] = [const { Places([const { AtomicPtr::new(null_mut()) }; PLACES]) }; CLASSES];

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
    for place in DEPOT[class.index()].0.iter().take(PLACES_OF[class.index()].into()) {
        if place.load(Ordering::Relaxed).is_null() && place.compare_exchange(null_mut(), list, Ordering::Release, Ordering::Relaxed).is_ok()
        {
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { give_back(list) };
}

/// Takes a list that somebody has left, or null.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn take(class: Class) -> *mut Block {
    for place in &DEPOT[class.index()].0 {
        if !place.load(Ordering::Relaxed).is_null() {
            let list = place.swap(null_mut(), Ordering::Acquire);
            if !list.is_null() {
                return list;
            }
        }
    }
    null_mut()
}

/// Gives all lists back to their spans.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn empty() {
    for index in 0..CLASSES {
        let Some(class) = Class::from_index(index) else { break };
        // SIGNAL: a handler that leaves by longjmp here keeps one list from everybody.
        for _ in 0..PLACES {
            let list = take(class);
            if list.is_null() {
                break;
            }
            // SAFETY: free blocks that were just taken.
            unsafe { give_back(list) };
        }
    }
}

/// The first block of each list, for checks while nobody is at work.
pub(super) fn lists(class: Class) -> impl Iterator<Item = *mut Block> {
    DEPOT[class.index()].0.iter().map(|place| place.load(Ordering::Acquire)).filter(|list| !list.is_null())
}
