//! An operation's way to the thread's cache and back: [`sigsafe_core::allocator`] has the word that names the cache.
//!
//! A signal may land at any instruction here, and its handler may do the same. Either it finds the cache free, marks it as its own
//! and clears the mark before it returns, so that the interrupted code goes on as if nothing had been; or it finds it marked, and works
//! on the spans alone ([`shared`](super::shared)).

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use sigsafe_core::allocator::{self, Words};
use sigsafe_core::mutant;

use super::cache::Cache;
use super::{exit, os, pool};

/// Of the record's word `caches`: the thread has given its caches up for good.
const RETIRED: usize = 1;

/// The thread's cache, marked by an operation, which is to put it back.
#[derive(Copy, Clone)]
pub(super) struct Cached(&'static Cache);

/// Takes the thread's cache, if it is there.
#[inline(always)]
pub(super) fn take() -> Option<Cached> {
    let cache = named()?;
    if marked(cache) {
        return None;
    }
    // SIGNAL: a handler that lands here marks the same cache and clears the mark; or gives the thread another one, and leaves this
    // one free too.
    if !(mutant!("unmarked") || mutant!("marked-late")) {
        mark(&cache.mark);
    }
    Some(Cached(cache))
}

/// Takes the thread's cache that was not there at first: the first operation of a thread gets one, and so does one that finds that
/// it has been abandoned. `None` in the middle of another operation.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn take_missing() -> Option<Cached> {
    let words = allocator::words();
    let cache = match named() {
        None => adopt(words),
        Some(cache) => match cache.mark.load(Ordering::Relaxed) {
            0 => Some(cache),
            mark if abandoned(words, cache, mark) => adopt(words),
            _ => None,
        },
    }?;
    mark(&cache.mark);
    Some(Cached(cache))
}

/// For a mutant: clears the mark in the middle of an operation.
#[inline(always)]
pub(super) fn clear_early() {
    if let Some(cache) = named() {
        cache.mark.store(0, Ordering::Relaxed);
    }
}

/// The cache that the record names.
#[inline(always)]
fn named() -> Option<&'static Cache> {
    // SAFETY: null or a cache; caches stay.
    unsafe { ptr::with_exposed_provenance::<Cache>(allocator::cache()).as_ref() }
}

impl Cached {
    #[inline(always)]
    pub(super) fn cache(self) -> &'static Cache {
        self.0
    }

    /// For a mutant: marks it after all.
    #[inline(always)]
    pub(super) fn mark_late(self) {
        mark(&self.0.mark);
    }

    /// Puts it back, and passes the operation's result on. Signals that arrived meanwhile are let in.
    #[inline(always)]
    pub(super) fn put_back<R>(self, result: R) -> R {
        compiler_fence(Ordering::SeqCst);
        self.0.mark.store(0, Ordering::Relaxed);
        if allocator::held_back() && !mutant!("not-let-in") { let_in_before(result) } else { result }
    }
}

/// Ends an operation without a cache: one that was left may have held signals back for good. Outside of the allocator's section, so that
/// none is held back behind the look.
#[inline(never)]
pub(super) fn let_in_after<R>(result: R) -> R {
    if allocator::held_back() && !mutant!("left-not-let-in") { let_in_before(result) } else { result }
}

/// Takes the result along, so that the common path has nothing to save.
#[cold]
#[inline(never)]
fn let_in_before<R>(result: R) -> R {
    allocator::let_in();
    // A caller that knew the result to be its own argument would keep it over the call, and be longer by that on every path.
    core::hint::black_box(result)
}

