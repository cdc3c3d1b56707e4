//! What a thread that waits for a lock owes to the others: a wake that it has received and cannot use yet.
//!
//! A lock's release wakes one waiter. A waiter waits outside its region, so a handler may run between the wake and its next try. If
//! that handler itself waits, for another lock, the first lock stays free while the rest of its waiters sleep on; when the owner
//! of the other lock is among them, nobody ever moves again. So a thread says what it waits for, and whoever is about to run
//! something else on it first wakes another waiter in its place. At worst that one wakes for nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::record::{ThreadRecord, record};
use crate::sys;

/// The thread waits for a futex word, from before it leaves its region until it has entered it again.
///
/// Async-signal safety: may be used in a handler. Cost: no system call; one (`futex`) if the thread was waiting already.
#[doc(hidden)]
#[derive(Debug)]
#[must_use = "the announcement ends as soon as it is dropped"]
pub struct Waiting {
    outer: usize,
    /// Of one thread's record.
    thread: core::marker::PhantomData<*const ()>,
}

impl Waiting {
    /// Announces a wait for `word`.
    pub fn announce(word: &AtomicU32) -> Waiting {
        let r = record();
        // Not zero only in a handler that nobody manages: the trampoline would have passed the wake on.
        let outer = pass_on(r);
        r.waiting.store(word.as_ptr().addr(), Ordering::Relaxed);
        Waiting { outer, thread: core::marker::PhantomData }
    }

    /// Parks the thread, outside of its region, unless `word`, the one that was announced, no longer holds `expected`. Returns for any
    /// reason: a wake, another value, a handler that ran, or none. The caller reads the word again. Keeps `errno`.
    #[doc(alias = "FUTEX_WAIT")]
    pub fn park(&self, word: &AtomicU32, expected: u32) {
        sys::park(word, expected);
    }
}

/// Wakes one of the threads that are parked on `word`, if there is one. Keeps `errno`. Takes an address, because the lock may be gone
/// by the time of the call: once the word says "free", its next owner may destroy it.
///
/// Async-signal safety: may be called from a handler. Cost: one system call (`futex`).
#[doc(hidden)]
#[doc(alias = "FUTEX_WAKE")]
#[cold]
pub fn unpark_one(word: *const AtomicU32) {
    sys::unpark_one(word.addr());
}

impl Drop for Waiting {
    fn drop(&mut self) {
        record().waiting.store(self.outer, Ordering::Relaxed);
    }
}

/// Something else is about to run on this thread: wakes another in its place if it waits. Returns what it waited for, to be put
/// back afterwards.
pub(crate) fn pass_on(r: &ThreadRecord) -> usize {
    let waiting = r.waiting.load(Ordering::Relaxed);
    if waiting != 0 && !mutant!("wake-kept") {
        // SIGNAL: a handler between the wake and the store wakes one more, for nothing, and puts back what it has found.
        sys::unpark_one(waiting);
        r.waiting.store(0, Ordering::Relaxed);
    }
    waiting
}
