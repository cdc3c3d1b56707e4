//! Where caches come from. They are never unmapped; one that a thread has given up is another thread's next.
//!
//! Runs in any context.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::cache::Cache;
use super::class::Class;
use super::os;

/// Of `state`: nobody's.
const FREE: u32 = 0;
/// Of `state`: a thread's.
const IN_USE: u32 = 1;

/// The last cache that was made; the others hang off it.
static ALL: AtomicPtr<Cache> = AtomicPtr::new(null_mut());
/// How many are free.
static FREE_ONES: AtomicUsize = AtomicUsize::new(0);

/// A cache for the calling thread, empty; `None` when there is no memory.
pub(super) fn acquire() -> Option<&'static Cache> {
    if FREE_ONES.load(Ordering::Relaxed) != 0 {
        for cache in all() {
            if cache.state.load(Ordering::Relaxed) == FREE
                && cache.state.compare_exchange(FREE, IN_USE, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                FREE_ONES.fetch_sub(1, Ordering::Relaxed);
                return Some(cache);
            }
        }
    }
    let memory: *mut Cache = os::map(os::page_up(size_of::<Cache>())).cast();
    // SAFETY: null, or zeroed pages of our own, which stay; zero is a value of every field.
    let cache = unsafe { memory.as_ref() }?;
    cache.reset();
    cache.state.store(IN_USE, Ordering::Relaxed);
    let mut top = ALL.load(Ordering::Relaxed);
    loop {
        cache.next_of_all.store(top, Ordering::Relaxed);
        match ALL.compare_exchange_weak(top, memory, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(cache),
            Err(now) => top = now,
        }
    }
}

/// Gives up a cache that has been drained.
pub(super) fn release(cache: &Cache) {
    cache.nested.store(0, Ordering::Relaxed);
    cache.mark.store(0, Ordering::Relaxed);
    cache.state.store(FREE, Ordering::Release);
    FREE_ONES.fetch_add(1, Ordering::Relaxed);
}

/// All caches there are.
pub(super) fn all() -> impl Iterator<Item = &'static Cache> {
    // SAFETY: null or a cache; caches stay.
    let follow = |place: &AtomicPtr<Cache>| unsafe { place.load(Ordering::Acquire).as_ref() };
    core::iter::successors(follow(&ALL), move |cache| follow(&cache.next_of_all))
}

impl Cache {
    /// Zeroed memory becomes an empty cache.
    fn reset(&self) {
        for (bin, class) in self.bins.iter().zip(Class::all()) {
            bin.start(class);
        }
    }
}

/// How many caches threads have, and how many of these are marked.
pub(super) fn counts() -> (usize, usize) {
    let (mut in_use, mut marked) = (0, 0);
    for cache in all() {
        if cache.state.load(Ordering::Relaxed) == IN_USE {
            in_use += 1;
            marked += usize::from(cache.mark.load(Ordering::Relaxed) != 0);
        }
    }
    (in_use, marked)
}
