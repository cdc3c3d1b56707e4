//! aarch64: the system call instruction and the thread record's place.

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

/// A system call with up to four arguments; a negative result is minus the error number.
///
/// # Safety
///
/// The arguments are what the call takes, and what it does to memory is what the caller may do.
#[inline]
pub(crate) unsafe fn syscall4(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel preserves every register but x0; memory is as the caller vouches.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// The instruction that the interrupted code would have executed next.
pub(crate) fn program_counter(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.pc as usize
}
