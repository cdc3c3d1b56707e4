//! Where the calling thread's record is.
//!
//! Initial-exec TLS where the linker and the loader have it and its place is known (`static_record`, from the build script); behind a
//! pthread key on macOS, OpenBSD and the less common architectures.

#[cfg(all(static_record, target_arch = "aarch64"))]
mod aarch64;
#[cfg(any(not(static_record), test))]
#[cfg_attr(static_record, allow(dead_code, reason = "compiled for its tests"))]
mod key;
#[cfg(all(static_record, target_arch = "x86_64"))]
mod x86_64;

#[cfg(all(static_record, target_arch = "aarch64"))]
pub(crate) use aarch64::record_address;
#[cfg(not(static_record))]
pub(crate) use key::record_address;
#[cfg(all(static_record, target_arch = "x86_64"))]
pub(crate) use x86_64::record_address;
