//! [`TryLockError`]: why a lock was not taken. Plain data; nothing here runs anywhere in particular.

use core::error::Error;
use core::fmt;

/// Why a `try_lock` did not take the lock.
///
/// A small value that is made without allocating, so that a handler can receive and inspect it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum TryLockError {
    /// Another thread holds the lock. To try again later makes sense.
    WouldBlock,
    /// This thread itself holds the lock, in the main flow or in a handler below. As long as the caller runs, no release can
    /// come: to wait would be a deadlock. The C counterpart is `EDEADLK`.
    WouldDeadlock,
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "the lock is held by another thread",
            Self::WouldDeadlock => "the lock is held by this thread itself",
        })
    }
}

impl Error for TryLockError {}
