//! The life of a thread, as signals see it: its mask and its alternate stack, made before the first handler may run, and undone
//! exactly at the end.
//!
//! A new thread inherits its creator's mask, whatever that happens to be, and no alternate stack. A handler that lands on it in its
//! first instructions overflows a small stack or finds a runtime's thread structures half made; one whose creator is in a
//! [region](crate::region) with a signal held back stays deaf. So `spawn` (feature `std`) and [`spawn_raw`] create a thread with everything
//! blocked, and the thread itself lets signals in when its alternate stack is in place. [`attach`] does the same for a thread that
//! somebody else made (a callback of a C library), and gives it back as it was. [`init`] is the part that they share, for
//! runtimes that create their threads themselves.
//!
//! | here | Go's runtime | what |
//! |---|---|---|
//! | [`capture`] | `msigsave` | the mask that a new thread is to have |
//! | [`init`], the drop of [`Init`] | `minit`, `unminit` | alternate stack and mask, and back |
//! | `spawn`, [`spawn_raw`] | `newosproc` | everything blocked around the creation |
//! | [`attach`], [`Attached::detach`] | `needm`, `dropm` | a foreign thread calls in |
//!
//! The *essential* signals ([`SigSet::ESSENTIAL`](crate::SigSet::ESSENTIAL)) are unblocked on a thread of ours: a fault that is blocked kills the process, and
//! profilers and process managers rely on SIGPROF and SIGCHLD. Everything else is as the creator, or the foreign thread, had it:
//! a program that was started with SIGTERM blocked keeps it blocked in every thread.
//!
#![cfg_attr(feature = "std", doc = "```")]
#![cfg_attr(not(feature = "std"), doc = "```ignore")]
//! use sigsafe_core::{Signal, mask, thread};
//!
//! mask::block(Signal::TERM.into());
//! let child = thread::spawn(|| mask::current())?;
//! assert!(child.join().unwrap().contains(Signal::TERM));
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod altstack;
mod foreign;
mod raw;
mod setup;
#[cfg(feature = "std")]
mod spawn;
mod start;

use core::ffi::c_int;
use core::fmt;

pub use altstack::{AltStack, InstalledAltStack};
pub use foreign::{Attached, attach};
pub use raw::{StartRoutine, spawn_raw};
pub use setup::{Init, capture, init};
#[cfg(feature = "std")]
pub use spawn::{Builder, spawn};

/// Why a thread could not be made, initialised or attached. Nothing has been changed then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadError {
    /// There is no memory for an alternate stack: `mmap`'s or `mprotect`'s error number.
    Memory(c_int),
    /// The caller runs on the thread's alternate stack, in a handler. It is too small to be adopted, and cannot be replaced now.
    OnAltStack,
    /// The system refuses the alternate stack: `sigaltstack`'s error number.
    AltStack(c_int),
    /// The system refuses the thread: `pthread_create`'s error number. `EAGAIN` when a limit on threads is reached.
    Create(c_int),
}

impl ThreadError {
    /// The system's error number.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub const fn number(self) -> c_int {
        match self {
            ThreadError::Memory(number) | ThreadError::AltStack(number) | ThreadError::Create(number) => number,
            ThreadError::OnAltStack => libc::EPERM,
        }
    }
}

impl fmt::Display for ThreadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            ThreadError::Memory(_) => "no memory for an alternate signal stack",
            ThreadError::OnAltStack => "the thread runs on its alternate signal stack, which is too small and cannot be replaced now",
            ThreadError::AltStack(_) => "the system refuses the alternate signal stack",
            ThreadError::Create(_) => "the system refuses the thread",
        };
        write!(f, "{what} (error number {})", self.number())
    }
}

impl core::error::Error for ThreadError {}

#[cfg(feature = "std")]
impl From<ThreadError> for std::io::Error {
    fn from(error: ThreadError) -> std::io::Error {
        std::io::Error::from_raw_os_error(error.number())
    }
}
