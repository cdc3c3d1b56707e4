//! The operating system, as the rest of the crate sees it: a handful of calls and the address of the thread record.
//!
//! Everything here is async-signal-safe and leaves `errno` alone unless it says otherwise.
//!
//! | file | what | where |
//! |---|---|---|
//! | `linux/` | raw system calls | where there is deferral: Linux on x86_64 and aarch64 |
//! | `unix` | the same names over libc | everywhere else |
//! | `posix`, `sigset`, `errno`, `context` | what is libc's on both sides | everywhere |
//! | `record/` | the thread record's place: initial-exec TLS, or behind a pthread key | one of them |
//! | `park/` | waiting for a word in memory to change | one of them |

mod context;
pub(crate) mod errno;
#[cfg(deferral)]
mod linux;
mod park;
mod posix;
mod record;
mod sigset;
#[cfg(not(deferral))]
mod unix;

// musl is linked statically, and a linker takes from an archive only what it has missed by then. A crate without std may come after the
// standard library's own copy: what std does not call would stay missing.
// SAFETY: nothing is declared.
#[cfg(target_env = "musl")]
#[link(name = "c")]
unsafe extern "C" {}

pub(crate) use context::program_counter;
pub(crate) use errno::{errno, set_errno};
#[cfg(deferral)]
pub(crate) use linux::*;
pub(crate) use park::{park, unpark_one};
pub(crate) use posix::*;
pub(crate) use record::{is_zero, load, record_address};
pub(crate) use sigset::{from_sigset, to_sigset};
#[cfg(not(deferral))]
pub(crate) use unix::*;
