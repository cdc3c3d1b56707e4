//! Operations without a cache: in a handler that interrupted one with it, before a thread has one, and after.
//!
//! A block is taken from a span that this operation holds alone for that long, and freed by one compare-and-swap.

use core::ptr::null_mut;

use super::class::Class;
use super::link::Block;
use super::span::Span;

/// A block, or null; and whether it is zero.
#[cold]
#[inline(never)]
pub(super) fn alloc(class: Class) -> (*mut u8, bool) {
    loop {
        // SIGNAL: a handler that leaves by longjmp while the span is held keeps its free blocks from everybody.
        let Some(span) = Span::get(class) else { return (null_mut(), false) };
        let taken = span.take_one();
        span.let_go();
        if let Some(taken) = taken {
            return (taken.first.cast(), taken.zeroed);
        }
    }
}

/// Frees a block.
///
/// # Safety
///
/// It is of a class, and the caller's.
#[cold]
#[inline(never)]
pub(super) unsafe fn dealloc(block: *mut u8) {
    let block: *mut Block = block.cast();
    // SAFETY: the caller's promise.
    unsafe { Span::of(block).free(block, block, 1) };
}
