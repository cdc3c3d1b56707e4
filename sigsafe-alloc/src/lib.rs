//! Allocation in signal handlers: an allocator of our own, and a wrapper for any other.
//!
//! An allocator takes locks and rewires lists. A signal that lands in the middle of it, with a handler that allocates, finds
//! the lock held by the very thread that it interrupted, or half of a list: the program hangs or its heap is corrupt.
//!
//! [`SigSafeAlloc`] has no locks, and no state that a handler could find half made: any handler may use it at any instruction.
//!
//! ```
//! use sigsafe_alloc::SigSafeAlloc;
//!
//! #[global_allocator]
//! static ALLOCATOR: SigSafeAlloc = SigSafeAlloc;
//!
//! fn main() {
//!     assert_eq!(vec![1, 2, 3].len(), 3);
//! }
//! ```
//!
//! [`Masked`] puts each call of the allocator that it wraps into a critical region of `sigsafe-core`, so that a managed
//! handler on the same thread runs before the call or after it, and never inside. Exclusion between threads stays what it was: the
//! wrapped allocator's business. Read [what it cannot cover](Masked#what-it-cannot-cover) before you rely on it.
//!
//! The crate is `no_std` and never allocates by another allocator.

#![no_std]
#![warn(missing_docs)]

#[cfg(all(test, loom))]
extern crate std;

mod masked;
mod own;

/// For integrators: how [`SigSafeAlloc`] learns that a thread ends.
pub mod thread_exit {
    pub use crate::own::exit::{ThreadExit, notice_thread_ends_by, thread_ends};
}

pub use masked::Masked;
pub use own::{SigSafeAlloc, Stats, Verified, Violation, in_allocator};

/// The README's examples, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
