//! The notifier of one process: its pipe, its lock, its subscriptions.
//!
//! The state belongs to the process that made it. The child of a fork has a copy with a pipe that is its parent's and a lock that
//! a thread of its parent may hold: it never uses them, and makes a state of its own when it first subscribes. So nothing has to be
//! done at a fork. The handler reads the atomics and writes to the pipe; everything else runs in ordinary thread context.

use core::cell::UnsafeCell;
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::NotifyError;
use super::node::{Node, Pool};
use super::pipe::{Pipe, bare};
use crate::bits::AtomicBits;
use crate::handler::Registration;
use crate::signal::{LAST, Signal};
use crate::sigset::SigSet;
use crate::sys;

/// | field | meaning |
/// |---|---|
/// | `process` | whose state it is |
/// | `pipe` | from the handlers to the thread: a record for each signal |
/// | `subscribed` | signals that the handler puts into the pipe; any other goes where it went before the subscription |
/// | `relaying` | for each signal the handlers that may be about to write to the pipe |
/// | `merged` | signals that found the pipe full: the thread delivers each once, without its siginfo |
/// | `lost` | real-time signals that found the pipe full |
pub(super) struct State {
    pub(super) process: u32,
    pub(super) pipe: Pipe,
    pub(super) subscribed: AtomicBits,
    pub(super) relaying: [AtomicU32; SIGNALS],
    pub(super) merged: AtomicBits,
    pub(super) lost: AtomicU64,
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Signalled when a request is done, and when there is room for another.
    changed: UnsafeCell<libc::pthread_cond_t>,
    inner: UnsafeCell<Inner>,
}

// SAFETY: `inner` is reached under the mutex alone; mutex and condition are made for several threads, the rest is atomic or constant.
unsafe impl Sync for State {}

/// What the lock protects.
pub(super) struct Inner {
    pub(super) thread: Option<libc::pthread_t>,
    /// The subscriptions, newest first.
    pub(super) first: *const Node,
    pub(super) pool: Pool,
    /// What another thread wants changed. One at a time.
    pub(super) request: Option<Request>,
    /// The node whose callback is running.
    pub(super) delivering: *const Node,
    /// The handlers that are installed.
    pub(super) registrations: [Option<Registration>; SIGNALS],
}

/// A change of one subscription, done by the notifier's thread: it alone can change its own mask.
pub(super) struct Request {
    pub(super) node: &'static Node,
    pub(super) enable: SigSet,
    pub(super) disable: SigSet,
    /// `Some` when it is done.
    pub(super) result: Option<Result<(), NotifyError>>,
}

const SIGNALS: usize = LAST as usize;

static CURRENT: AtomicPtr<State> = AtomicPtr::new(null_mut());

/// This process's state, if it has one. Async-signal-safe.
pub(super) fn existing() -> Option<&'static State> {
    // SAFETY: states are published whole and never freed.
    let state = unsafe { CURRENT.load(Ordering::Acquire).as_ref() }?;
    (state.process == sys::process_id() || mutant!("notifier-of-parent")).then_some(state)
}

/// This process's state.
pub(super) fn get() -> Result<&'static State, NotifyError> {
    loop {
        if let Some(state) = existing() {
            return Ok(state);
        }
        let before = CURRENT.load(Ordering::Acquire);
        // SAFETY: as in `existing`.
        if unsafe { before.as_ref() }.is_some_and(|state| state.process == sys::process_id()) {
            continue;
        }
        let place: *mut State = sys::map_pages(size_of::<State>()).cast();
        if place.is_null() {
            return Err(NotifyError::NoMemory);
        }
        let pipe = Pipe::new().map_err(NotifyError::System)?;
        // SAFETY: the pages are fresh, large enough and aligned.
        unsafe { place.write(State::new(pipe)) };
        if CURRENT.compare_exchange(before, place, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread's is taken. A page or two stay behind.
            pipe.close();
        }
    }
}

impl State {
    fn new(pipe: Pipe) -> State {
        State {
            process: sys::process_id(),
            pipe,
            subscribed: AtomicBits::new(0),
            relaying: [const { AtomicU32::new(0) }; SIGNALS],
            merged: AtomicBits::new(0),
            lost: AtomicU64::new(0),
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            changed: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            inner: UnsafeCell::new(Inner {
                thread: None,
                first: null(),
                pool: Pool::new(),
                request: None,
                delivering: null(),
                registrations: [const { None }; SIGNALS],
            }),
        }
    }

    /// Whether the calling process is not a child that has a copy of it.
    pub(super) fn is_ours(&self) -> bool {
        self.process == sys::process_id()
    }

    pub(super) fn subscribed(&self) -> SigSet {
        SigSet::from_bits(self.subscribed.load(Ordering::SeqCst))
    }

    /// Makes the thread look at what has changed. A full pipe has it awake already: it will read, and look then. Async-signal-safe.
    pub(super) fn wake(&self) {
        self.pipe.write(&bare(0));
    }

    pub(super) fn lock(&'static self) -> Locked {
        // SAFETY: an initialised mutex that never moves; no thread locks it twice, since it is not held over a callback.
        unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
        Locked { state: self }
    }
}

/// The lock, held.
pub(super) struct Locked {
    pub(super) state: &'static State,
}

impl Locked {
    /// Lets others have the lock until something has changed. May return early.
    pub(super) fn wait(self) -> Locked {
        // SAFETY: the calling thread holds the mutex, and has it again when this returns.
        unsafe { libc::pthread_cond_wait(self.state.changed.get(), self.state.mutex.get()) };
        self
    }

    pub(super) fn wake_waiters(&self) {
        // SAFETY: an initialised condition that never moves.
        unsafe { libc::pthread_cond_broadcast(self.state.changed.get()) };
    }

    /// Runs something without the lock.
    pub(super) fn unlocked(self, run: impl FnOnce()) -> Locked {
        let state = self.state;
        drop(self);
        run();
        state.lock()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the calling thread holds the mutex.
        unsafe { libc::pthread_mutex_unlock(self.state.mutex.get()) };
    }
}

impl Deref for Locked {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        // SAFETY: the mutex is held.
        unsafe { &*self.state.inner.get() }
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Inner {
        // SAFETY: the mutex is held, and the borrow is of the one value that says so.
        unsafe { &mut *self.state.inner.get() }
    }
}

impl Inner {
    /// Whether the calling thread is the notifier's, in a callback.
    pub(super) fn on_notifier(&self) -> bool {
        // SAFETY: the call takes nothing and always succeeds.
        self.thread.is_some_and(|thread| thread == unsafe { libc::pthread_self() })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &'static Node> {
        // SAFETY: nodes of the list are valid until they are unlinked, under the lock that is held here.
        let node = |place: *const Node| unsafe { place.as_ref() };
        core::iter::successors(node(self.first), move |current| node(current.next.get()))
    }

    pub(super) fn registration(&mut self, signal: Signal) -> &mut Option<Registration> {
        &mut self.registrations[signal.number() as usize - 1]
    }

    pub(super) fn link(&mut self, node: &'static Node) {
        node.next.set(self.first);
        self.first = node;
    }

    /// Takes the node out of the list and gives its place back.
    pub(super) fn unlink(&mut self, node: &'static Node) {
        let before = self.nodes().find(|other| core::ptr::eq(other.next.get(), node));
        match before {
            Some(before) => before.next.set(node.next.get()),
            None => self.first = node.next.get(),
        }
        self.pool.free(node);
    }
}
