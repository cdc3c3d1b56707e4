//! Waiting for a word to change, within a process and between the watchdog and its child.
//!
//! Thread context. One system call each.

use std::sync::atomic::{AtomicU32, Ordering};

/// Waits until `word` holds something else than `value`. Its store must be followed by [`wake`].
pub(crate) fn wait_while(word: &AtomicU32, value: u32) {
    // Acquire: what the writer did before its store is seen by whoever has waited for it.
    while word.load(Ordering::Acquire) == value {
        // SAFETY: the word is live for the call, and a null timeout is allowed. The futex is not private to the process: the
        // word may be in shared memory. Whatever the call returns, the loop looks again.
        unsafe {
            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, std::ptr::null::<libc::timespec>());
        }
    }
}

/// Wakes everyone who waits for `word`.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: the word is live for the call, which only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
