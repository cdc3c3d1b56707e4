//! Signal storms against allocators and locks.
//!
//! A storm sends signals into threads that allocate or lock, and lets the handler do the same: that is what a runtime with
//! signal-driven garbage collection does, and what ordinary allocators and locks do not survive. Each case runs in a process
//! of its own, under a watchdog that is another process, and ends with a verdict: passed, hung, crashed, corrupted or
//! inconclusive.
//!
//! ```text
//! cli ─ compare ─ watchdog ══ shared memory ══ case ─ worker ┬ workload   the main flow
//!         │          │                          │            └ collector  the handler
//!       report    verdict                     driver         subject: what both call
//! ```
//!
//! Left of the shared memory is the watchdog's process, right of it the child's. The command `sigsafe-stress` is
//! [`cli::main`]; a program of its own kind may call [`watchdog::run`] with a [`plan::Plan`]. [`isolate`] and [`step`] are
//! for the tests of the whole workspace and use none of this.
#![warn(missing_docs)]

mod block;
mod case;
pub mod cli;
mod collector;
pub mod compare;
mod console;
mod crew;
pub mod driver;
mod exchange;
mod fault;
mod forking;
mod futex;
mod interrupt;
pub mod isolate;
pub mod plan;
mod process;
mod report;
pub mod rng;
mod shared;
mod stack;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod step;
pub mod subject;
pub mod verdict;
pub mod watchdog;
mod worker;
pub mod workload;
