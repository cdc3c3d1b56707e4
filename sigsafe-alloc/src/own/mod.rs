//! [`SigSafeAlloc`]: an allocator that every handler may use at every instruction.
//!
//! ```text
//!  alloc/dealloc ── thread ── cache (lists of free blocks, per thread)     no atomics, no lock
//!                      │         │ refill, overflow ── depot (whole lists, between caches)
//!                      │       span (one word, CAS) ── stack (spans with blocks to give, per class)
//!                      └ shared ─┘ │                                       no cache: handlers in the middle of an operation
//!                                chunk (units, one word of bits) ── os
//!                  large (runs of a chunk's or a region's units, mappings)
//! ```

mod anchor;
mod cache;
#[cfg(not(all(test, loom)))]
mod call;
mod chunk;
mod class;
mod depot;
pub(crate) mod exit;
#[cfg_attr(not(feature = "hardened"), path = "hardened/off.rs")]
mod hardened;
mod large;
mod link;
#[cfg(all(test, loom))]
mod models;
mod os;
mod pool;
mod purge;
mod region;
mod shared;
mod span;
mod stack;
mod stats;
mod sync;
mod thread;
mod units;
mod verify;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::time::Duration;

use sigsafe_core::mutant;

use class::Class;
use large::Fresh;
use thread::Cached;

pub use stats::Stats;
pub use verify::{Verified, Violation};

/// An allocator that any signal handler may call at any instruction.
///
/// All copies are the same allocator: there is one in a process.
///
/// Errors: null when the system has no memory; what there was stays usable. `errno` is as before.
///
/// Async-signal safety: all four methods may be called from a handler, whoever installed it. Cost: no system call where a list of the
/// thread's cache, the depot or a span has a block; otherwise `mmap`, `munmap`, `mremap` or `madvise`, a clock now and then, and
/// `rt_sigprocmask` where a signal was held back meanwhile.
#[derive(Copy, Clone, Debug, Default)]
pub struct SigSafeAlloc;

impl SigSafeAlloc {
    /// What there is at this moment.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call but
    /// `rt_sigprocmask`, where a signal was held back meanwhile; it looks at every span.
    #[must_use]
    pub fn stats(&self) -> Stats {
        thread::let_in_after(stats::stats())
    }

    /// Gives the memory that nobody uses back to the system: the calling thread's cache, free spans and kept mappings. What lies in
    /// other threads' caches stays there, and in the thread's own where a handler calls this in the middle of an operation; so does a
    /// span with one block in use. Returns how many bytes went.
    ///
    /// Async-signal safety: may be called from a handler. Cost: a system call for each stretch of free memory, and
    /// `rt_sigprocmask` where a signal was held back meanwhile.
    pub fn purge(&self) -> usize {
        drain_own();
        thread::let_in_after(purge::purge())
    }

    /// How long the memory of free spans and large blocks is kept for later ones, and how much of it at most.
    ///
    /// Once in each `delay` all of it goes back, with one of the next sixteen spans or large blocks that are freed: where nothing is freed
    /// any more, nothing goes back but by [`purge`](Self::purge). At once goes what would be more than `bound` bytes of free spans, than
    /// three eighths of that of free blocks of 1 to 16 MiB, or than three eighths of kept mappings. The default is one second and 256 MiB;
    /// both are the process's, and are rounded down to milliseconds and to 64 KiB.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call but
    /// `rt_sigprocmask`, where a signal was held back meanwhile.
    pub fn set_purge_policy(&self, delay: Duration, bound: usize) {
        purge::set_policy(delay.as_millis().min(u32::MAX.into()) as u32, bound);
        thread::let_in_after(());
    }

    /// How many bytes the block that `alloc(layout)` gives has. `realloc` copies, and `alloc_zeroed` zeroes, those of the layout alone.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call but
    /// `rt_sigprocmask`, where a signal was held back meanwhile.
    #[must_use]
    pub fn usable_size(&self, layout: Layout) -> usize {
        Class::of(layout).map_or_else(|| thread::let_in_after(large::usable(layout)), Class::size)
    }

    /// Looks through all spans, stacks and caches for what must not be. For tests: nobody else may be at work meanwhile, since in the
    /// middle of an operation a block is in no list, and an error may be found that there is not. Blocks that have no size class are
    /// not looked at. With the feature `hardened` an overwritten link ends the process instead.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, and where.
    ///
    /// Async-signal safety: may be called from a handler that interrupted no operation of any thread. Cost: no system call
    /// but `rt_sigprocmask`, where a signal was held back meanwhile; it looks at every free block, and at those in caches once for each span of their class.
    pub fn verify(&self) -> Result<Verified, Violation> {
        thread::let_in_after(verify::verify())
    }
}

