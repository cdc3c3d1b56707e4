//! Ctrl-C and its kin as something to wait for, so that a run can end its child and tell what was done.
//!
//! The signals are blocked and read from a descriptor: there is no handler, and no instant at which one would be lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The request to stop.
pub(crate) struct Interrupt(SignalFd);

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP from now on. To be called before other threads are started, which inherit the mask.
    pub(crate) fn catch() -> io::Result<Interrupt> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        Ok(Interrupt(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Becomes readable with the first of the signals, and stays so.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
