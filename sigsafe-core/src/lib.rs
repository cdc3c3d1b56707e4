#![doc = include_str!("../README.md")]
#![no_std]
#![warn(missing_docs)]

#[doc(hidden)]
#[macro_use]
pub mod mutant;

#[cfg(feature = "std")]
extern crate std;

#[doc(hidden)]
pub mod allocator;
mod bits;
#[cfg(feature = "std")]
pub mod command;
mod crash;
mod defer;
#[cfg(any(doc, doctest))]
pub mod docs;
mod fatal;
pub mod handler;
pub mod mask;
pub mod notifier;
mod query;
mod record;
pub mod region;
#[cfg(feature = "critical-section")]
mod section;
mod siginfo;
pub mod signal;
mod sigset;
mod sys;
pub mod thread;
mod waiting;

pub use crash::crash;
pub use defer::leave_thread;
pub use fatal::fatal;
pub use query::{deferrals, handler_depth, in_handler, in_region, overflows, region_depth, thread_id};
pub use region::{Backend, DefaultBackend, DeferredCounter, FullSyscall, MaskGuard, Region, critical, critical_with};
pub use siginfo::SigInfo;
pub use signal::{InvalidSignal, Signal};
pub use sigset::SigSet;
pub use waiting::{Waiting, unpark_one};