/// Whether the code that runs, or that the handler which runs has interrupted, is in the middle of an operation that works on its thread's
/// cache. A handler may allocate all the same; one that would rather not can ask.
///
/// It is told by where the stack pointer is: `false` where the handler runs on an alternate stack that lies above the thread's, and `true`
/// after a `longjmp` out of an operation, to frames further down than that, until the thread has another cache. Operations without the
/// cache, those on blocks of more than 256 KiB among them, do not count.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[must_use]
pub fn in_allocator() -> bool {
    sigsafe_core::allocator::in_operation()
}

/// A block of the class, or null.
#[inline(always)]
fn alloc_class(class: Class) -> *mut u8 {
    let Some(cached) = thread::take() else { return alloc_slowly(class) };
    let block = cached.cache().bin(class).pop();
    if mutant!("marked-late") {
        cached.mark_late();
    }
    if block.is_null() { refill(cached, class) } else { cached.put_back(block.cast()) }
}

/// The list is empty. Returns what `alloc_class` returns, so that this is a jump there.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn refill(cached: Cached, class: Class) -> *mut u8 {
    refill_fresh(cached, class).0
}

/// The list is empty. A block, or null, and whether it is known to be zero.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn refill_fresh(cached: Cached, class: Class) -> Fresh {
    cached.put_back(cached.cache().bin(class).refill(class))
}

/// The cache is not there.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn alloc_slowly(class: Class) -> *mut u8 {
    fresh_slowly(class).0
}

/// The cache is not there.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn fresh_slowly(class: Class) -> Fresh {
    let Some(cached) = thread::take_missing() else { return thread::let_in_after(shared::alloc(class)) };
    pop_or_refill(cached, class)
}

/// A block, or null, and whether it is known to be zero.
#[inline(always)]
fn pop_or_refill(cached: Cached, class: Class) -> Fresh {
    let block = cached.cache().bin(class).pop();
    if block.is_null() { refill_fresh(cached, class) } else { cached.put_back((block.cast(), false)) }
}

/// Frees a block of the class.
///
/// # Safety
///
/// It is one, and the caller's.
#[inline(always)]
unsafe fn dealloc_class(block: *mut u8, class: Class) {
    hardened::take_in(block, class);
    // SAFETY: the caller's promise.
    let Some(cached) = thread::take() else { return unsafe { dealloc_slowly(block, class) } };
    // SAFETY: the caller's promise.
    unsafe { push_or_overflow(cached, class, block) }
}

/// Puts the block on its list, full or not.
///
/// # Safety
///
/// As for `dealloc_class`.
#[inline(always)]
unsafe fn push_or_overflow(cached: Cached, class: Class, block: *mut u8) {
    // SAFETY: the caller's promise.
    if unsafe { cached.cache().push(class, block.cast()) } {
        cached.put_back(());
    } else {
        // SAFETY: the caller's promise.
        unsafe { overflow(cached, class, block) }
    }
}

/// The list is full.
///
/// # Safety
///
/// As for `dealloc_class`.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn overflow(cached: Cached, class: Class, block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { cached.cache().bin(class).overflow(class, block.cast()) };
    cached.put_back(());
}

/// The cache is not there.
///
/// # Safety
///
/// As for `dealloc_class`.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn dealloc_slowly(block: *mut u8, class: Class) {
    let Some(cached) = thread::take_missing() else {
        // SAFETY: the caller's promise.
        unsafe { shared::dealloc(block) };
        return thread::let_in_after(());
    };
    // SAFETY: the caller's promise.
    unsafe { push_or_overflow(cached, class, block) }
}

/// Gives back what the thread's cache has, unless an operation is under way.
#[cold]
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn drain_own() {
    if let Some(cached) = thread::take() {
        cached.cache().drain();
        cached.put_back(());
    }
}

/// Blocks of medium sizes.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn alloc_medium(class: Class) -> *mut u8 {
    hardened::give_out(alloc_class(class), class)
}

/// Frees a block of a medium size.
///
/// # Safety
///
/// As for `dealloc_class`.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn dealloc_medium(block: *mut u8, class: Class) {
    // SAFETY: the caller's promise.
    unsafe { dealloc_class(block, class) }
}

/// A block, and whether it is known to be zero.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn alloc_fresh(class: Class) -> Fresh {
    let Some(cached) = thread::take() else { return fresh_slowly(class) };
    pop_or_refill(cached, class)
}

// These have no cache in hand, and lie outside of the allocator's section: after an operation that was left by `longjmp`, signals that land
// in there are held back, and nothing comes behind the look whether there were any.

