//! The calling thread's `errno`: every system has it, and most have another name for its address.
//!
//! Runs in any context.

use core::ffi::c_int;

#[cfg(target_os = "illumos")]
use libc::___errno as location;
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as location;
#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as location;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as location;

/// The calling thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: libc's errno is thread-local without set-up: its address is valid for the life of the thread.
    unsafe { *location() }
}

/// Puts `errno` back.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as in `errno`.
    unsafe { *location() = value }
}

/// Runs `call` and puts back the `errno` from before it.
///
/// A handler that lands in between saves and restores `errno` around itself, or changes what only `call` could have changed.
#[inline(always)]
pub(crate) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = call();
    set_errno(before);
    result
}
