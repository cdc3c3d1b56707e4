//! Operations that a handler leaves in the middle, as `siglongjmp` does: without a return, and without a word to the allocator.
//!
//! x86_64 only; one thread at a time.

use std::arch::asm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// Where `leavable` goes on when its operation has been left: program counter, stack pointer, rbp, rbx, and whether that is so.
static LANDING: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
/// How often an operation has been left.
pub(crate) static LEFT: AtomicU32 = AtomicU32::new(0);

/// Calls `operation`; comes back also when a handler leaves it by [`leave`].
#[inline(never)]
pub(crate) fn leavable(operation: extern "C" fn()) {
    // SAFETY: calls a function of C's convention with an aligned stack, and says that it spoils what that may. A handler that comes
    // to the label by way of a changed context puts back the four registers that a call keeps and that are not declared as spoilt.
    // Nothing is left behind the last instruction here: what the compiler puts there may take this frame away.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov [rip + {landing}], rax",
            "mov [rip + {landing} + 8], rsp",
            "mov [rip + {landing} + 16], rbp",
            "mov [rip + {landing} + 24], rbx",
            "mov qword ptr [rip + {landing} + 32], 1",
            "call rdi",
            "2:",
            "mov qword ptr [rip + {landing} + 32], 0",
            in("rdi") operation,
            landing = sym LANDING,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
}

/// Has the interrupted code go on at the landing, with the registers that belong there.
pub(crate) fn leave(context: &mut libc::ucontext_t) {
    if LANDING[4].load(SeqCst) == 0 {
        return;
    }
    let registers = &mut context.uc_mcontext.gregs;
    for (register, value) in [libc::REG_RIP, libc::REG_RSP, libc::REG_RBP, libc::REG_RBX].into_iter().zip(&LANDING) {
        registers[register as usize] = value.load(SeqCst) as i64;
    }
    LEFT.fetch_add(1, SeqCst);
}
