//! x86_64: the system call instruction and the thread record's place.

use core::arch::{asm, global_asm};

// The record is declared here and not by `thread_local!`: in a shared library that compiles to `__tls_get_addr`, whose first
// call on a thread may allocate. Initial-exec TLS (`@GOTTPOFF`) is part of every thread's static block from its first
// instruction to its last. The name carries the layout's version; it is hidden, so that each library has its own.
global_asm!(
    ".pushsection .tbss.sigsafe_thread_record_v1,\"awT\",@nobits",
    ".globl sigsafe_thread_record_v1",
    ".hidden sigsafe_thread_record_v1",
    ".type sigsafe_thread_record_v1,@tls_object",
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

/// A system call with up to four arguments; a negative result is minus the error number.
///
/// # Safety
///
/// The arguments are what the call takes, and what it does to memory is what the caller may do.
#[inline]
pub(crate) unsafe fn syscall4(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel preserves every register but rax, rcx and r11; memory is as the caller vouches.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// The instruction that the interrupted code would have executed next.
pub(crate) fn program_counter(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
}
