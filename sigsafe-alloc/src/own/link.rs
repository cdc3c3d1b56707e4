//! The link to the next free block, in a free block's first word.
//!
//! Read and written as an atomic without order: the processor's plain load and store, and no data race with a stopped thread.

use super::sync::{AtomicPtr, Ordering};

use super::hardened;

/// A free block.
#[repr(C)]
pub(super) struct Block {
    next: AtomicPtr<Block>,
}

/// The next free block, or null.
///
/// # Safety
///
/// The block is free and has been linked.
#[inline(always)]
pub(super) unsafe fn link(block: *mut Block) -> *mut Block {
    // SAFETY: a block is at least a word large, aligned to it, and stays mapped.
    hardened::link::decode(block, unsafe { (*block).next.load(Ordering::Relaxed) })
}

/// Links a free block to the next.
///
/// # Safety
///
/// The block is free and the caller's.
#[inline(always)]
pub(super) unsafe fn set_link(block: *mut Block, next: *mut Block) {
    // SAFETY: as in `link`.
    unsafe { (*block).next.store(hardened::link::encode(block, next), Ordering::Relaxed) }
}
