//! The [`critical-section`](https://docs.rs/critical-section) crate's implementation, behind the feature of that name: a region, and one
//! global lock that the same thread may take again.
//!
//! A region alone would keep handlers out and other threads in, and that crate promises exclusion between threads. The lock alone
//! would have a handler wait for the code that it interrupts. Runs in threads, in regions and in handlers.
//!
//! Owner and lock are one word, as in sigsafe-mutex. There is no count beside it: the outermost acquisition tells its release so, by the
//! *restore state* (`restore-state-bool`). So there is no moment at which the word and a count disagree, also for a
//! handler that nobody defers.
//!
//! | word | meaning | next |
//! |---|---|---|
//! | 0 | free | `tid`, or `tid \| WAITERS` by a thread that has waited |
//! | `tid` | thread `tid` is in the section | 0 by its release; `tid \| WAITERS` by a thread that is about to wait |
//! | `tid \| WAITERS` | the same, and threads may be parked on this value | 0 by its release, which wakes one |

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use critical_section::RawRestoreState;

use crate::query::thread_id;
use crate::region::{Backend, DefaultBackend};
use crate::sys;
use crate::waiting::Waiting;

static WORD: AtomicU32 = AtomicU32::new(0);
const WAITERS: u32 = 1 << 31;

struct RegionAndLock;

critical_section::set_impl!(RegionAndLock);

// SAFETY: no two threads are between an acquisition and its release, because of the lock, and no managed handler lands there, because of
// the region. The taking exchange is an Acquire on the word that the release stores with Release.
unsafe impl critical_section::Impl for RegionAndLock {
    /// Returns whether this thread is in the section already.
    ///
    /// Async-signal safety: may be called from a handler. Cost: a region's; a wait for another thread outside of it, one or more
    /// of `futex`.
    unsafe fn acquire() -> RawRestoreState {
        enter();
        let me = thread_id();
        // SIGNAL: only this thread stores its own number, and a handler in between releases what it has taken.
        if WORD.load(Relaxed) & !WAITERS == me {
            return true;
        }
        if WORD.compare_exchange(0, me, Acquire, Relaxed).is_err() && !mutant!("section-without-lock") {
            acquire_contended(me);
        }
        false
    }

    /// Async-signal safety: may be called from a handler. Cost: a region's; one `futex` if threads may be waiting.
    unsafe fn release(nested: RawRestoreState) {
        if !nested && WORD.swap(0, Release) & WAITERS != 0 {
            sys::unpark_one(WORD.as_ptr().addr());
        }
        // SAFETY: the acquisition that this release pairs with has entered it, on this thread.
        unsafe { exit() };
    }
}

fn enter() {
    if !mutant!("section-without-region") {
        DefaultBackend::enter();
    }
}

/// # Safety
///
/// As [`Backend::exit`].
unsafe fn exit() {
    if !mutant!("section-without-region") {
        // SAFETY: the caller's.
        unsafe { DefaultBackend::exit() };
    }
}

/// Waits outside of the region that `acquire` has entered, and takes the lock inside it again.
#[cold]
fn acquire_contended(me: u32) {
    // A thread that has parked cannot know whether others still are: it says that they may be.
    let mut claim = me;
    loop {
        let word = WORD.load(Relaxed);
        if word == 0 {
            if WORD.compare_exchange_weak(0, claim, Acquire, Relaxed).is_ok() {
                return;
            }
            continue;
        }
        // The bit carries no data: the release that clears it sees it in the same word.
        if word & WAITERS == 0 && WORD.compare_exchange_weak(word, word | WAITERS, Relaxed, Relaxed).is_err() {
            continue;
        }
        let waiting = Waiting::announce(&WORD);
        // SAFETY: leaves what `acquire`, or the turn before, has entered; it is entered again before the next try.
        unsafe { exit() };
        // SIGNAL: handlers run here. One that takes the section and releases it clears the bit, and the word is not what the wait
        // expects; one that lands after the wake has another waiter woken in its place.
        sys::park(&WORD, word | WAITERS);
        enter();
        drop(waiting);
        claim = me | WAITERS;
    }
}
