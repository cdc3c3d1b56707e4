//! x86_64: the system call instruction.

use core::arch::asm;

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
