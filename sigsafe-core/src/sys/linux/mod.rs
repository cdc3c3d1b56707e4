//! Linux: raw system calls.
//!
//! Raw, because libc's wrappers write `errno`, strip sets of 128 bytes, and in a preloaded library may be ourselves. A frame
//! of a signal may lie between any two instructions of the caller, and `errno` belongs to the code that it interrupted.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64::syscall4;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{program_counter, record_address};
#[cfg(target_arch = "x86_64")]
use x86_64::syscall4;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{program_counter, record_address};

use core::ffi::c_int;
use core::ptr::{null, null_mut};
use core::time::Duration;

use crate::signal::Signal;
use crate::sigset::SigSet;

/// What the kernel copies of a signal set: 64 bits.
const SIGSET_BYTES: usize = 8;

/// What to do to the mask (`SIG_BLOCK` and kin).
#[derive(Copy, Clone)]
#[repr(i32)]
pub(crate) enum How {
    Block = libc::SIG_BLOCK,
    Unblock = libc::SIG_UNBLOCK,
    Set = libc::SIG_SETMASK,
}

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

/// `rt_sigpending`: what waits in the kernel for this thread.
pub(crate) fn sigpending() -> SigSet {
    let mut set = 0u64;
    // SAFETY: the pointer is to eight bytes on this stack, which is the size that the call is told.
    unsafe {
        syscall4(libc::SYS_rt_sigpending, (&raw mut set).addr(), SIGSET_BYTES, 0, 0);
    }
    SigSet::from_bits(set)
}

/// `rt_tgsigqueueinfo` to this thread: the signal arrives with exactly this siginfo, whatever its `si_code` (the kernel
/// restricts the codes of signals to others only). `false` when the kernel refuses: `RLIMIT_SIGPENDING`, a seccomp filter.
///
/// # Safety
///
/// `info` points to 128 readable bytes, a `siginfo_t`.
pub(crate) unsafe fn queue_to_self(signal: c_int, info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel reads 128 bytes at `info`, which the caller vouches for.
    let result =
        unsafe { syscall4(libc::SYS_rt_tgsigqueueinfo, process_id() as usize, kernel_thread_id() as usize, signal as usize, info.addr()) };
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
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
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

/// libc's form of a set.
pub(crate) fn libc_set(set: SigSet) -> libc::sigset_t {
    // SAFETY: zero is the empty set.
    let mut all: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: libc's set begins with the kernel's eight bytes and is longer.
    unsafe { (&raw mut all).cast::<u64>().write(set.bits()) };
    all
}

/// `clock_gettime`, the monotonic clock.
pub(crate) fn monotonic_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec on this stack; POSIX lists the call as async-signal-safe. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// `getpid`, never cached: the child of a fork must not requeue to its parent.
pub(crate) fn process_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { syscall4(libc::SYS_getpid, 0, 0, 0, 0) as u32 }
}

/// `gettid`, never cached.
pub(crate) fn kernel_thread_id() -> u32 {
    // SAFETY: the call takes no pointer and always succeeds.
    unsafe { syscall4(libc::SYS_gettid, 0, 0, 0, 0) as u32 }
}

/// `futex` wake: wakes one thread that waits for the word at this address, if there is one. Nothing is read there.
pub(crate) fn futex_wake_one(address: usize) {
    // SAFETY: the kernel takes the address as a key only; one that is not mapped is an error code.
    unsafe {
        syscall4(libc::SYS_futex, address, (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize, 1, 0);
    }
}

/// Pages of zeroed memory that are never given back; null when there is none.
pub(crate) fn map_pages(bytes: usize) -> *mut u8 {
    let errno = errno();
    // SAFETY: a new private anonymous mapping touches no memory of anyone's.
    let address =
        unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    set_errno(errno);
    if address == libc::MAP_FAILED { null_mut() } else { address.cast() }
}

/// `write` to standard error; a partial or failed write is not retried.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // SAFETY: pointer and length are of one live slice.
    unsafe {
        syscall4(libc::SYS_write, 2, bytes.as_ptr().addr(), bytes.len(), 0);
    }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: libc's errno is initial-exec TLS: its address is valid for the life of the thread and needs no set-up.
    unsafe { *libc::__errno_location() }
}

/// Puts `errno` back.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value }
}

/// `sigaction`: reads, and with `new` replaces, the disposition. By libc, which supplies the return trampoline that the
/// kernel needs on x86_64 and that debuggers know; POSIX lists the call as async-signal-safe. `None` when libc refuses.
///
/// # Safety
///
/// The handler in `new` may run at any instruction of the process from now on.
pub(crate) unsafe fn sigaction(signal: c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    let errno = errno();
    // SAFETY: `sigaction` is plain data for which zero is a value.
    let mut old: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: both pointers are null or to live values; the caller vouches for the handler.
    let result = unsafe { libc::sigaction(signal, new.map_or(null(), core::ptr::from_ref), &raw mut old) };
    set_errno(errno);
    (result == 0).then_some(old)
}
