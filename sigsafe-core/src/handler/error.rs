//! Why a handler could not be installed, adopted or removed. Data only, usable in any context.

use core::fmt;

use super::Registration;
use super::table::ChangeError;
use crate::signal::Signal;

/// Why a handler could not be installed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallError {
    /// SIGKILL and SIGSTOP cannot be caught.
    Uncatchable(Signal),
    /// The signal is libc's own (cancellation, `setuid`).
    Reserved(Signal),
    /// The system refused: a sandbox, for instance.
    Refused(Signal),
    /// There is no memory for another registration.
    NoMemory,
    /// This very thread is in the middle of a change of the same signal's handler, which the calling handler has interrupted. Only the
    /// handler of a fault can be told so, if it is immediate, or not managed, or if the change itself has faulted.
    Busy(Signal),
}

impl InstallError {
    pub(super) fn from_change(error: ChangeError, signal: Signal) -> InstallError {
        match error {
            ChangeError::NoMemory => InstallError::NoMemory,
            ChangeError::Busy => InstallError::Busy(signal),
            _ => InstallError::Refused(signal),
        }
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Uncatchable(signal) => write!(f, "{signal} cannot be caught"),
            InstallError::Reserved(signal) => write!(f, "{signal} is reserved for the C library"),
            InstallError::Refused(signal) => write!(f, "the system refused a handler for {signal}"),
            InstallError::NoMemory => f.write_str("no memory for another registration"),
            InstallError::Busy(signal) => write!(f, "the interrupted code is changing the handler of {signal}"),
        }
    }
}

impl core::error::Error for InstallError {}

/// Why there was nothing to adopt, or why it could not be adopted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// The disposition is the default action or to ignore the signal: there is no handler.
    NoHandler(Signal),
    /// The handler is managed already.
    Managed(Signal),
    /// It could not be put behind the trampoline.
    Install(InstallError),
}

impl From<InstallError> for AdoptError {
    fn from(error: InstallError) -> AdoptError {
        AdoptError::Install(error)
    }
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::NoHandler(signal) => write!(f, "there is no handler for {signal}"),
            AdoptError::Managed(signal) => write!(f, "the handler of {signal} is managed already"),
            AdoptError::Install(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AdoptError {}

/// Why a handler was not removed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoveErrorKind {
    /// Another handler was installed over it, or somebody else's `sigaction` has replaced it.
    Replaced,
    /// The system refused: a sandbox, for instance.
    Refused,
    /// As [`InstallError::Busy`].
    Busy,
}

/// The handler was not removed, and nothing has changed: see [`Registration::remove`].
#[derive(Debug)]
pub struct RemoveError {
    registration: Registration,
    kind: RemoveErrorKind,
}

impl RemoveError {
    pub(super) fn new(registration: Registration, error: ChangeError) -> RemoveError {
        let kind = match error {
            ChangeError::Refused => RemoveErrorKind::Refused,
            ChangeError::Busy => RemoveErrorKind::Busy,
            _ => RemoveErrorKind::Replaced,
        };
        RemoveError { registration, kind }
    }

    /// The reason.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn kind(&self) -> RemoveErrorKind {
        self.kind
    }

    /// The registration, to be removed later.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn into_registration(self) -> Registration {
        self.registration
    }
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = self.registration.signal();
        match self.kind {
            RemoveErrorKind::Replaced => write!(f, "another handler was installed for {signal} over this one"),
            RemoveErrorKind::Refused => write!(f, "the system refused to change the handler of {signal}"),
            RemoveErrorKind::Busy => InstallError::Busy(signal).fmt(f),
        }
    }
}

impl core::error::Error for RemoveError {}
