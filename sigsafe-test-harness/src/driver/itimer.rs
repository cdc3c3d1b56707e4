//! The driver `itimer`: the process's own profiling timer, which counts its CPU time.
//!
//! Thread context of the child's first thread. The kernel sends the signal to the process, and any thread that has it
//! unblocked may take it: only those that work do. It looks at the timer once a tick, so that a higher rate gives one signal
//! for each tick of CPU time.

use std::io;

/// Starts the timer.
///
/// # Errors
///
/// The failure of `setitimer`.
pub(crate) fn start(period_ns: u64) -> io::Result<()> {
    set(i64::try_from(period_ns / 1000).unwrap_or(i64::MAX).max(1))
}

/// Stops the timer. What it has sent may still be on its way.
pub(crate) fn stop() {
    // Disarming cannot fail: the values are valid.
    let _ = set(0);
}

fn set(interval_us: i64) -> io::Result<()> {
    let interval = libc::timeval { tv_sec: interval_us / 1_000_000, tv_usec: interval_us % 1_000_000 };
    let value = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the new value is live for the call, and a null pointer for the old one is allowed.
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const value, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
