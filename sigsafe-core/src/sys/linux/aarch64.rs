//! aarch64: the system call instruction.

use core::arch::asm;

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
