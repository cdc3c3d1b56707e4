//! The operating system, as the rest of the crate sees it: a handful of calls and the address of the thread record.
//!
//! Everything here is async-signal-safe and leaves `errno` alone unless it says otherwise.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("this version of sigsafe-core runs on Linux, x86_64 and aarch64");

mod linux;

pub(crate) use linux::*;
