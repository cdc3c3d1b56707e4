//! The yardstick of the region benchmarks: blocking every signal and unblocking again, as two raw system calls.

use std::ptr;

/// What the kernel takes for a signal set: 64 bits, however large libc's own `sigset_t` is.
const KERNEL_SET_BYTES: usize = size_of::<u64>();

/// Blocks every signal, runs `body`, and restores the mask: two `rt_sigprocmask`, without libc's wrapper around them.
#[inline]
pub(crate) fn sigprocmask_pair<R>(body: impl FnOnce() -> R) -> R {
    let every = u64::MAX;
    let mut before = 0_u64;
    // SAFETY: both sets are live locals of the size that the call is told.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const every, &raw mut before, KERNEL_SET_BYTES);
    }
    let result = body();
    // SAFETY: as above; the old mask is not asked for.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const before, ptr::null_mut::<u64>(), KERNEL_SET_BYTES);
    }
    result
}
