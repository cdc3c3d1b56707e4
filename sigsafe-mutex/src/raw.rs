//! [`RawMutex`]: a lock on a futex, or on what the system has for one, that is held inside a critical region and waited for outside it.
//!
//! It is the state machine under [`Mutex`](crate::Mutex), and usable by itself through `lock_api`. The essay at the head of the
//! crate says why the region is left for the wait. Every function may run in a thread, in a region and in a handler.
//!
//! # The word
//!
//! Owner and state share one 32-bit word, so that the store that takes the lock is the store that names the owner. A handler
//! that nobody deferred may land before that store or after it, and there is no third place: it finds the lock free,
//! or finds its own thread's number in it and knows that it must not wait.
//!
//! | word            | state   | meaning | next |
//! |-----------------|---------|---------|------|
//! | `0`             | free    | Nobody holds it. Threads that were parked may be on their way back, one per wake. | `tid` by a first try, `tid \| WAITERS` by a thread that has waited |
//! | `tid`           | held    | Thread `tid` holds it, and nobody has announced a wait. | `0` by the owner's release; `tid \| WAITERS` by a waiter |
//! | `tid \| WAITERS`| held    | Thread `tid` holds it, and threads may be parked on this very value. | `0` by the owner's release, which then wakes one |
//! | `WAITERS`       | never   | A release stores `0`, and an announcement is a compare-exchange on a held word. | |
//!
//! `tid` is the number that `sigsafe_core` has for a thread: less than 2³⁰ and not zero, so that bit 31 is never part of it.
//!
//! # Why no wake-up is lost
//!
//! A thread parks only on a value with `WAITERS`, which the kernel checks under its own lock: either the word still says so,
//! then the release that follows sees the bit and wakes, or the wait returns at once. A release takes the bit away with
//! everything else and wakes one thread; that thread cannot know whether others are still parked, so it takes the lock with
//! `WAITERS` set, and its own release wakes the next. The last of them makes one wake too many. A thread that has been woken
//! and is interrupted by a handler before its next try has another one woken in its place
//! ([`Waiting`]): the handler may wait for another lock, whose owner may be parked here.

use core::fmt;
use core::hint;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use sigsafe_core::{Backend, DefaultBackend, Waiting, fatal, thread_id, unpark_one};

use crate::TryLockError;

/// The word of a lock that nobody holds.
const FREE: u32 = 0;
/// Set in a held word: threads may be parked on it, and the release has to wake one.
const WAITERS: u32 = 1 << 31;
/// How often a first contended try looks at the word before it parks. A section of a few dozen instructions ends within
/// it; the whole spin costs about as much as one system call.
const SPINS: u32 = 100;

/// The highest number of a thread: Linux's own bound (`FUTEX_TID_MASK`), and the one that `sigsafe_core` keeps elsewhere.
const LAST_THREAD: u32 = (1 << 30) - 1;
const _: () = assert!(WAITERS & LAST_THREAD == 0);

/// A lock without data that is held inside a critical region of the backend `B`.
///
/// [`Mutex`](crate::Mutex) is this with data inside, and what most code wants. The lock also implements
/// [`lock_api::RawMutex`], whose `bool` cannot tell [`WouldBlock`](TryLockError::WouldBlock) from
/// [`WouldDeadlock`](TryLockError::WouldDeadlock).
///
/// ```
/// use sigsafe_mutex::{RawMutex, lock_api};
///
/// static LIST: lock_api::Mutex<RawMutex, [u32; 2]> =
///     lock_api::Mutex::from_raw(RawMutex::new(), [1, 2]);
/// assert_eq!(LIST.lock()[1], 2);
/// ```
pub struct RawMutex<B: Backend = DefaultBackend> {
    word: AtomicU32,
    /// `fn() -> B`: the backend is a way of acting, not a value, so that it decides neither `Send` nor `Sync`.
    backend: PhantomData<fn() -> B>,
}

impl RawMutex {
    /// A free lock with the [default backend](DefaultBackend).
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_backend()
    }
}

impl<B: Backend> RawMutex<B> {
    /// A free lock with the backend that the type names.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[doc(alias = "PTHREAD_MUTEX_INITIALIZER")]
    #[must_use]
    pub const fn with_backend() -> Self {
        Self { word: AtomicU32::new(FREE), backend: PhantomData }
    }

