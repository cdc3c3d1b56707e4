//! Signals as messages: to a queue with a descriptor, or to a callback that may lock and allocate.
//!
//! ```
//! use sigsafe_core::notifier::{Receiver, Subscription};
//! use sigsafe_core::{SigInfo, SigSet, Signal};
//!
//! // A queue of eight...
//! let receiver = Receiver::new(SigSet::EMPTY.with(Signal::USR1), 8)?;
//! // ...and a function on the notifier's thread, in ordinary context: it may do what any function does.
//! fn on_usr1(info: &SigInfo) {
//!     println!("{} came", info.signal());
//! }
//! let subscription = Subscription::new(SigSet::EMPTY.with(Signal::USR1), on_usr1)?;
//!
//! unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
//! assert_eq!(receiver.recv().unwrap().signal(), Signal::USR1);
//! # drop(subscription);
//! # Ok::<(), sigsafe_core::notifier::NotifyError>(())
//! ```
//!
//! # The thread
//!
//! The first subscription starts a thread, the *notifier*. It blocks every signal but the [essential](SigSet::ESSENTIAL), the
//! [synchronous](SigSet::SYNCHRONOUS), libc's [own](SigSet::RESERVED), and what is subscribed. So a signal to the process arrives even if
//! every other thread has it blocked; one to a thread waits until that thread unblocks it. What is subscribed is let in while the
//! notifier waits, one at a time: what comes faster than it is handed out waits in the kernel. Whichever thread takes it, a managed
//! handler puts its siginfo into a pipe, from which the notifier hands it to each subscription. The handler is
//! [immediate](crate::handler::Handler::immediate): it touches nothing that a region protects, and a thread in a region may be waiting
//! for the very notification.
//!
//! # In force
//!
//! Subscribing (`new`, `enable`) returns when the handler is installed and the notifier lets the signal in as soon as it waits: a signal
//! that is sent after that is delivered. Unsubscribing (`disable`, and dropping) returns when the notifier blocks the signal, the
//! disposition from before the first subscription is back (ignored, default, or somebody's handler, with its flags and mask), what was
//! sent until then has been delivered, and no callback of this subscription for it runs or will run. A signal that another thread takes
//! just then reaches the subscription or the handler before it, or is dropped if that was the default action. Of a real-time signal that
//! waits because everybody has it blocked, one instance is delivered and the others go on waiting. Where another handler was installed
//! over the notifier's in the meantime, that one stays.
//!
//! While it is subscribed, SIGCHLD is neither ignored nor installed with `SA_NOCLDWAIT`, whatever it was before: children wait to be reaped.
//!
//! # Callbacks
//!
//! They run one after the other on the notifier's thread, and while one runs nothing else is delivered. A callback may subscribe and
//! unsubscribe, itself too. It must not wait for another thread that does so, nor while it has stopped other threads, and it must not
//! wait for a notification: each would wait for ever. If it unsubscribes, what has arrived and not been delivered yet is dropped. A panic
//! in it aborts the process.
//!
//! # What may be lost
//!
//! Signals other than the real-time ones merge, as POSIX has it: several children may end and SIGCHLD come once. When the
//! notifier's pipe is full (on Linux after 512 signals), these merge further, without siginfo, and real-time ones are dropped and
//! [counted](lost). A receiver whose queue is full drops and [counts](Receiver::lost) as well. Real-time signals keep their order
//! where one thread takes them: where every other thread has them blocked, that is the notifier.
//!
//! # Fork and exec
//!
//! In the child of a fork there are no subscriptions: its signals go where they went before them, and its first subscription starts a
//! notifier of its own. A handler from before the subscription runs there with all but faults blocked. Copies of the parent's
//! subscriptions can be dropped there; the parent's pipes stay open in the child until `exec`. A child that was forked by a callback must
//! not return from it. After `exec`, dispositions are the default, also those that were ignored before they were subscribed.
//!
//! A program that closes descriptors it does not know closes the pipes of the notifier too. The notifier says so and aborts the process when
//! it finds its own pipe closed; it does not notice one whose numbers mean something else by then. Nor does it use the descriptors 0, 1 and 2.
//!
//! # Cost
//!
//! A handshake: subscribing and unsubscribing wait for the notifier's thread, and so for the callback that it is running. There are some
//! ten system calls on either side of it. A signal costs its taker two system calls in the handler, the notifier three for each batch, and
//! one for each receiver.

mod error;
mod handle;
mod node;
mod pipe;
mod receiver;
mod relay;
mod state;
mod thread;

