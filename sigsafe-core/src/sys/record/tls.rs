//! ELF: the thread record as initial-exec TLS.

use core::arch::{asm, global_asm};

// The record is declared here and not by `thread_local!`: in a shared library that compiles to a call (`__tls_get_addr`, or through a
// descriptor), whose first run on a thread may allocate. Initial-exec TLS is part of every thread's static block from its first
// instruction to its last. The name carries the layout's version; it is hidden, so that each library has its own.
global_asm!(
    ".pushsection .tbss.sigsafe_thread_record_v1,\"awT\",%nobits",
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
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn record_address() -> *mut u8 {
    let address;
    // SAFETY: reads the thread control block's own address, which the ABI keeps at fs:0, and adds the constant offset that the
    // linker or loader put for the symbol above. `pure`: the sum never changes on one thread.
    unsafe {
        asm!(
            "mov {a}, qword ptr fs:[0]",
            "add {a}, qword ptr [rip + sigsafe_thread_record_v1@GOTTPOFF]",
            a = lateout(reg) address,
            options(pure, nomem, nostack),
        );
    }
    address
}

/// The address of the calling thread's record.
#[cfg(target_arch = "aarch64")]
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

/// Where the record lies, counted from the thread pointer.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn from_thread_pointer() -> usize {
    let offset;
    // SAFETY: reads the constant that the linker or loader put for the symbol above.
    unsafe {
        asm!(
            "mov {o}, qword ptr [rip + sigsafe_thread_record_v1@GOTTPOFF]",
            o = lateout(reg) offset,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    offset
}