    /// Enters a region and takes the lock; while another thread holds it, waits *outside* that region.
    ///
    /// A region that the caller is in already stays entered while it waits.
    ///
    /// Async-signal safety: may be called from any handler, and keeps `errno`. Cost: uncontended, no system call but the backend's
    /// own; a wait is one or more of `futex` (or what the system has for it; a nap where it has nothing).
    ///
    /// # Aborts
    ///
    /// The process dies of SIGABRT, with a message on standard error, if this thread itself holds the lock.
    #[doc(alias = "pthread_mutex_lock")]
    #[inline]
    pub fn lock(&self) {
        B::enter();
        // Acquire pairs with the Release of the owner before.
        if self.word.compare_exchange(FREE, thread_id(), Acquire, Relaxed).is_err() {
            self.lock_contended();
        }
        // SIGNAL: from the exchange on, a handler that no region holds back finds its own thread in the word. Before it, such
        // a handler takes and releases the lock like any other thread, and the exchange sees only the outcome.
    }

    /// Enters a region and takes the lock if it is free; otherwise leaves the region again and says why not.
    ///
    /// Async-signal safety: may be called from any handler, never waits, and keeps `errno`. Cost: no system call but the backend's own.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](TryLockError::WouldBlock) if another thread holds the lock,
    /// [`WouldDeadlock`](TryLockError::WouldDeadlock) if this one does.
    #[doc(alias = "pthread_mutex_trylock")]
    #[inline]
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        B::enter();
        let me = thread_id();
        match self.word.compare_exchange(FREE, me, Acquire, Relaxed) {
            Ok(_) => Ok(()),
            Err(word) => {
                // SAFETY: leaves the region that this call entered, once, on the same thread.
                unsafe { B::exit() };
                Err(refusal(word, me))
            }
        }
    }

    /// Releases the lock, wakes one thread that waits for it, and leaves the region: handlers that it held back run before
    /// this returns, unless another region is still entered.
    ///
    /// Async-signal safety: may be called from any handler, and keeps `errno`. Cost: one system call, `futex`, if threads may be
    /// waiting; none otherwise but the backend's own and the one that lets held-back signals in.
    ///
    /// # Safety
    ///
    /// This thread holds the lock: it has called [`lock`](Self::lock), or [`try_lock`](Self::try_lock) with success,
    /// and has not released it since. (The child of a fork counts as the thread that forked.)
    #[doc(alias = "pthread_mutex_unlock")]
    #[inline]
    pub unsafe fn unlock(&self) {
        let address = ptr::from_ref(&self.word);
        // Release pairs with the Acquire of the next owner. From here on the lock may be taken, released and destroyed by
        // others: only its address is used below.
        let word = self.word.swap(FREE, Release);
        // SIGNAL: the lock is free and its waiters are not woken yet. No deferrable handler runs here, because the region is
        // still entered; any other may take the lock and release it, and wakes whoever parked in between. The wake below
        // still comes when it returns.
        if word & WAITERS != 0 {
            unpark_one(address);
        }
        // SAFETY: leaves the region that the taking of the lock entered, on the same thread, as the caller promises.
        unsafe { B::exit() };
    }

    /// Whether some thread holds the lock at this instant. For assertions and diagnostics, because the answer may be out of date
    /// when it arrives.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.word.load(Relaxed) != FREE
    }

    /// Whether the calling thread holds the lock. Never out of date: only this thread can change it.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call, but one for a thread's first use of any lock.
    #[inline]
    pub fn is_owned(&self) -> bool {
        owner(self.word.load(Relaxed)) == thread_id()
    }

    /// Takes a lock that was not free a moment ago. Called inside the region that `lock` entered, and returns inside it.
    #[cold]
    fn lock_contended(&self) {
        let me = thread_id();
        // What taking the lock stores. A thread that has parked cannot know whether others still are: it says that they may.
        let mut claim = me;
        let mut word = self.spin(me);
        loop {
            if word == FREE {
                match self.word.compare_exchange_weak(FREE, claim, Acquire, Relaxed) {
                    Ok(_) => return,
                    Err(found) => word = found,
                }
                continue;
            }
            if owner(word) == me {
                already_held();
            }
            if word & WAITERS == 0 {
                // Relaxed: the bit carries no data with it. The release that clears it sees it in the same word.
                if let Err(found) = self.word.compare_exchange_weak(word, word | WAITERS, Relaxed, Relaxed) {
                    word = found;
                    continue;
                }
                word |= WAITERS;
            }
            // From inside the region to inside the region again: a handler that runs in between passes on the wake that this
            // thread may have had.
            let waiting = Waiting::announce(&self.word);
            // SAFETY: leaves the region that `lock` (or the turn before) entered; nothing is held, and it is entered again
            // before the next try.
            unsafe { B::exit() };
            // SIGNAL: the wait is announced, and the thread is not parked yet. Handlers run here: what they held back, and
            // new ones. One that takes the lock and releases it clears the bit, and then the word no longer holds what
            // the wait expects. One that never returns leaves a bit that costs a wake for nobody.
            waiting.park(&self.word, word);
            // SIGNAL: woken, and not back in the region. The handler that runs here has another waiter woken first, so that
            // the wake is not lost on a thread that has something else to do.
            B::enter();
            drop(waiting);
            claim = me | WAITERS;
            word = self.word.load(Relaxed);
        }
    }

    /// Looks at the word for a short while and returns what it saw last: until the lock is free, until somebody parks (then
    /// the queue is long enough to join), and not at all if this thread is the owner.
    fn spin(&self, me: u32) -> u32 {
        let mut word = self.word.load(Relaxed);
        for _ in 0..SPINS {
            if word == FREE || word & WAITERS != 0 || owner(word) == me {
                break;
            }
            hint::spin_loop();
            word = self.word.load(Relaxed);
        }
        word
    }
}

