//! An operation's way to the thread's cache and back: [`sigsafe_core::allocator`] has the word that moves it.
//!
//! A signal may land at any instruction here, and its handler may do the same. Either it finds the cache in the record, takes it
//! and puts it back before it returns, so that the interrupted code goes on as if nothing had been; or it finds it taken, and works
//! on the spans alone ([`shared`](super::shared)).

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use sigsafe_core::allocator::{self, RETIRED, Words};

use super::cache::Cache;
use super::{exit, os, pool};

/// The thread's cache, taken by an operation, which is to put it back.
#[derive(Copy, Clone)]
pub(super) struct Cached {
    /// The cache's address and one.
    free: usize,
}

/// Takes the thread's cache, if it is there.
#[inline(always)]
pub(super) fn take() -> Option<Cached> {
    let word = allocator::words().cache();
    let free = word.load(Ordering::Relaxed);
    if free & 1 == 0 {
        return None;
    }
    // SIGNAL: a handler that lands here takes the cache and puts it back; the one that was loaded is still it.
    mark(word);
    Some(Cached { free })
}

/// Takes the thread's cache that was not there at first: the first operation of a thread gets one, and so does one that finds that
/// it has been abandoned. `None` in the middle of another operation.
#[cold]
#[inline(never)]
pub(super) fn take_missing() -> Option<Cached> {
    let words = allocator::words();
    let found = words.cache().load(Ordering::Relaxed);
    let free = if found & 1 == 0 { missing(words, found)? } else { found };
    mark(words.cache());
    Some(Cached { free })
}

impl Cached {
    #[inline(always)]
    pub(super) fn cache(self) -> &'static Cache {
        // SAFETY: an odd word is a cache's address and one, and caches stay.
        unsafe { &*ptr::with_exposed_provenance(self.free - 1) }
    }

    /// Puts it back, and passes the operation's result on. Signals that arrived meanwhile are let in.
    #[inline(always)]
    pub(super) fn put_back<R>(self, result: R) -> R {
        let words = allocator::words();
        compiler_fence(Ordering::SeqCst);
        words.cache().store(self.free, Ordering::Relaxed);
        if words.held_back() { let_in_before(result) } else { result }
    }
}

/// Ends an operation without a cache: one that was left may have held signals back for good.
pub(super) fn let_in_after<R>(result: R) -> R {
    if allocator::words().held_back() { let_in_before(result) } else { result }
}

/// Takes the result along, so that the common path has nothing to save.
#[cold]
#[inline(never)]
fn let_in_before<R>(result: R) -> R {
    allocator::let_in();
    result
}

/// Stores the stack pointer.
#[inline(always)]
fn mark(word: &AtomicUsize) {
    // SAFETY: the thread's own word. The assembler also keeps the compiler from moving accesses of memory across it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("mov qword ptr [{}], rsp", in(reg) ptr::from_ref(word), options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        word.store(allocator::stack_pointer() & !1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

/// So many operations that find the cache taken, twice as many with each cache that the thread has, and it is taken for abandoned.
const SUSPICIOUS: u32 = 128;

/// A signal frame is larger.
const SIGNAL_FRAME: usize = 1024;

/// The cache is not there. What the word is to hold when the operation is done, or nothing.
fn missing(words: Words, found: usize) -> Option<usize> {
    match found {
        RETIRED => None,
        0 => adopt(words, 0),
        _ => {
            // SAFETY: null or a cache of this thread; caches stay.
            let last = unsafe { ptr::with_exposed_provenance::<Cache>(words.caches().load(Ordering::Relaxed)).as_ref() };
            let nested = last.map_or(0, |cache| cache.nested.fetch_add(1, Ordering::Relaxed) + 1);
            // A handler that runs over it lies further down by a signal frame, on the same stack, or on a stack of its own.
            let sp = allocator::stack_pointer();
            // A storm over operations that do not come here looks the same: each cache costs twice the operations of the last.
            let suspicious = || SUSPICIOUS << of_thread(words).count().min(20);
            if (sp + SIGNAL_FRAME <= found || os::on_another_stack(sp, found)) && nested < suspicious() {
                return None;
            }
            // The frame that took it has gone, as it seems. Where it has not (a signal stack may lie anywhere), it goes on with what
            // it took, and puts that back.
            if let Some(cache) = last {
                cache.nested.store(0, Ordering::Relaxed);
            }
            adopt(words, found)
        }
    }
}

/// Gives the thread a cache, its first or another one.
fn adopt(words: Words, found: usize) -> Option<usize> {
    if !exit::arm() {
        return None;
    }
    for cache in of_thread(words) {
        // What the record moved up to now.
        let _ = cache.state.compare_exchange(pool::IN_USE, pool::SET_ASIDE, Ordering::Relaxed, Ordering::Relaxed);
    }
    let spare = of_thread(words)
        .find(|cache| cache.state.compare_exchange(pool::SPARE, pool::IN_USE, Ordering::Relaxed, Ordering::Relaxed).is_ok());
    let cache = match spare {
        Some(cache) => cache,
        None => {
            let fresh = pool::acquire()?;
            let address = ptr::from_ref(fresh).expose_provenance();
            // SIGNAL: a handler in between puts its own there first.
            let _ = words.caches().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                fresh.next_of_thread.store(ptr::with_exposed_provenance_mut(next), Ordering::Relaxed);
                Some(address)
            });
            fresh
        }
    };
    let free = ptr::from_ref(cache).expose_provenance() + 1;
    // SIGNAL: a handler since the word was read may have given the thread a cache.
    match words.cache().compare_exchange(found, free, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Some(free),
        Err(now) => {
            cache.state.store(pool::SPARE, Ordering::Relaxed);
            (now & 1 == 1).then_some(now)
        }
    }
}

/// All caches that the thread has.
fn of_thread(words: Words) -> impl Iterator<Item = &'static Cache> {
    // SAFETY: null or a cache; caches stay.
    let first = unsafe { ptr::with_exposed_provenance::<Cache>(words.caches().load(Ordering::Relaxed)).as_ref() };
    // SAFETY: as above.
    core::iter::successors(first, |cache| unsafe { cache.next_of_thread.load(Ordering::Relaxed).as_ref() })
}

/// An operation that works on `cache`, on a slow path: if that had been set aside, its operation has come back after all, and what took
/// its place is a spare.
pub(super) fn note_current(cache: &'static Cache) {
    if cache.state.load(Ordering::Relaxed) == pool::IN_USE {
        return;
    }
    for other in of_thread(allocator::words()) {
        let _ = other.state.compare_exchange(pool::IN_USE, pool::SPARE, Ordering::Relaxed, Ordering::Relaxed);
    }
    cache.state.store(pool::IN_USE, Ordering::Relaxed);
}

/// The thread ends: its caches go back, and what it still frees or allocates goes to the spans.
pub(super) fn retire() {
    let words = allocator::words();
    // SIGNAL: from here on a handler finds no cache. One that lands before takes it and puts it back.
    words.cache().swap(RETIRED, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let mut next = words.caches().swap(0, Ordering::Relaxed);
    // SAFETY: null or a cache; caches stay. No frame that worked on one is resumed on a thread that ends.
    while let Some(cache) = unsafe { ptr::with_exposed_provenance::<Cache>(next).as_ref() } {
        next = cache.next_of_thread.swap(ptr::null_mut(), Ordering::Relaxed).expose_provenance();
        cache.drain();
        pool::release(cache);
    }
    if words.held_back() {
        allocator::let_in();
    }
}
