//! What is libc's on every system.
//!
//! POSIX lists each of these calls as async-signal-safe, or it is one system call and nothing else (`mmap`, `munmap`).

use core::ffi::c_int;
use core::ptr::{null, null_mut};
use core::time::Duration;

use super::errno::keeping_errno;

/// What to do to the mask.
#[derive(Copy, Clone)]
#[repr(i32)]
pub(crate) enum How {
    Block = libc::SIG_BLOCK,
    Unblock = libc::SIG_UNBLOCK,
    Set = libc::SIG_SETMASK,
}

/// `sigaction`: reads, and with `new` replaces, the disposition. By libc, which supplies the return trampoline that the Linux
/// kernel needs on x86_64 and that debuggers know. `None` when libc refuses.
///
/// # Safety
///
/// The handler in `new` may run at any instruction of the process from now on.
pub(crate) unsafe fn sigaction(signal: c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    // SAFETY: `sigaction` is plain data for which zero is a value.
    let mut old: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: both pointers are null or to live values; the caller vouches for the handler.
    let result = keeping_errno(|| unsafe { libc::sigaction(signal, new.map_or(null(), core::ptr::from_ref), &raw mut old) });
    (result == 0).then_some(old)
}

/// Pages of zeroed memory; null when there is none.
pub(crate) fn map_pages(bytes: usize) -> *mut u8 {
    let address = keeping_errno(|| {
        // SAFETY: a new private anonymous mapping touches no memory of anyone's.
        unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) }
    });
    if address == libc::MAP_FAILED { null_mut() } else { address.cast() }
}

/// Sleeps for a moment: long enough for another thread to make a few system calls.
pub(crate) fn nap() {
    let moment = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
    // SAFETY: reads one time on this stack, and has no use for what is left of it.
    keeping_errno(|| unsafe { libc::nanosleep(&raw const moment, null_mut()) });
}

/// `clock_gettime`, the monotonic clock.
pub(crate) fn monotonic_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec on this stack. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
