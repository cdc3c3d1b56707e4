//! Locks that a signal handler and the code that it interrupts can share.
//!
//! A signal that lands while a thread holds a lock, with a handler that takes the same lock, hangs the thread on itself: the
//! handler waits for a release that only the frame below it can make. The locks here enter a critical region of
//! `sigsafe-core` before they are taken and leave it after they are released, so that a managed handler on the same thread
//! runs before the section or after it, and never finds the lock held by what it interrupted.
//!
//! ```
//! use sigsafe_mutex::Mutex;
//!
//! static COUNT: Mutex<u64> = Mutex::new(0);
//!
//! *COUNT.lock() += 1; // in the main flow or in a managed handler
//! assert_eq!(*COUNT.lock(), 1);
//! ```
//!
//! # Waiting
//!
//! A lock is *held* inside a region and *waited for* outside it:
//!
//! ```text
//!   lock():   enter region ── try ──┬── got it ───────────────── (section, still in the region) ── unlock(): release,
//!                 ▲                 │                                                             wake, leave region
//!                 │                 └── contended: announce ── leave region ── park ──┐
//!                 └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The region is left for the wait because of what the owner may be doing. An owner on another thread may itself be
//! interrupted by a handler that waits for *this* thread to answer a signal: a collector that stops the world is one. If the
//! waiter sat in its region, the answer would be held back until the waiter had the lock, the lock would be held until the
//! answer came, and both would wait for ever. A parked waiter takes signals like a thread that waits for nothing:
//! managed handlers run, may take this very lock themselves, and the wait goes on after them.
//!
//! That has three consequences.
//!
//! - **The lock leaves the region that it entered, and no other.** Under an outer region, or while the thread holds another
//!   lock, it waits *inside* that one, and signals wait with it. It is allowed, and must not be combined with a stop-the-world
//!   that another thread starts under the lock that is waited for.
//! - **Between a wake-up and the next try a handler may run**, for as long as it likes. The one wake-up of the release is not lost
//!   with it: before the handler runs, another waiter of the lock is woken in this thread's place. (By the trampoline, so for managed
//!   handlers; one that nobody manages passes it on if it waits for a lock of this crate.)
//! - **Before the lock is taken nothing is held**, so that a handler that leaves a wait by `longjmp` leaves the lock in
//!   order. The thread is taken for a waiter from then on, which costs others a wake for nothing now and then.
//!
//! A release wakes *inside* the region and then leaves it: a handler that runs as the region ends, and never returns, loses
//! nobody's wake-up.
//!
//! # The same thread again
//!
//! What a region cannot hold back still finds the lock held by its own thread: a handler installed behind sigsafe's back, an
//! `immediate` handler, a fault handler for a fault inside the section, or a plain mistake in the main flow. [`Mutex`] keeps
//! its owner and its state in one word, so that there is no instant at which it is held and does not say by whom. It reports
//! the case: `try_lock` returns [`TryLockError::WouldDeadlock`]; `lock` aborts the process with a message. It never hangs on
//! itself. [`SpinMutex`] has no owner and makes no such promise.
//!
//! # Guards
//!
//! Guards may be dropped in any order, because a region is a count and not a saved mask. A guard that is forgotten leaves its
//! lock held *and its thread in the region*: from then on that thread runs deferrable handlers never again (with
//! [`DeferredCounter`](sigsafe_core::DeferredCounter) and [`FullSyscall`](sigsafe_core::FullSyscall) alike). Guards are not
//! `Send`, because the region is the thread's. There is no poisoning: a panic in the section releases the lock as it unwinds.
//!
//! # Fork
//!
//! The child of a fork goes on as the forking thread, under the identity that it had: locks that it held are its own, to be
//! used and released. Locks that other threads held stay held for ever in the child, as with any lock.

#![no_std]
#![warn(missing_docs)]

mod error;
mod mutex;
mod raw;
mod spin;
mod sys;

pub use self::error::TryLockError;
pub use self::mutex::{Mutex, MutexGuard};
pub use self::raw::RawMutex;
pub use self::spin::{SpinMutex, SpinMutexGuard};

/// The crate whose trait [`RawMutex`] implements, in the version that it implements.
pub use lock_api;

/// The README's examples, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
