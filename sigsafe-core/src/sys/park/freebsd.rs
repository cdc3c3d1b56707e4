//! FreeBSD: `_umtx_op`.

use core::ptr::null_mut;
use core::sync::atomic::AtomicU32;

use crate::sys::errno::keeping_errno;

/// Parks the thread unless `word` no longer holds `expected` when the kernel looks.
#[doc(alias = "UMTX_OP_WAIT_UINT_PRIVATE")]
pub(crate) fn park(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads the aligned word behind the live reference, compares it with `expected`, and takes no timeout.
    keeping_errno(|| unsafe {
        libc::_umtx_op(word.as_ptr().cast(), libc::UMTX_OP_WAIT_UINT_PRIVATE, expected.into(), null_mut(), null_mut())
    });
}

/// Wakes one of the threads that are parked on the word at this address, if there is one.
#[doc(alias = "UMTX_OP_WAKE_PRIVATE")]
pub(crate) fn unpark_one(address: usize) {
    // SAFETY: the kernel takes the address as a key and reads nothing behind it.
    keeping_errno(|| unsafe {
        libc::_umtx_op(core::ptr::without_provenance_mut(address), libc::UMTX_OP_WAKE_PRIVATE, 1, null_mut(), null_mut())
    });
}
