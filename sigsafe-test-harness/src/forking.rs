//! A fork in the middle of a storm, as a check: the child goes on with what it has inherited, and ends.
//!
//! Thread context, with signals about to land; the child has none, since neither its timers nor its driver are inherited. It
//! shares the block of counters with its parent and the watchdog, and writes a fault there as any thread does.

use std::io;

use crate::fault::{Fault, FaultKind};

/// How long a child may take until the kernel ends it: some thousand times what it takes.
const LIMIT_SECONDS: u32 = 10;

/// Forks. The child runs `body`, which says whether it found everything in order, and exits; the parent waits for it. False when there
/// could be no child, for want of memory or processes.
///
/// # Errors
///
/// The child ended otherwise than by an exit with status 0. If it has reported a fault itself, that one came first.
pub(crate) fn check_in_child(body: impl FnOnce() -> bool) -> Result<bool, Fault> {
    match in_child(|| i32::from(!body())) {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(status) => Err(Fault { kind: FaultKind::Fork, block: 0, size: 0, offset: 0, expected: 0, found: status as u64 }),
    }
}

/// Forks. The child exits with what `body` returns; what is returned here is how it ended, as `waitpid` says it. Nothing when there
/// could be no child.
pub(crate) fn in_child(body: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child calls the subject and system calls, no function of libc that another thread may have been in.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return None,
        0 => {
            // SAFETY: integers; the default action of SIGALRM ends the process.
            unsafe {
                libc::alarm(LIMIT_SECONDS);
                libc::_exit(body());
            }
        }
        _ => {}
    }
    let mut status = 0;
    loop {
        // SAFETY: the number is that of a child of this thread that nobody else waits for; the status is live for the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Some(status);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            sigsafe_core::fatal(&["waitpid failed"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_judged_by_its_status() {
        assert_eq!(check_in_child(|| true), Ok(true));
        assert_eq!(check_in_child(|| false).unwrap_err().found, 1 << 8);
        // SAFETY: it ends the child of the fork alone.
        let killed = check_in_child(|| unsafe { libc::raise(libc::SIGKILL) } == 0).unwrap_err();
        assert_eq!((killed.kind, killed.found), (FaultKind::Fork, libc::SIGKILL as u64));
    }
}
