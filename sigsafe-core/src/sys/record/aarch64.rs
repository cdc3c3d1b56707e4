//! aarch64, ELF: the thread record as initial-exec TLS.

use core::arch::{asm, global_asm};

// See x86_64.rs for why this is neither `thread_local!` nor a visible symbol.
global_asm!(
    ".pushsection .tbss.sigsafe_thread_record_v1,\"awT\",@nobits",
    ".globl sigsafe_thread_record_v1",
    ".hidden sigsafe_thread_record_v1",
    ".type sigsafe_thread_record_v1,%tls_object",
    ".size sigsafe_thread_record_v1,{size}",
    ".p2align 6",
    "sigsafe_thread_record_v1:",
    ".zero {size}",
    ".popsection",
    size = const crate::record::RECORD_BYTES,
);

/// The address of the calling thread's record.
#[inline(always)]
pub(crate) fn record_address() -> *mut u8 {
    let address;
    // SAFETY: adds the thread pointer and the constant offset that the linker or loader put for the symbol above. `pure`: the
    // sum never changes on one thread.
    unsafe {
        asm!(
            "mrs {a}, tpidr_el0",
            "adrp {o}, :gottprel:sigsafe_thread_record_v1",
            "ldr {o}, [{o}, :gottprel_lo12:sigsafe_thread_record_v1]",
            "add {a}, {a}, {o}",
            a = out(reg) address,
            o = out(reg) _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    address
}
