//! Workloads for allocators, and the program that runs one of them on its own global allocator.
//!
//! ```text
//! cargo run --release -p sigsafe-bench-allocators                                     every row, every allocator, 20 rounds
//! cargo run --release -p sigsafe-bench-allocators -- --rounds 6 --rows pair,burst --allocators sigsafe,mimalloc
//! cargo run --release -p sigsafe-bench-allocators -- list                             the rows
//! cargo run --release -p sigsafe-bench-allocators -- check                            each row asks for as many blocks as it says
//! cargo run --release -p sigsafe-bench-allocators -- growth                           more live blocks, more threads
//! benches/callgrind-alloc.sh                                                          instructions of a pair
//! ```
//!
//! An allocator that is measured is the allocator of its whole process: each has a binary of its own (`src/bin`, `ours`, `peers`), which
//! is nothing but a `#[global_allocator]` and [`worker::main`]. All are built in one profile. Its thin LTO reaches Rust alone, and so can
//! inline our allocator's code, and nobody else's: the others are C and C++ behind their crates' functions. The driver
//! (`src/driver`) starts a fresh process for each measurement and compares.

mod block;
mod counting;
mod memory;
mod row;
mod rows;
mod work;
pub mod worker;

pub use counting::Counting;
pub use row::{Allocations, Row};
pub use rows::{DEFAULT, GROWTH, PAIRS, find};
pub use work::{TREE, tree};
pub use worker::{Report, Subject};
