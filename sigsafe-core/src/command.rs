//! Starting other programs with a mask of one's choice: `std::process::Command`. Feature `std`.
//!
//! A program inherits the mask of the thread that starts it, and most never look at it: started with SIGTERM blocked, or in a region that
//! holds signals back, it cannot be ended. The methods run in ordinary thread context. What they leave behind runs in the child
//! between `fork` and `exec`, and makes system calls alone.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::defer::policy;
use crate::mask;
use crate::sigset::SigSet;
use crate::sys::{self, How};

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::process::Command {}
}

/// With which signals blocked the child of a [`Command`] starts. Without any of these it inherits the kernel's mask of the thread that
/// spawns it, what a region holds back included. Call one of them, once.
///
/// The child's handled signals get their default action before its mask changes, as `exec` would do a moment later: no handler of this
/// program runs in the child. Closures of `pre_exec` that were added later run with that mask. Each has std start the child by `fork` and
/// `exec` instead of `posix_spawn`.
///
/// If [`exec`](std::os::unix::process::CommandExt::exec) is called on the command in place of `spawn`, and fails, then this program goes
/// on with the mask and the default actions.
///
/// ```
/// use std::process::Command;
/// use sigsafe_core::command::CommandExt;
///
/// let status = Command::new("true").signal_mask_clean().status()?;
/// assert!(status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Async-signal safety: not to be called from a handler, since they allocate. Cost: none here; in the child one system call for each
/// signal, another for each that has a handler, and two or three for the mask.
pub trait CommandExt: sealed::Sealed {
    /// The child starts with exactly `mask` blocked. SIGKILL, SIGSTOP and libc's own signals are left out.
    fn signal_mask(&mut self, mask: SigSet) -> &mut Command;

    /// The child starts with what the spawning thread itself has blocked at that time, without what a region holds back.
    fn signal_mask_logical(&mut self) -> &mut Command;

    /// The child starts with nothing blocked.
    fn signal_mask_clean(&mut self) -> &mut Command {
        self.signal_mask(SigSet::EMPTY)
    }
}

impl CommandExt for Command {
    fn signal_mask(&mut self, mask: SigSet) -> &mut Command {
        in_child(self, move || mask.intersection(policy::BLOCKABLE))
    }

    fn signal_mask_logical(&mut self) -> &mut Command {
        // The child has a copy of the thread record, by which the two masks are told apart.
        in_child(self, mask::current)
    }
}

fn in_child(command: &mut Command, mask: impl Fn() -> SigSet + Send + Sync + 'static) -> &mut Command {
    let set_mask = move || -> io::Result<()> {
        let mask = mask();
        sys::sigprocmask(How::Block, policy::BLOCKABLE);
        // SIGNAL: from here no handler runs in the child, until what comes after `exec` installs its own.
        reset_handlers();
        sys::sigprocmask(How::Set, mask);
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock; it makes system calls that may follow a fork.
    unsafe { command.pre_exec(set_mask) }
}

/// Gives the default action to every signal that has a handler; what is ignored stays ignored, as `exec` has it.
fn reset_handlers() {
    // SAFETY: `sigaction` is plain data for which zero is a value: SIG_DFL.
    let default: libc::sigaction = unsafe { core::mem::zeroed() };
    for signal in policy::BLOCKABLE {
        // SAFETY: nothing is installed.
        let Some(found) = (unsafe { sys::sigaction(signal.number(), None) }) else { continue };
        if found.sa_sigaction != libc::SIG_DFL && found.sa_sigaction != libc::SIG_IGN {
            // SAFETY: no handler is named.
            unsafe { sys::sigaction(signal.number(), Some(&default)) };
        }
    }
}
