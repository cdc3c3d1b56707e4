//! One word of the calling thread's record, for code in which each instruction counts: on x86_64 the word is an operand, relative to the
//! thread pointer, and its address is never made.
//!
//! Runs in any context.

/// The word that lies `OFFSET` bytes into the record.
#[cfg(all(static_record, target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn load<const OFFSET: usize>() -> usize {
    let word;
    // SAFETY: reads a word of the record, which is there as long as the thread.
    unsafe {
        core::arch::asm!(
            "mov {word}, qword ptr fs:[{record} + {offset}]",
            record = in(reg) super::tls::from_thread_pointer(),
            offset = const OFFSET,
            word = lateout(reg) word,
            options(readonly, nostack, preserves_flags),
        );
    }
    word
}

/// Whether that word is zero.
#[cfg(all(static_record, target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn is_zero<const OFFSET: usize>() -> bool {
    // SAFETY: reads a word of the record, which is there as long as the thread.
    unsafe {
        core::arch::asm!(
            "cmp qword ptr fs:[{record} + {offset}], 0",
            "jne {other}",
            record = in(reg) super::tls::from_thread_pointer(),
            offset = const OFFSET,
            other = label { return false },
            options(readonly, nostack),
        );
    }
    true
}

/// The word that lies `OFFSET` bytes into the record.
#[cfg(not(all(static_record, target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn load<const OFFSET: usize>() -> usize {
    use core::sync::atomic::{AtomicUsize, Ordering};
    // SAFETY: a word of the record, which is there as long as the thread.
    unsafe { (*super::record_address().add(OFFSET).cast::<AtomicUsize>()).load(Ordering::Relaxed) }
}

/// Whether that word is zero.
#[cfg(not(all(static_record, target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn is_zero<const OFFSET: usize>() -> bool {
    load::<OFFSET>() == 0
}
