//! A queue of notifications with a descriptor: a pipe of its own between the notifier's thread and whoever receives.
//!
//! Ordinary thread context, but for `try_recv`.

use core::ffi::c_int;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::NotifyError;
use super::handle::Handle;
use super::node::Sink;
use super::pipe::Pipe;
use crate::siginfo::SigInfo;
use crate::sigset::SigSet;

/// A subscription that queues what arrives, up to its capacity, until somebody takes it.
///
/// Its descriptor is readable while something is queued: it may be given to `poll`, `epoll` or `kqueue`, and must be read by these
/// methods alone. Several threads may receive; each notification goes to one of them. Dropping it ends the subscription.
///
/// A thread that has the signal unblocked may be the one to take it, also while it sleeps in `poll`: that call then ends with `EINTR`,
/// and the next one finds the descriptor readable. Block the signal on that thread, or repeat the call.
///
/// A copy in the child of a fork receives nothing. It may be dropped.
///
/// ```
/// use sigsafe_core::notifier::Receiver;
/// use sigsafe_core::{SigSet, Signal};
///
/// let winch = Receiver::new(SigSet::EMPTY.with(Signal::WINCH), 8)?;
/// unsafe { libc::kill(libc::getpid(), libc::SIGWINCH) };
/// let info = winch.recv().unwrap();
/// assert_eq!((info.signal(), info.code()), (Signal::WINCH, libc::SI_USER));
/// # Ok::<(), sigsafe_core::notifier::NotifyError>(())
/// ```
#[must_use = "dropping a receiver ends the subscription"]
pub struct Receiver {
    handle: Handle,
    queue: Queue,
}

/// The pipe, closed after the handle has made sure that nobody writes to it.
#[derive(Debug)]
struct Queue(Pipe);

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Receiver {
    /// Subscribes `signals`, in force when this returns, with room for `capacity` notifications.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](super#cost), and two system calls for
    /// the queue; two more to drop it.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] says which signals cannot be subscribed, and what the system refused: on Linux a capacity beyond what
    /// `/proc/sys/fs/pipe-max-size` allows, 128 bytes each. Elsewhere a queue is never longer than the system's pipes. A
    /// capacity of zero is [`NotifyError::ZeroCapacity`]. Nothing has changed then.
    #[doc(alias = "signalfd")]
    pub fn new(signals: SigSet, capacity: usize) -> Result<Receiver, NotifyError> {
        if capacity == 0 {
            return Err(NotifyError::ZeroCapacity);
        }
        let queue = Queue(Pipe::new().map_err(NotifyError::System)?);
        queue.0.reserve(capacity).map_err(NotifyError::System)?;
        let handle = Handle::new(Sink::Queue { pipe: queue.0, capacity }, signals)?;
        Ok(Receiver { handle, queue })
    }

    /// The oldest notification that is queued, if there is one.
    ///
    /// Async-signal safety: may be called from a handler. Cost: two system calls.
    pub fn try_recv(&self) -> Option<SigInfo> {
        if !self.handle.is_ours() {
            // The pipe is shared with the parent: a read would take what is the parent's.
            return None;
        }
        let mut record = [MaybeUninit::uninit()];
        if self.queue.0.read(&mut record) == 0 {
            return None;
        }
        self.handle.node.queued.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: one record was read.
        SigInfo::new(unsafe { record[0].assume_init() })
    }

    /// Waits for a notification. `None` at once in the child of a fork, where none can come.
    ///
    /// Not for a callback of this module: it would wait for its own thread.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: two system calls, four more each time that it waits.
    #[doc(alias = "sigwaitinfo")]
    pub fn recv(&self) -> Option<SigInfo> {
        self.receive(|| None, || false)
    }

    /// Waits for a notification, at most for `limit`, which is rounded up to milliseconds.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: two system calls, four more each time that it waits, and
    /// readings of the clock.
    #[doc(alias = "sigtimedwait")]
    pub fn recv_timeout(&self, limit: Duration) -> Option<SigInfo> {
        let start = now();
        let left = || limit.saturating_sub(now().saturating_sub(start));
        self.receive(|| Some(left()), || left().is_zero())
    }

    fn receive(&self, left: impl Fn() -> Option<Duration>, over: impl Fn() -> bool) -> Option<SigInfo> {
        loop {
            let info = self.try_recv();
            if info.is_some() || over() || !self.handle.is_ours() {
                return info;
            }
            self.queue.0.poll(left());
        }
    }

    /// How many notifications the queue had no room for. Those were dropped, the newest each time.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn lost(&self) -> u64 {
        self.handle.node.lost.load(Ordering::Relaxed)
    }

    /// Subscribes `signals` as well, in force when this returns.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](super#cost).
    ///
    /// # Errors
    ///
    /// [`NotifyError`] says which signals cannot be subscribed. Nothing has changed then.
    pub fn enable(&self, signals: SigSet) -> Result<(), NotifyError> {
        self.handle.enable(signals)
    }

    /// Unsubscribes `signals`, in force when this returns. What had arrived before is in the queue, if there was room.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](super#cost).
    pub fn disable(&self, signals: SigSet) {
        self.handle.disable(signals);
    }

    /// What is subscribed.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn signals(&self) -> SigSet {
        self.handle.node.signals()
    }

    /// The descriptor, readable while something is queued. The receiver's: not to be closed or read.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn as_raw_fd(&self) -> c_int {
        self.queue.0.read
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("signals", &self.signals()).field("fd", &self.as_raw_fd()).field("lost", &self.lost()).finish()
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsRawFd for Receiver {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        Receiver::as_raw_fd(self)
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsFd for Receiver {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the receiver lives.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

/// Time that does not jump.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one live value.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
