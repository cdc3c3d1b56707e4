//! The bits of a signal set, and one that a thread and its handlers share.
//!
//! One word where the platform has up to 64 signals, two where it has more. Runs in any context.

#[cfg(any(test, target_os = "freebsd", target_os = "dragonfly", target_os = "illumos"))]
mod wide;

#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly", target_os = "illumos")))]
mod width {
    pub(crate) type Bits = u64;
    pub(crate) type AtomicBits = core::sync::atomic::AtomicU64;
}

#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "illumos"))]
mod width {
    pub(crate) type Bits = u128;
    pub(crate) type AtomicBits = super::wide::Wide;
}

pub(crate) use width::{AtomicBits, Bits};

const _: () = assert!(crate::signal::LAST as u32 <= Bits::BITS);
