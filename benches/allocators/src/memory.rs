//! What the kernel says about this process: resident memory now and at its highest, processor time, and mapped files.

use std::fs;

/// `VmRSS` or `VmHWM` of `/proc/self/status`, in KiB. Not `ru_maxrss`: that starts at what the parent had.
fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_else(|| panic!("no {field} in /proc/self/status"))
}

pub(crate) fn resident_kib() -> u64 {
    status_kib("VmRSS")
}

pub(crate) fn peak_kib() -> u64 {
    status_kib("VmHWM")
}

/// Processor time of all threads of this process, user and system.
pub(crate) fn cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that the call may write.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    assert_eq!(failed, 0, "clock_gettime");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether a file whose path contains `part` is mapped, as a preloaded library is.
pub(crate) fn is_mapped(part: &str) -> bool {
    fs::read_to_string("/proc/self/maps").expect("/proc is mounted").contains(part)
}