/// Whether an operation works on the cache.
#[inline(always)]
fn marked(cache: &Cache) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: reads the mark. One instruction and a branch, where a load of an atomic would be one more.
        unsafe {
            core::arch::asm!(
                "cmp qword ptr [{mark}], 0",
                "jne {set}",
                mark = in(reg) ptr::from_ref(&cache.mark),
                set = label { return true },
                options(readonly, nostack),
            );
        }
        false
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cache.mark.load(Ordering::Relaxed) != 0
    }
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
        word.store(allocator::stack_pointer(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

/// So many operations that find the mark set, twice as many with each cache that the thread has, and it is taken for abandoned.
const SUSPICIOUS: u32 = 128;

/// A signal frame is larger.
const SIGNAL_FRAME: usize = 1024;

/// Whether the frame that has set this mark has gone, as it seems. Where it has not (a signal stack may lie anywhere, and so may
/// fibers), it goes on with the cache that it has marked: so that cache is left alone until its mark is cleared.
fn abandoned(words: Words, cache: &Cache, mark: usize) -> bool {
    let nested = cache.nested.fetch_add(1, Ordering::Relaxed) + 1;
    // A handler that runs over it lies further down by a signal frame, on the same stack, or on a stack of its own.
    let sp = allocator::stack_pointer();
    // A storm over operations that do not come here looks the same: each cache costs twice the operations of the last.
    let suspicious = || SUSPICIOUS << of_thread(words).count().min(20);
    if (sp + SIGNAL_FRAME <= mark || os::on_another_stack(sp, mark)) && nested < suspicious() {
        return false;
    }
    cache.nested.store(0, Ordering::Relaxed);
    true
}

/// Gives the thread a cache, its first or another one: one that it has and that nobody works on, or a new one.
fn adopt(words: Words) -> Option<&'static Cache> {
    if words.caches().load(Ordering::Relaxed) == RETIRED || !exit::arm() {
        return None;
    }
    let free = of_thread(words).find(|cache| cache.mark.load(Ordering::Relaxed) == 0);
    let cache = match free {
        Some(cache) => cache,
        None => {
            let record = ptr::from_ref(words.cache()).addr();
            let fresh = pool::acquire(record, || words.caches().load(Ordering::Relaxed) == 0)?;
            // SIGNAL: a handler in between puts its own there first. One that leaves by longjmp leaves a cache that nobody has, and empty.
            let _ = words.caches().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                fresh.next_of_thread.store(ptr::with_exposed_provenance_mut(next), Ordering::Relaxed);
                Some(ptr::from_ref(fresh).expose_provenance())
            });
            // SIGNAL: from here on it counts as this thread's, which has it.
            fresh.owner.store(record, Ordering::Relaxed);
            fresh
        }
    };
    // SIGNAL: a handler before this line may give the thread the same cache, or another one; it is done with it, and both are free.
    words.cache().store(ptr::from_ref(cache).expose_provenance(), Ordering::Relaxed);
    Some(cache)
}

/// All caches that the thread has.
fn of_thread(words: Words) -> impl Iterator<Item = &'static Cache> {
    let first = words.caches().load(Ordering::Relaxed);
    let first = if first == RETIRED { 0 } else { first };
    // SAFETY: null or a cache of this thread; caches stay.
    let first = unsafe { ptr::with_exposed_provenance::<Cache>(first).as_ref() };
    // SAFETY: as above.
    core::iter::successors(first, |cache| unsafe { cache.next_of_thread.load(Ordering::Relaxed).as_ref() })
}

/// The thread ends: its caches go back, and what it still frees or allocates goes to the spans.
pub(super) fn retire() {
    let words = allocator::words();
    // SIGNAL: from here on a handler gives the thread no cache any more; it may use the one that the record still names.
    let mut next = words.caches().swap(RETIRED, Ordering::Relaxed);
    if next == RETIRED {
        return;
    }
    words.cache().store(0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: null or a cache of this thread; caches stay. No frame that worked on one is resumed on a thread that ends.
    while let Some(cache) = unsafe { ptr::with_exposed_provenance::<Cache>(next).as_ref() } {
        next = cache.next_of_thread.swap(ptr::null_mut(), Ordering::Relaxed).expose_provenance();
        if !mutant!("cache-not-drained") {
            cache.drain();
        }
        pool::release(cache);
    }
    let_in_after(());
}
