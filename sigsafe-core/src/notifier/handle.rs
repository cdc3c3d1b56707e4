//! A subscription as its owner holds it: what callbacks and receivers have in common.
//!
//! Ordinary thread context: everything here may wait for the lock and for the notifier's thread.

use core::{mem, ptr};

use super::NotifyError;
use super::node::{Node, Sink};
use super::state::{self, Request, State};
use super::thread::{change, start};
use crate::defer::policy::UNBLOCKABLE;
use crate::sigset::SigSet;

/// A node of the list that this value owns.
pub(super) struct Handle {
    state: &'static State,
    pub(super) node: &'static Node,
}

// SAFETY: the node's signals and counters are atomics, the rest is touched under the lock or constant. The data of a callback is not
// touched here but to release it; who subscribed vouched that another thread may have it.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

fn check(signals: SigSet) -> Result<(), NotifyError> {
    let first = |set: SigSet| signals.intersection(set).iter().next();
    if let Some(signal) = first(UNBLOCKABLE) {
        return Err(NotifyError::Uncatchable(signal));
    }
    if let Some(signal) = first(SigSet::RESERVED) {
        return Err(NotifyError::Reserved(signal));
    }
    first(SigSet::SYNCHRONOUS).map_or(Ok(()), |signal| Err(NotifyError::Synchronous(signal)))
}

impl Handle {
    /// Subscribes. When it fails nothing is kept of the sink, and nothing of it is released.
    pub(super) fn new(sink: Sink, signals: SigSet) -> Result<Handle, NotifyError> {
        check(signals)?;
        let state = state::get()?;
        let mut locked = state.lock();
        let node = locked.pool.place(Node::new(sink)).ok_or(NotifyError::NoMemory)?;
        locked.link(node);
        drop(locked);
        let handle = Handle { state, node };
        match handle.change(signals, SigSet::EMPTY) {
            Ok(()) => Ok(handle),
            Err(error) => {
                // It receives nothing, so no callback of it can be running.
                state.lock().unlink(node);
                mem::forget(handle);
                Err(error)
            }
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.state.is_ours()
    }

    pub(super) fn enable(&self, signals: SigSet) -> Result<(), NotifyError> {
        check(signals)?;
        self.change(signals, SigSet::EMPTY)
    }

    pub(super) fn disable(&self, signals: SigSet) {
        // What is not subscribed in this process needs no change. There is no other error.
        let _ = self.change(SigSet::EMPTY, signals);
    }

    /// Has the notifier's thread make the change, and waits until it is in force.
    fn change(&self, enable: SigSet, disable: SigSet) -> Result<(), NotifyError> {
        if !disable.is_empty() {
            // First what waits is let in. What the kernel gives to this thread meanwhile is handled as this returns, and so before the
            // handler is removed: whatever this thread has sent before is the subscriber's.
            self.request(SigSet::EMPTY, SigSet::EMPTY)?;
        }
        self.request(enable, disable)
    }

    fn request(&self, enable: SigSet, disable: SigSet) -> Result<(), NotifyError> {
        let (state, node) = (self.state, self.node);
        if !self.is_ours() {
            return Err(NotifyError::Forked);
        }
        let mut locked = state.lock();
        if locked.on_notifier() {
            return change(locked, node, enable, disable, false).1;
        }
        if locked.thread.is_none() {
            if enable.is_empty() {
                return Ok(());
            }
            locked.thread = Some(start(state)?);
        }
        while locked.request.is_some() {
            locked = locked.wait();
        }
        locked.request = Some(Request { node, enable, disable, result: None });
        state.wake();
        loop {
            if let Some(result) = locked.request.as_ref().and_then(|request| request.result) {
                locked.request = None;
                locked.wake_waiters();
                return result;
            }
            locked = locked.wait();
        }
    }

    /// Ends the subscription. Whether the node's data is to be released now. If it is the running callback that closes its own
    /// subscription, the notifier's thread does so afterwards.
    fn close(&self) -> bool {
        if !self.is_ours() {
            // The child of a fork. Its copy of the data may have been in use at the fork: it is left alone.
            return false;
        }
        self.disable(SigSet::FULL);
        let mut locked = self.state.lock();
        if locked.on_notifier() && ptr::eq(locked.delivering, self.node) {
            self.node.closed.set(true);
            return false;
        }
        locked.unlink(self.node);
        true
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Read first: the node may be another's as soon as it is unlinked.
        let sink = self.node.sink;
        if self.close()
            && let Sink::Call(callback) = sink
        {
            // SAFETY: no call of it runs, and none will.
            unsafe { callback.release() };
        }
    }
}
