//! Telling the child of a `vfork` from its parent: it shares the parent's memory, the thread record included, until it executes
//! another program, and must leave there what the parent's region holds back.
//!
//! A page that the kernel wipes in the child of a `fork` holds the process's id. Zero: the child of a fork, whose record is its
//! own. Another process's id: memory is shared with that process, if it is the parent.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::sys;

static OWNER: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// Makes the page, as the first handler is installed. Where that fails nobody is taken for such a child.
pub(crate) fn prepare() {
    if !OWNER.load(Ordering::Acquire).is_null() {
        return;
    }
    let page: *mut AtomicU32 = sys::map_wiped_on_fork().cast();
    if page.is_null() {
        return;
    }
    // SAFETY: a fresh page of zeros, aligned, that is never unmapped.
    unsafe { (*page).store(sys::process_id(), Ordering::Relaxed) };
    // A page that loses the race stays unused.
    let _ = OWNER.compare_exchange(null_mut(), page, Ordering::AcqRel, Ordering::Acquire);
}

/// Whether `process`, the caller's, is a child that shares its parent's memory.
pub(crate) fn is_child(process: u32) -> bool {
    // SAFETY: null or a page that is never unmapped.
    let Some(owner) = (unsafe { OWNER.load(Ordering::Acquire).as_ref() }) else { return false };
    let id = owner.load(Ordering::Relaxed);
    if id == process || mutant!("vfork-unnoticed") {
        return false;
    }
    if id != 0 && id == sys::parent_id() {
        return true;
    }
    // The child of a fork, or the parent of a child that has shared its memory and is gone.
    owner.store(process, Ordering::Relaxed);
    false
}
