//! Why a subscription is refused. Data only.

use core::fmt;

use crate::signal::Signal;

/// Why a signal could not be subscribed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotifyError {
    /// SIGKILL and SIGSTOP cannot be caught.
    Uncatchable(Signal),
    /// The signal is libc's own (cancellation, `setuid`).
    Reserved(Signal),
    /// The signal is raised by the instruction that is running. Only a handler on its own thread can answer that.
    Synchronous(Signal),
    /// The system refused a handler: a sandbox, for instance.
    Refused(Signal),
    /// A queue of no length: it would lose everything.
    ZeroCapacity,
    /// There is no memory.
    NoMemory,
    /// The system refused the thread, a pipe, or a queue of that capacity, with this `errno`.
    System(i32),
    /// The subscription is the parent's, of which this process is a fork.
    Forked,
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotifyError::Uncatchable(signal) => write!(f, "{signal} cannot be caught"),
            NotifyError::Reserved(signal) => write!(f, "{signal} is reserved for the C library"),
            NotifyError::Synchronous(signal) => write!(f, "{signal} is answered by a handler on its own thread, not by a notification"),
            NotifyError::Refused(signal) => write!(f, "the system refused a handler for {signal}"),
            NotifyError::ZeroCapacity => f.write_str("a queue needs room for at least one notification"),
            NotifyError::NoMemory => f.write_str("no memory for another subscription"),
            NotifyError::System(errno) => write!(f, "the system refused a thread, or a pipe of that capacity (errno {errno})"),
            NotifyError::Forked => f.write_str("the subscription belongs to the process that forked this one"),
        }
    }
}

impl core::error::Error for NotifyError {}
