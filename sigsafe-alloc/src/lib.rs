//! Make any global allocator usable from signal handlers.
//!
//! An allocator takes locks and rewires lists. A signal that lands in the middle of it, with a handler that allocates, finds
//! the lock held by the very thread that it interrupted, or half of a list: the program hangs or its heap is corrupt.
//! [`Masked`] puts each call of the allocator that it wraps into a critical region of `sigsafe-core`, so that a managed
//! handler on the same thread runs before the call or after it, and never inside.
//!
//! ```
//! use sigsafe_alloc::Masked;
//! use std::alloc::System;
//!
//! #[global_allocator]
//! static ALLOCATOR: Masked<System> = Masked::new(System);
//!
//! fn main() {
//!     assert_eq!(vec![1, 2, 3].len(), 3);
//! }
//! ```
//!
//! A region protects a thread from its own handlers. Exclusion between threads stays what it was: the wrapped allocator's
//! business. Read [what it cannot cover](Masked#what-it-cannot-cover) before you rely on it.
//!
//! The crate is `no_std` and never allocates itself.

#![no_std]
#![warn(missing_docs)]

mod masked;

pub use masked::Masked;

/// The README's examples, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
