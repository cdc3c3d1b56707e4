//! What the notifier keeps of one subscription, and the memory of these.
//!
//! Touched under the state's lock, in ordinary thread context, but for the atomics, which the subscription's owner reads as well.

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::pipe::Pipe;
use crate::bits::AtomicBits;
use crate::siginfo::SigInfo;
use crate::sigset::SigSet;
use crate::sys;

/// Where a subscription's signals go.
#[derive(Copy, Clone, Debug)]
pub(super) enum Sink {
    Call(Callback),
    Queue { pipe: Pipe, capacity: usize },
}

/// A function and its data. Who subscribed vouches for the call.
#[derive(Copy, Clone, Debug)]
pub(super) struct Callback {
    pub(super) function: unsafe fn(&SigInfo, *mut c_void),
    pub(super) data: *mut c_void,
    /// Gives the data back.
    pub(super) release: Option<unsafe fn(*mut c_void)>,
}

impl Callback {
    /// # Safety
    ///
    /// Nobody uses the data, and nobody will.
    pub(super) unsafe fn release(self) {
        if let Some(release) = self.release {
            // SAFETY: the caller's contract is the function's.
            unsafe { release(self.data) };
        }
    }
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Node {
    /// The next one of the list, or of those that are free.
    pub(super) next: Cell<*const Node>,
    /// Closed by the callback that is running: freed as it returns.
    pub(super) closed: Cell<bool>,
    pub(super) sink: Sink,
    /// Written under the lock.
    signals: AtomicBits,
    /// Records in the queue.
    pub(super) queued: AtomicUsize,
    /// Signals for which the queue had no room.
    pub(super) lost: AtomicU64,
}

impl Node {
    pub(super) fn new(sink: Sink) -> Node {
        Node {
            next: Cell::new(null_mut()),
            closed: Cell::new(false),
            sink,
            signals: AtomicBits::new(0),
            queued: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// What is delivered to it.
    pub(super) fn signals(&self) -> SigSet {
        SigSet::from_bits(self.signals.load(Ordering::Relaxed))
    }

    pub(super) fn set_signals(&self, signals: SigSet) {
        self.signals.store(signals.bits(), Ordering::Relaxed);
    }

    /// Puts a record into the queue, or counts it as lost. Called on the notifier's thread.
    pub(super) fn enqueue(&self, pipe: Pipe, capacity: usize, info: &SigInfo) {
        // The reader counts down after it has read, so this is never less than what is there.
        if self.queued.fetch_add(1, Ordering::Relaxed) >= capacity || !pipe.write(info.as_raw()) {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Nodes that are free, out of pages that are never given back.
#[derive(Debug)]
pub(super) struct Pool {
    free: *const Node,
}

impl Pool {
    pub(super) const fn new() -> Pool {
        Pool { free: null_mut() }
    }

    /// Room for `node`. `None` when there is no memory.
    pub(super) fn place(&mut self, node: Node) -> Option<&'static Node> {
        const PAGE: usize = 4096;
        if self.free.is_null() {
            let fresh: *mut Node = sys::map_pages(PAGE).cast();
            if fresh.is_null() {
                return None;
            }
            for index in 0..PAGE / size_of::<Node>() {
                // SAFETY: within the page, which is ours alone; a node's alignment divides its size and a page.
                unsafe {
                    let place = fresh.add(index);
                    place.write(Node::new(Sink::Call(Callback { function: unused, data: null_mut(), release: None })));
                    self.free(&*place);
                }
            }
        }
        let place = self.free.cast_mut();
        // SAFETY: a free node is valid and nobody else's.
        unsafe {
            self.free = (*place).next.get();
            place.write(node);
            Some(&*place)
        }
    }

    /// Nobody may use the node after this.
    pub(super) fn free(&mut self, node: &'static Node) {
        node.next.set(self.free);
        self.free = node;
    }
}

unsafe fn unused(_: &SigInfo, _: *mut c_void) {}
