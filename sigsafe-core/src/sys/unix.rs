//! Every system without deferral: the names of `linux`, over libc.
//!
//! libc's wrappers write `errno`, which is put back. In its sets they leave out the signals that they keep for themselves, which this
//! crate never asks for.

use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use super::errno::keeping_errno;
use super::{How, from_sigset, to_sigset};
use crate::signal::Signal;
use crate::sigset::SigSet;

/// `pthread_sigmask`: edits this thread's mask and returns the one before. Cannot fail with these arguments.
pub(crate) fn sigprocmask(how: How, set: SigSet) -> SigSet {
    let new = to_sigset(set);
    let mut old = to_sigset(SigSet::EMPTY);
    // SAFETY: both pointers are to sets on this stack.
    keeping_errno(|| unsafe { libc::pthread_sigmask(how as i32, &raw const new, &raw mut old) });
    from_sigset(&old)
}

/// `sigpending`: what waits in the kernel for this thread.
pub(crate) fn sigpending() -> SigSet {
    let mut set = to_sigset(SigSet::EMPTY);
    // SAFETY: the pointer is to a set on this stack.
    keeping_errno(|| unsafe { libc::sigpending(&raw mut set) });
    from_sigset(&set)
}

/// `sigaction` that reads. `None` when libc refuses.
pub(crate) fn action(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: nothing is installed.
    unsafe { super::sigaction(signal, None) }
}

/// `sigaction` that puts back what [`action`] has read. `false` when libc refuses.
///
/// # Safety
///
/// The handler in `action` may run at any instruction of the process from now on.
pub(crate) unsafe fn restore_action(signal: c_int, action: &libc::sigaction) -> bool {
    // SAFETY: the caller vouches for the handler.
    unsafe { super::sigaction(signal, Some(action)) }.is_some()
}

/// Whether the kernel would see the same in both.
pub(crate) fn same_action(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    a.sa_sigaction == b.sa_sigaction && a.sa_flags == b.sa_flags && from_sigset(&a.sa_mask) == from_sigset(&b.sa_mask)
}

/// `pthread_kill` to this thread.
pub(crate) fn send_to_self(signal: c_int) {
    // SAFETY: this thread is alive.
    keeping_errno(|| unsafe { libc::pthread_kill(libc::pthread_self(), signal) });
}

/// `getpid`.
pub(crate) fn process_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { libc::getpid() as u32 }
}

/// A number for this thread that no other thread of the process has, nor had at a fork that it comes from, counted from 1: the systems
/// have seven calls for their own ids, and locks only need to tell threads apart. To be asked for once on each thread.
pub(crate) fn new_thread_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        // Locks keep the upper bits for themselves.
        let id = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & (u32::MAX >> 2);
        if id != 0 {
            return id;
        }
    }
}

/// `write` to standard error; a partial or failed write is not retried.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // SAFETY: pointer and length are of one live slice.
    keeping_errno(|| unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) });
}

/// `sigsuspend`: waits with another mask until a handler has run.
pub(crate) fn sigsuspend(mask: &libc::sigset_t) {
    // SAFETY: the pointer is to a live set.
    keeping_errno(|| unsafe { libc::sigsuspend(mask) });
}

/// `sigtimedwait`: takes a signal of `set` that waits, or waits for one, for as long as `timeout` says. The error is an error number:
/// `EAGAIN` after the timeout, `EINTR` when a handler has run.
///
/// # Safety
///
/// `info` points to a writable `siginfo_t`.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "dragonfly", target_os = "netbsd"))]
pub(crate) unsafe fn sigtimedwait(set: SigSet, info: *mut libc::siginfo_t, timeout: Option<Duration>) -> Result<Signal, c_int> {
    let set = to_sigset(set);
    // Systems refuse seconds beyond a limit of their own; the caller comes back for what is left.
    let timeout = timeout.unwrap_or(Duration::MAX).min(Duration::from_secs(100_000_000));
    let timeout = libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos() as _ };
    keeping_errno(|| {
        // SAFETY: set and timeout are on this stack, and `info` is the caller's.
        let result = unsafe { libc::sigtimedwait(&raw const set, info, &raw const timeout) };
        if result < 0 { Err(super::errno()) } else { Signal::new(result).map_err(|_| libc::EINTR) }
    })
}

/// What takes the place of `sigtimedwait` where there is none: looks every millisecond for something that waits, and takes it by
/// `sigwait`, which tells the number alone. Errors as there, but a handler does not end it. Another thread that takes the same signal
/// of the process in between makes this wait for the next.
///
/// # Safety
///
/// `info` points to a writable `siginfo_t`.
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "dragonfly", target_os = "netbsd")))]
pub(crate) unsafe fn sigtimedwait(set: SigSet, info: *mut libc::siginfo_t, timeout: Option<Duration>) -> Result<Signal, c_int> {
    let deadline = timeout.and_then(|timeout| super::monotonic_time().checked_add(timeout));
    loop {
        let waiting = to_sigset(sigpending().intersection(set));
        let mut number = 0;
        // SAFETY: the set and the number are on this stack.
        if !from_sigset(&waiting).is_empty() && unsafe { libc::sigwait(&raw const waiting, &raw mut number) } == 0 {
            // SAFETY: the caller's siginfo, for which zero is a value.
            unsafe {
                info.write_bytes(0, 1);
                (*info).si_signo = number;
            }
            return Signal::new(number).map_err(|_| libc::EINTR);
        }
        if deadline.is_some_and(|deadline| super::monotonic_time() >= deadline) {
            return Err(libc::EAGAIN);
        }
        let nap = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: reads one time on this stack.
        keeping_errno(|| unsafe { libc::nanosleep(&raw const nap, core::ptr::null_mut()) });
    }
}