/// Blocks that are not small.
#[inline(never)]
fn alloc_other(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as in `alloc`.
    match Class::of_medium(unsafe { Layout::from_size_align_unchecked(size, align) }) {
        Some(class) => alloc_medium(class),
        None => alloc_odd(size, align),
    }
}

/// Large blocks, and those that are aligned to more than a word.
#[inline(never)]
fn alloc_odd(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as in `alloc`.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    match Class::of(layout) {
        Some(class) => alloc_medium(class),
        None => thread::let_in_after(hardened::give_out_large(large::alloc(layout).0, layout)),
    }
}

/// Blocks that are not small.
///
/// # Safety
///
/// `alloc_other` gave it for this layout.
#[inline(never)]
unsafe fn dealloc_other(block: *mut u8, size: usize, align: usize) {
    // SAFETY: as in `alloc`.
    match Class::of_medium(unsafe { Layout::from_size_align_unchecked(size, align) }) {
        // SAFETY: the caller's promise; the class follows from the layout alone.
        Some(class) => unsafe { dealloc_medium(block, class) },
        // SAFETY: the caller's promise.
        None => unsafe { dealloc_odd(block, size, align) },
    }
}

/// Large blocks, and those that are aligned to more than a word.
///
/// # Safety
///
/// `alloc_odd` gave it for this layout.
#[inline(never)]
unsafe fn dealloc_odd(block: *mut u8, size: usize, align: usize) {
    // SAFETY: as in `alloc`.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    match Class::of(layout) {
        // SAFETY: the caller's promise; the class follows from the layout alone.
        Some(class) => unsafe { dealloc_medium(block, class) },
        None => {
            hardened::take_in_large(block, layout);
            // SAFETY: the caller's promise.
            unsafe { large::dealloc(block, layout) };
            thread::let_in_after(());
        }
    }
}

// The four operations. Their arguments are those of the language's own functions (`__rust_alloc` and its kind), in that order, so that
// these are one jump each.

#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: a layout's parts, here and in the functions below.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    match Class::of_small(layout) {
        Some(class) => hardened::give_out(alloc_class(class), class),
        None => alloc_other(size, align),
    }
}

#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn dealloc(block: *mut u8, size: usize, align: usize) {
    // SAFETY: as in `alloc`.
    match Class::of_small(unsafe { Layout::from_size_align_unchecked(size, align) }) {
        // SAFETY: the caller's promise; the class follows from the layout alone.
        Some(class) => unsafe { dealloc_class(block, class) },
        // SAFETY: the caller's promise; `alloc` took the same way.
        None => unsafe { dealloc_other(block, size, align) },
    }
}

#[inline(never)]
fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as in `alloc`.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    let (block, zeroed) = match Class::of(layout) {
        Some(class) => {
            let (block, zeroed) = alloc_fresh(class);
            (hardened::give_out(block, class), zeroed)
        }
        None => {
            let (block, zeroed) = large::alloc(layout);
            thread::let_in_after((hardened::give_out_large(block, layout), zeroed))
        }
    };
    if !zeroed && !block.is_null() {
        // SAFETY: the block has at least these bytes.
        unsafe { ptr::write_bytes(block, 0, size) };
    }
    block
}

#[inline(never)]
unsafe fn realloc(block: *mut u8, old_size: usize, align: usize, new_size: usize) -> *mut u8 {
    // SAFETY: as in `alloc`; the caller vouches for the new size.
    let (old, new) = unsafe { (Layout::from_size_align_unchecked(old_size, align), Layout::from_size_align_unchecked(new_size, align)) };
    hardened::check(block, old);
    match (Class::of(old), Class::of(new)) {
        (Some(before), Some(after)) if before == after => return block,
        (None, None) => {
            hardened::take_in_large(block, old);
            // SAFETY: the caller's promise; neither has a class.
            let resized = unsafe { large::resize(block, old, new) };
            if !resized.is_null() {
                return thread::let_in_after(hardened::give_out_large(resized, new));
            }
            hardened::give_out_large(block, old);
        }
        _ => {}
    }
    let fresh = alloc(new_size, align);
    if !fresh.is_null() {
        // SAFETY: both blocks have at least these bytes, and they are two; the old one is the caller's.
        unsafe {
            ptr::copy_nonoverlapping(block, fresh, old_size.min(new_size));
            dealloc(block, old_size, align);
        }
    }
    fresh
}

// SAFETY: blocks come from spans and mappings that are in use only once, and are as large and as aligned as their class or mapping,
// which hold the layout. Nothing here unwinds.
unsafe impl GlobalAlloc for SigSafeAlloc {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(block, layout.size(), layout.align()) };
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        alloc_zeroed(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { realloc(block, layout.size(), layout.align(), new_size) }
    }
}
