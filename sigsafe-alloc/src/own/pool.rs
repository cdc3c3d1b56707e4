//! Where caches come from. They are never unmapped; one that a thread has given up is another thread's next.
//!
//! A cache names its owner by the place of the owner's record. No two threads that live have theirs in one place. So a thread that has
//! no cache yet, and finds one that names its own place, has found that of a thread that has ended unnoticed: one whose first operation
//! came after the last turn of its destructors, or one of a fork's parent. It takes the cache over, so that there are never more of these
//! than there have been places. In whatever operation the owner was cut off, its stores have left the cache whole.
//!
//! Runs in any context.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::cache::Cache;
use super::class::Class;
use super::os;

/// Of `owner`: nobody's.
const FREE: usize = 0;
/// Of `owner`: somebody's who has not got it yet. No record lies there.
const CLAIMED: usize = 1;

/// The last cache that was made; the others hang off it.
static ALL: AtomicPtr<Cache> = AtomicPtr::new(null_mut());
/// How many are free.
static FREE_ONES: AtomicUsize = AtomicUsize::new(0);

/// A cache for the calling thread, whose record lies at `record`; `None` when there is no memory. `has_none` says whether the thread
/// has none so far. The caller stores the owner, once the thread has it.
pub(super) fn acquire(record: usize, has_none: impl Fn() -> bool) -> Option<&'static Cache> {
    if FREE_ONES.load(Ordering::Relaxed) != 0
        && let Some(cache) = claim(FREE)
    {
        // SIGNAL: too high a count costs a search; too low a one, behind the claim of another, a cache that is used by a later thread.
        FREE_ONES.fetch_sub(1, Ordering::Relaxed);
        return Some(cache);
    }
    if has_none()
        && let Some(cache) = claim(record)
    {
        // SIGNAL: a handler since `has_none` was asked may have given the thread a cache, and this may be it.
        if has_none() {
            cache.nested.store(0, Ordering::Relaxed);
            cache.mark.store(0, Ordering::Relaxed);
            return Some(cache);
        }
        cache.owner.store(record, Ordering::Relaxed);
    }
    let memory: *mut Cache = os::map(os::page_up(size_of::<Cache>())).cast();
    // SAFETY: null, or zeroed pages of our own, which stay; zero is a value of every field.
    let cache = unsafe { memory.as_ref() }?;
    cache.reset();
    cache.owner.store(CLAIMED, Ordering::Relaxed);
    let mut top = ALL.load(Ordering::Relaxed);
    loop {
        cache.next_of_all.store(top, Ordering::Relaxed);
        match ALL.compare_exchange_weak(top, memory, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(cache),
            Err(now) => top = now,
        }
    }
}

/// Claims a cache that this owner has.
fn claim(owner: usize) -> Option<&'static Cache> {
    all().find(|cache| {
        cache.owner.load(Ordering::Relaxed) == owner
            && cache.owner.compare_exchange(owner, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })
}

/// Gives up a cache that has been drained.
pub(super) fn release(cache: &Cache) {
    cache.nested.store(0, Ordering::Relaxed);
    cache.mark.store(0, Ordering::Relaxed);
    cache.owner.store(FREE, Ordering::Release);
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
        if cache.owner.load(Ordering::Relaxed) != FREE {
            in_use += 1;
            marked += usize::from(cache.mark.load(Ordering::Relaxed) != 0);
        }
    }
    (in_use, marked)
}
