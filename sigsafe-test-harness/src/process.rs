//! What both parents of child processes need: the watchdog of a storm and the isolated test.
//!
//! Ordinary thread context, except where a function says that it runs between fork and exec.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getppid};

/// How much of the end of a child's output is kept.
const KEPT_OUTPUT_BYTES: u64 = 32 * 1024;

/// Asks the kernel to kill this process when the thread that started it ends. Runs between fork and exec: system calls only.
///
/// # Errors
///
/// The failure of `prctl`, or `ESRCH` when the parent has gone already.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before the request was in force.
    if getppid().as_raw() as u32 != parent {
        return Err(Errno::ESRCH.into());
    }
    Ok(())
}

/// An unnamed file in memory, closed on exec.
pub(crate) fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"sigsafe", MFdFlags::MFD_CLOEXEC)?))
}

/// A descriptor that becomes readable when `child` ends.
pub(crate) fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: `pidfd_open` takes two integers; the child is not reaped, so the number is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits until one of `descriptors` is readable and returns its place; `None` when `limit` has passed first.
pub(crate) fn wait_readable(descriptors: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Option<usize>> {
    let deadline = Instant::now() + limit;
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait does not spin through a part of a millisecond.
        let milliseconds = left.as_micros().div_ceil(1000);
        let timeout = i32::try_from(milliseconds).map_or(PollTimeout::MAX, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        match poll(&mut polled, timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(polled.iter().position(|fd| fd.any() == Some(true))),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills the process group that `child` leads, and reaps `child`. The child must not have been reaped before: its zombie is
/// what keeps the group's number its own.
pub(crate) fn end_group(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    // A group whose members have all ended is no error.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    child.wait()
}

/// The end of a child's output. It is read at offsets, because the child's descriptors share the position.
pub(crate) fn end_of(output: &File) -> io::Result<String> {
    let length = output.metadata()?.len();
    let start = length.saturating_sub(KEPT_OUTPUT_BYTES);
    let mut bytes = vec![0; (length - start) as usize];
    output.read_exact_at(&mut bytes, start)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The monotonic clock in nanoseconds: one scale for the watchdog and its child.
pub(crate) fn now_ns() -> u64 {
    // The monotonic clock can always be read; zero only if there were none.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Waits until the process behind `pidfd` ends; `false` when `limit` has passed first.
pub(crate) fn wait_end(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    Ok(wait_readable(&[pidfd.as_fd()], limit)?.is_some())
}
