//! The atomics in what threads share: spans, stacks, chunks, and the links of free blocks.
//!
//! They are the core library's. Where [`models`](super::models) run this crate's code under loom they are types of the same size
//! which loom watches; nothing else in the code differs.

#[cfg(not(all(test, loom)))]
pub(super) use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(all(test, loom))]
pub(super) use super::models::atomics::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