/// The thread that a word names as the owner; 0 for a free one.
const fn owner(word: u32) -> u32 {
    word & !WAITERS
}

/// Why thread `me` cannot take a lock whose word is `word`. A word that has become free in the meantime was another's.
const fn refusal(word: u32, me: u32) -> TryLockError {
    if owner(word) == me { TryLockError::WouldDeadlock } else { TryLockError::WouldBlock }
}

/// The end of a thread that waits for itself. The region stays entered, so that no handler runs between the finding and the
/// death.
#[cold]
fn already_held() -> ! {
    fatal(&[
        "deadlock: lock() on a mutex that this thread already holds. ",
        "A handler that no region can hold back (unmanaged, immediate, or for a fault) has to use try_lock()",
    ])
}

impl<B: Backend> Default for RawMutex<B> {
    fn default() -> Self {
        Self::with_backend()
    }
}

impl<B: Backend> fmt::Debug for RawMutex<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMutex").field("locked", &self.is_locked()).field("backend", &B::NAME).finish()
    }
}

// SAFETY: the word changes from free to held by one compare-exchange with Acquire, and back by one store with Release by the
// owner: exclusion between threads holds. `GuardNoSend` because the region that a holder is in belongs to its thread.
unsafe impl<B: Backend> lock_api::RawMutex for RawMutex<B> {
    const INIT: Self = Self::with_backend();

    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        Self::lock(self);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        Self::try_lock(self).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the trait's contract is that of the method: this context holds the lock, and with `GuardNoSend` a context
        // is a thread.
        unsafe { Self::unlock(self) };
    }

    #[inline]
    fn is_locked(&self) -> bool {
        Self::is_locked(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 7;
    const OTHER: u32 = 8;

    #[test]
    fn a_refusal_tells_this_thread_from_others_with_and_without_waiters() {
        for bit in [0, WAITERS] {
            assert_eq!(refusal(ME | bit, ME), TryLockError::WouldDeadlock);
            assert_eq!(refusal(OTHER | bit, ME), TryLockError::WouldBlock);
        }
        assert_eq!(refusal(FREE, ME), TryLockError::WouldBlock);
    }

    #[test]
    fn the_word_names_its_owner_from_taking_to_release() {
        let lock = RawMutex::new();
        assert_eq!(lock.word.load(Relaxed), FREE);
        lock.lock();
        assert_eq!(lock.word.load(Relaxed), thread_id());
        assert_eq!((lock.is_locked(), lock.is_owned()), (true, true));
        // SAFETY: this thread took it two lines above.
        unsafe { lock.unlock() };
        assert_eq!(lock.word.load(Relaxed), FREE);
        assert_eq!((lock.is_locked(), lock.is_owned()), (false, false));
    }

    #[test]
    fn a_refused_try_leaves_word_and_region_as_they_were() {
        let lock = RawMutex::new();
        lock.word.store(LAST_THREAD, Relaxed);
        assert_eq!(lock.try_lock(), Err(TryLockError::WouldBlock));
        assert_eq!(lock.word.load(Relaxed), LAST_THREAD);
        assert!(!sigsafe_core::in_region());
    }

    #[test]
    fn a_release_with_the_bit_set_leaves_nothing_behind() {
        let lock = RawMutex::new();
        lock.lock();
        lock.word.fetch_or(WAITERS, Relaxed);
        // SAFETY: this thread took it two lines above.
        unsafe { lock.unlock() };
        assert_eq!(lock.word.load(Relaxed), FREE);
    }
}
