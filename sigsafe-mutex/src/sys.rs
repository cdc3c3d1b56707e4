//! The system calls of the locks: two on a futex, and one to give up the processor.
//!
//! All keep `errno`, because a lock may be taken in a handler, and by code that has not looked at its `errno` yet.
//! They run in any context: in threads, in handlers, inside regions (the wake) and outside (the wait).

use core::ptr;
use core::sync::atomic::AtomicU32;

/// Parks the thread until a wake, unless `word` no longer holds `expected` when the kernel looks.
///
/// Returns for any reason: a wake, another value in the word (`EAGAIN`), a handler that ran (`EINTR`), and the spurious
/// returns that futexes allow. The caller reads the word again in each case. An environment that forbids the call
/// altogether turns the caller's wait into a spin.
#[doc(alias = "FUTEX_WAIT")]
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    keeping_errno(|| {
        // SAFETY: FUTEX_WAIT reads the aligned 32-bit word behind the live reference, compares it with `expected`, and takes
        // a null timeout for "none". It writes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                expected,
                ptr::null::<libc::timespec>(),
            );
        }
    });
}

/// Wakes one of the threads that are parked on `word`, if there is one.
///
/// Takes an address, because the lock may be gone by the time of the call: once the word says "free", its next owner may
/// destroy it. A wake on memory that has another use by then is a spurious return for somebody, which futexes allow.
#[doc(alias = "FUTEX_WAKE")]
#[cold]
pub(crate) fn futex_wake_one(word: *const AtomicU32) {
    keeping_errno(|| {
        // SAFETY: FUTEX_WAKE uses the address as a key and reads nothing behind it; an address that is not mapped is an error
        // code.
        unsafe {
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        }
    });
}

/// Gives up the processor once, for whoever else is ready.
#[doc(alias = "sched_yield")]
pub(crate) fn yield_processor() {
    keeping_errno(|| {
        // SAFETY: `sched_yield` has no preconditions.
        unsafe { libc::sched_yield() };
    });
}

/// Runs `call` and puts back the `errno` from before it.
///
/// A handler that lands in between saves and restores `errno` around itself, or changes what only `call` could have changed.
fn keeping_errno(call: impl FnOnce()) {
    // SAFETY: the location is this thread's `errno`: valid, aligned, and no other thread's to touch.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { errno.read() };
    call();
    // SAFETY: as above; the thread is the same one.
    unsafe { errno.write(before) };
}
