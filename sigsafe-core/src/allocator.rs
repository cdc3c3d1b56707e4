//! What `sigsafe-alloc` keeps in the thread record, and how deferral asks for it.
//!
//! The word `cache` is the address of the cache that operations work on, or 0. A cache begins with its *mark*, which is 0 while
//! nobody works on it, and otherwise the stack pointer of the operation that does. So there is never a second user of a cache on its
//! thread, and an operation that goes on after a handler has given the thread another cache still clears the mark that it has set.
//!
//! An operation that a handler has left by `longjmp` never clears its mark, and signals must not wait for it. Whether one is still
//! there is told by where the interrupted code stands: all that an operation executes while it has the cache lies in a section of its
//! own ([`set_text`]), its system calls included. So a managed handler that interrupts a foreign handler, which has interrupted an
//! operation, is not held back.
//!
//! Runs in any context.

use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::defer::flush::flush_if_outermost;
use crate::record::{ThreadRecord, fence, record};
use crate::sys;

/// Where the allocator's operations have their code; nowhere while there is none.
static TEXT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Says where all code lies that the allocator executes while it works on a cache: from the first address to before the last.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn set_text(start: usize, end: usize) {
    // SIGNAL: in between, and before, nothing lies there.
    TEXT[0].store(start, Ordering::Relaxed);
    TEXT[1].store(end, Ordering::Relaxed);
}

/// The calling thread's words.
#[derive(Copy, Clone, Debug)]
pub struct Words(&'static ThreadRecord);

/// The calling thread's words. They must not leave the thread.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[inline(always)]
pub fn words() -> Words {
    Words(record())
}

impl Words {
    /// The address of the cache that operations work on, and so of its mark; 0 while there is none.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[inline(always)]
    pub fn cache(self) -> &'static AtomicUsize {
        &self.0.cache
    }

    /// For the allocator to keep: the first of all the caches that the thread has.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[inline(always)]
    pub fn caches(self) -> &'static AtomicUsize {
        &self.0.caches
    }
}

/// The address of the cache that the calling thread's operations work on, and so of its mark; 0 while there is none.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[inline(always)]
pub fn cache() -> usize {
    sys::load::<{ offset_of!(ThreadRecord, cache) }>()
}

/// Whether signals were held back since the mark was set: after it has been cleared, [`let_in`] is to be called.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[inline(always)]
pub fn held_back() -> bool {
    // SIGNAL: one before the mark was cleared was captured, and `added` says so; one after it finds the allocator left.
    fence();
    !sys::is_zero::<{ offset_of!(ThreadRecord, added) }>()
}

/// Lets in the signals that were held back, unless a region below still does, or an operation below a managed handler.
///
/// Async-signal safety: may be called from a handler. Cost: `rt_sigprocmask`, where signals are let in.
#[cold]
pub fn let_in() {
    flush_if_outermost();
}

/// The mark of the thread's cache.
#[inline]
pub(crate) fn mark(r: &ThreadRecord) -> usize {
    let mark: *const AtomicUsize = ptr::with_exposed_provenance(r.cache.load(Ordering::Relaxed));
    // SAFETY: null, or a cache, which begins with its mark; caches stay.
    unsafe { mark.as_ref() }.map_or(0, |mark| mark.load(Ordering::Relaxed))
}

/// Whether the code with this stack pointer runs in or above an operation of the allocator that works on the thread's cache, as far
/// as the stack tells.
#[inline]
pub(crate) fn busy(r: &ThreadRecord, stack_pointer: usize) -> bool {
    let mark = mark(r);
    mark != 0 && stack_pointer <= mark
}

/// Whether the code that a signal has interrupted is an operation of the allocator that works on the thread's cache.
///
/// # Safety
///
/// `context` is the kernel's of a live frame.
#[cfg(deferral)]
#[inline]
pub(crate) unsafe fn interrupted(r: &ThreadRecord, context: *const libc::ucontext_t) -> bool {
    // SAFETY: the caller's promise.
    mark(r) != 0 && unsafe { in_text(context) }
}

/// # Safety
///
/// As for `interrupted`.
#[cfg(deferral)]
#[cold]
unsafe fn in_text(context: *const libc::ucontext_t) -> bool {
    if mutant!("parked-in-allocator") {
        return false;
    }
    // SAFETY: the caller's promise.
    let counter = unsafe { sys::program_counter(context) }.unwrap_or(0);
    (TEXT[0].load(Ordering::Relaxed)..TEXT[1].load(Ordering::Relaxed)).contains(&counter)
}

/// Whether the calling code runs in or above an operation that works on the thread's cache.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn in_operation() -> bool {
    busy(record(), stack_pointer())
}

/// About where the stack ends now.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: reads a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let here = 0u8;
        pointer = core::hint::black_box(&raw const here).addr();
    }
    pointer
}

/// Runs `call` and puts back the `errno` from before it.
///
/// Async-signal safety: may be called from a handler. Cost: the call's.
pub fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    sys::errno::keeping_errno(call)
}
