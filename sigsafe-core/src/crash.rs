//! The end of the process by a signal of the caller's choice, from any context.
//!
//! Runs in the main flow, in regions and in handlers, and does not return.

use crate::signal::{Flags, Signal};
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// Signals whose default action lets the process live: it stops it, or does nothing.
const SURVIVED: SigSet = {
    let mut set = SigSet::EMPTY;
    let mut number = 1;
    while let Ok(signal) = Signal::new(number) {
        if signal.flags().contains(Flags::IGNORE) || signal.flags().contains(Flags::STOP) {
            set = set.with(signal);
        }
        number += 1;
    }
    set
};

/// Each try fails only if another thread installs a handler, or has the signal ignored, in a window of some hundred nanoseconds.
const TRIES: u32 = 20_000;

/// Dies from `signal`, so that the parent's wait status says just that: whatever the mask and the disposition of the signal are, and
/// though other threads keep on changing the disposition. No handler of another signal runs on this thread any more.
///
/// A signal whose default action does not end the process (on Linux CHLD, CONT, URG, WINCH, and those that stop: STOP, TSTP, TTIN, TTOU)
/// can be the cause of no death; SIGABRT stands in for them. If the system does not let the signal end the process at all (process 1 of a pid
/// namespace, a seccomp filter that refuses to send it), the exit status is 128 + its number, as shells have it.
///
/// Async-signal safety: may be called from a handler, and in a region. Cost: six system calls.
#[doc(alias = "dieFromSignal")]
#[cold]
pub fn crash(signal: Signal) -> ! {
    let signal = if SURVIVED.contains(signal) { Signal::ABRT } else { signal };
    for _ in 0..TRIES {
        // Blocked, so that it meets no handler while it is sent, and nothing else is handled.
        sys::sigprocmask(How::Set, SigSet::FULL);
        send_to_self(signal);
        reset_disposition(signal);
        // Delivered before this returns, unless it met a handler of somebody else's or was discarded: then once more.
        sys::sigprocmask(How::Set, SigSet::FULL.without(signal));
    }
    // SAFETY: ends the process without exit handlers, which may be what has crashed.
    unsafe { libc::_exit(128 + signal.number()) }
}

/// To this thread, or to the process when that is refused: with `RLIMIT_SIGPENDING` exhausted, only `kill` sends real-time signals.
fn send_to_self(signal: Signal) {
    // SAFETY: the call takes no pointer.
    #[cfg(target_os = "linux")]
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), signal.number()) };
    // SAFETY: the call takes no pointer.
    #[cfg(not(target_os = "linux"))]
    let result = unsafe { libc::pthread_kill(libc::pthread_self(), signal.number()) };
    if result != 0 {
        // SAFETY: the call takes no pointer.
        unsafe { libc::kill(libc::getpid(), signal.number()) };
    }
}

/// The default action from here on.
fn reset_disposition(signal: Signal) {
    // Around libc, which refuses its own signals; and `fatal` may be called with any state of libc's.
    #[cfg(target_os = "linux")]
    {
        // The kernel's struct: handler, flags, restorer, mask. All zero is SIG_DFL.
        let default = [0u64; 4];
        // SAFETY: the kernel reads 32 bytes at `default`, and is told of eight of them as the mask; no handler is named.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.number(), &raw const default, core::ptr::null::<u64>(), 8usize) };
    }
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: `sigaction` is plain data for which zero is a value: SIG_DFL.
        let default: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: the pointer is to a live value; no handler is named.
        unsafe { libc::sigaction(signal.number(), &raw const default, core::ptr::null_mut()) };
    }
}