use core::ffi::c_void;
use core::fmt;
use core::mem::transmute;
use core::sync::atomic::Ordering;

pub use error::NotifyError;
pub use receiver::Receiver;

use crate::siginfo::SigInfo;
use crate::sigset::SigSet;
use handle::Handle;
use node::{Callback, Sink};

/// A callback's subscription. Dropping it unsubscribes; forgetting it (`core::mem::forget`) keeps it for the life of the process.
///
/// A copy in the child of a fork is never called. It may be dropped.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription(Handle);

impl Subscription {
    /// Has `callback` called for `signals`, in force when this returns.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](self#cost).
    ///
    /// # Errors
    ///
    /// [`NotifyError`] says which signals cannot be subscribed, and what the system refused. Nothing has changed then.
    #[doc(alias = "sigaction")]
    pub fn new(signals: SigSet, callback: fn(&SigInfo)) -> Result<Subscription, NotifyError> {
        fn call(info: &SigInfo, callback: *mut c_void) {
            // SAFETY: the data is the function that was given below.
            let callback = unsafe { transmute::<*mut c_void, fn(&SigInfo)>(callback) };
            callback(info);
        }
        let callback = Callback { function: call, data: callback as *mut c_void, release: None };
        Handle::new(Sink::Call(callback), signals).map(Subscription)
    }

    /// As [`new`](Subscription::new), for a callback with data.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](self#cost).
    ///
    /// # Errors
    ///
    /// As [`new`](Subscription::new).
    ///
    /// # Safety
    ///
    /// `callback` may be called with `data` on another thread, until the subscription has been dropped (if it is dropped by
    /// `callback`: until that returns).
    pub unsafe fn with_data(
        signals: SigSet,
        callback: unsafe fn(&SigInfo, *mut c_void),
        data: *mut c_void,
    ) -> Result<Subscription, NotifyError> {
        Handle::new(Sink::Call(Callback { function: callback, data, release: None }), signals).map(Subscription)
    }

    /// As [`new`](Subscription::new), for a closure. It is dropped with the subscription.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](self#cost), and an allocation.
    ///
    /// # Errors
    ///
    /// As [`new`](Subscription::new).
    #[cfg(feature = "std")]
    pub fn closure<F: FnMut(&SigInfo) + Send + 'static>(signals: SigSet, callback: F) -> Result<Subscription, NotifyError> {
        use std::boxed::Box;

        unsafe fn call<F: FnMut(&SigInfo)>(info: &SigInfo, callback: *mut c_void) {
            // SAFETY: the data is the closure that was boxed below; the notifier's thread alone calls it, once at a time.
            let callback = unsafe { &mut *callback.cast::<F>() };
            callback(info);
        }
        unsafe fn release<F>(callback: *mut c_void) {
            // SAFETY: the data is the box made below, and nobody uses it any more.
            drop(unsafe { Box::from_raw(callback.cast::<F>()) });
        }
        let data = Box::into_raw(Box::new(callback)).cast();
        let callback = Callback { function: call::<F>, data, release: Some(release::<F>) };
        let handle = Handle::new(Sink::Call(callback), signals);
        if handle.is_err() {
            // SAFETY: nothing of it has been kept.
            unsafe { callback.release() };
        }
        handle.map(Subscription)
    }

    /// Subscribes `signals` as well, in force when this returns.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](self#cost).
    ///
    /// # Errors
    ///
    /// [`NotifyError`] says which signals cannot be subscribed. Nothing has changed then.
    pub fn enable(&self, signals: SigSet) -> Result<(), NotifyError> {
        self.0.enable(signals)
    }

    /// Unsubscribes `signals`: when this returns the callback is not called for them any more.
    ///
    /// Async-signal safety: not to be called from a handler. Cost: the handshake of [the module](self#cost).
    pub fn disable(&self, signals: SigSet) {
        self.0.disable(signals);
    }

    /// What is subscribed.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn signals(&self) -> SigSet {
        self.0.node.signals()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("signals", &self.signals()).finish()
    }
}

/// What anybody in this process has subscribed.
///
/// Async-signal safety: may be called from a handler. Cost: one system call.
pub fn subscribed() -> SigSet {
    state::existing().map_or(SigSet::EMPTY, state::State::subscribed)
}

/// How many real-time signals were dropped because the notifier's pipe was full.
///
/// Async-signal safety: may be called from a handler. Cost: one system call.
pub fn lost() -> u64 {
    state::existing().map_or(0, |state| state.lost.load(Ordering::Relaxed))
}
