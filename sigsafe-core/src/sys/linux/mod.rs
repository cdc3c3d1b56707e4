//! Linux: raw system calls.
//!
//! Raw, because libc's wrappers write `errno`, strip sets of 128 bytes, and in a preloaded library may be ourselves. A frame
//! of a signal may lie between any two instructions of the caller, and `errno` belongs to the code that it interrupted.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod action;
mod number;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64::syscall4;
#[cfg(target_arch = "x86_64")]
use x86_64::syscall4;

pub(crate) use action::{action, restore_action, same_action};
pub(crate) use number::new_thread_number;

use core::ffi::c_int;
use core::ptr::null;
use core::sync::atomic::AtomicU64;
use core::time::Duration;

use super::How;
use crate::signal::Signal;
use crate::sigset::SigSet;

/// What the kernel copies of a signal set: 64 bits.
const SIGSET_BYTES: usize = 8;

/// `rt_sigprocmask`: edits this thread's mask and returns the one before. Cannot fail with these arguments.
pub(crate) fn sigprocmask(how: How, set: SigSet) -> SigSet {
    let new = set.bits();
    let mut old = 0u64;
    // SAFETY: both pointers are to eight bytes on this stack, which is the size that the call is told.
    unsafe {
        syscall4(libc::SYS_rt_sigprocmask, how as usize, (&raw const new).addr(), (&raw mut old).addr(), SIGSET_BYTES);
    }
    SigSet::from_bits(old)
}

/// Unblocks `set`. The kernel overwrites `announced` with the mask from before, in the same step: before it delivers anything that the call
/// lets in, and not at all where a handler comes before the call.
pub(crate) fn unblock_announced(set: SigSet, announced: &AtomicU64) {
    let new = set.bits();
    // SAFETY: both pointers are to eight live bytes, which is the size that the call is told; the second are an atomic's.
    unsafe {
        syscall4(libc::SYS_rt_sigprocmask, How::Unblock as usize, (&raw const new).addr(), announced.as_ptr().addr(), SIGSET_BYTES);
    }
}

/// `rt_sigpending`: what waits in the kernel for this thread.
pub(crate) fn sigpending() -> SigSet {
    let mut set = 0u64;
    // SAFETY: the pointer is to eight bytes on this stack, which is the size that the call is told.
    unsafe {
        syscall4(libc::SYS_rt_sigpending, (&raw mut set).addr(), SIGSET_BYTES, 0, 0);
    }
    SigSet::from_bits(set)
}

/// `rt_tgsigqueueinfo` to this thread of `process`, which is this one: the signal arrives with exactly this siginfo, whatever its
/// `si_code` (the kernel restricts the codes of signals to others only). `false` when the kernel refuses: `RLIMIT_SIGPENDING`, a seccomp
/// filter.
///
/// # Safety
///
/// `info` points to 128 readable bytes, a `siginfo_t`.
pub(crate) unsafe fn queue_to_self(process: u32, signal: c_int, info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel reads 128 bytes at `info`, which the caller vouches for.
    let result =
        unsafe { syscall4(libc::SYS_rt_tgsigqueueinfo, process as usize, kernel_thread_id() as usize, signal as usize, info.addr()) };
    result == 0
}

/// `rt_sigqueueinfo` to this process: any thread that has the signal unblocked may take it. `false` when the kernel refuses.
///
/// # Safety
///
/// `info` points to 128 readable bytes, a `siginfo_t`.
pub(crate) unsafe fn queue_to_process(signal: c_int, info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel reads 128 bytes at `info`, which the caller vouches for.
    unsafe { syscall4(libc::SYS_rt_sigqueueinfo, process_id() as usize, signal as usize, info.addr(), 0) == 0 }
}

/// `kill` to this process.
pub(crate) fn send_to_process(signal: c_int) {
    // SAFETY: the call takes no pointer.
    unsafe {
        syscall4(libc::SYS_kill, process_id() as usize, signal as usize, 0, 0);
    }
}

/// `rt_sigtimedwait`: takes a signal of `set` that waits, or waits for one, for as long as `timeout` says. The error is an error
/// number: `EAGAIN` after the timeout, `EINTR` when a handler has run.
///
/// # Safety
///
/// `info` points to a writable `siginfo_t`.
pub(crate) unsafe fn sigtimedwait(set: SigSet, info: *mut libc::siginfo_t, timeout: Option<Duration>) -> Result<Signal, c_int> {
    let set = set.bits();
    // Seconds are an `i64` on every 64-bit Linux.
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(null(), core::ptr::from_ref);
    // SAFETY: set and timeout are on this stack, of the size that the call is told; `info` is the caller's.
    let result = unsafe { syscall4(libc::SYS_rt_sigtimedwait, (&raw const set).addr(), info.addr(), timeout.addr(), SIGSET_BYTES) };
    if result < 0 {
        return Err(-result as c_int);
    }
    Signal::new(result as c_int).map_err(|_| libc::EINTR)
}

/// `rt_sigsuspend`: waits with another mask until a handler has run.
pub(crate) fn sigsuspend(mask: &libc::sigset_t) {
    // SAFETY: the kernel reads the eight bytes with which libc's set begins.
    unsafe {
        syscall4(libc::SYS_rt_sigsuspend, core::ptr::from_ref(mask).addr(), SIGSET_BYTES, 0, 0);
    }
}

/// `getpid`, never cached: the child of a fork must not requeue to its parent.
pub(crate) fn process_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { syscall4(libc::SYS_getpid, 0, 0, 0, 0) as u32 }
}

/// `getppid`.
pub(crate) fn parent_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { syscall4(libc::SYS_getppid, 0, 0, 0, 0) as u32 }
}

/// `gettid`, never cached.
pub(crate) fn kernel_thread_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { syscall4(libc::SYS_gettid, 0, 0, 0, 0) as u32 }
}

/// A page of zeroed memory that is zeroed again in the child of a fork, never given back; null when there is none.
pub(crate) fn map_wiped_on_fork() -> *mut u8 {
    const PAGE: usize = 4096;
    let page = super::map_pages(PAGE);
    if !page.is_null() {
        // SAFETY: the page is ours and holds nothing yet.
        let result = unsafe { syscall4(libc::SYS_madvise, page.addr(), PAGE, libc::MADV_WIPEONFORK as usize, 0) };
        if result != 0 {
            return core::ptr::null_mut();
        }
    }
    page
}

/// `tgkill` to this thread.
pub(crate) fn send_to_self(signal: c_int) {
    // SAFETY: the call takes no pointer.
    unsafe {
        syscall4(libc::SYS_tgkill, process_id() as usize, kernel_thread_id() as usize, signal as usize, 0);
    }
}

/// `write` to standard error; a partial or failed write is not retried.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // SAFETY: pointer and length are of one live slice.
    unsafe {
        syscall4(libc::SYS_write, 2, bytes.as_ptr().addr(), bytes.len(), 0);
    }
}
