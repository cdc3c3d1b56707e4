//! DragonFly: `umtx_sleep` and `umtx_wakeup`.

use core::ptr::without_provenance;
use core::sync::atomic::AtomicU32;

use crate::sys::errno::keeping_errno;

/// Parks the thread unless `word` no longer holds `expected` when the kernel looks.
#[doc(alias = "umtx_sleep")]
pub(crate) fn park(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads the aligned word behind the live reference and compares it with `expected`; 0 is no timeout.
    keeping_errno(|| unsafe { libc::umtx_sleep(word.as_ptr().cast_const().cast(), expected as i32, 0) });
}

/// Wakes one of the threads that are parked on the word at this address, if there is one.
#[doc(alias = "umtx_wakeup")]
pub(crate) fn unpark_one(address: usize) {
    // SAFETY: the kernel takes the address as a key and reads nothing behind it; one that is not mapped is an error code.
    keeping_errno(|| unsafe { libc::umtx_wakeup(without_provenance(address), 1) });
}
