//! Linux: `futex`.

use core::ptr::null;
use core::sync::atomic::AtomicU32;

use crate::sys::errno::keeping_errno;

/// Parks the thread unless `word` no longer holds `expected` when the kernel looks.
#[doc(alias = "FUTEX_WAIT")]
pub(crate) fn park(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads the aligned word behind the live reference, compares it with `expected`, and takes a null timeout for
    // "none". It writes nothing.
    keeping_errno(|| unsafe {
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, null::<libc::timespec>());
    });
}

/// Wakes one of the threads that are parked on the word at this address, if there is one.
#[doc(alias = "FUTEX_WAKE")]
pub(crate) fn unpark_one(address: usize) {
    // SAFETY: the kernel takes the address as a key and reads nothing behind it; one that is not mapped is an error code.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) });
}
