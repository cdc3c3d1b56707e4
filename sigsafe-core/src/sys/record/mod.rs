//! Where the calling thread's record is.
//!
//! Initial-exec TLS where the linker and the loader have it and its place is known (`static_record`, from the build script); behind a
//! pthread key on macOS, OpenBSD and the less common architectures.

#[cfg(any(not(static_record), test))]
#[cfg_attr(static_record, allow(dead_code, reason = "compiled for its tests"))]
mod key;
#[cfg(static_record)]
mod tls;
mod words;

#[cfg(not(static_record))]
pub(crate) use key::record_address;
#[cfg(static_record)]
pub(crate) use tls::record_address;
pub(crate) use words::{is_zero, load};
