#![doc = include_str!("../README.md")]
#![no_std]
#![warn(missing_docs)]

mod defer;
mod fatal;
pub mod handler;
pub mod mask;
mod query;
mod record;
pub mod region;
pub mod signal;
mod sigset;
mod sys;
mod waiting;

pub use fatal::fatal;
pub use query::{deferrals, handler_depth, in_handler, in_region, overflows, region_depth, thread_id};
pub use region::{Backend, DeferredCounter, FullSyscall, MaskGuard, Region, critical, critical_with};
pub use signal::{InvalidSignal, Signal};
pub use sigset::SigSet;
pub use waiting::Waiting;
