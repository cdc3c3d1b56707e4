//! Dispositions as the kernel keeps them, read and put back bit for bit.
//!
//! Not by libc, whose `sigaction` replaces the return trampoline (`sa_restorer`) by its own; musl's does not even tell the one that is
//! there. Installing a handler of ours is [`sigaction`](super::sigaction)'s. Async-signal-safe; `errno` is left alone.

use core::ffi::c_int;
use core::mem::transmute;

use super::{SIGSET_BYTES, syscall4};
use crate::sigset::SigSet;
use crate::sys::{from_sigset, to_sigset};

/// The kernel's `struct sigaction` of x86_64 and aarch64.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// `rt_sigaction` that reads. `None` when the kernel refuses.
pub(crate) fn action(signal: c_int) -> Option<libc::sigaction> {
    let mut raw = KernelAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the kernel writes one of its structs, which is on this stack; nothing is installed.
    let result = unsafe { syscall4(libc::SYS_rt_sigaction, signal as usize, 0, (&raw mut raw).addr(), SIGSET_BYTES) };
    if result != 0 {
        return None;
    }
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = raw.handler;
    action.sa_flags = raw.flags as c_int;
    // SAFETY: zero is `None`, and any other value only goes back to the kernel.
    action.sa_restorer = unsafe { transmute::<usize, Option<extern "C" fn()>>(raw.restorer) };
    action.sa_mask = to_sigset(SigSet::from_bits(raw.mask));
    Some(action)
}

/// `rt_sigaction` that puts back what [`action`] has read. `false` when the kernel refuses.
///
/// # Safety
///
/// The handler in `action` may run at any instruction of the process from now on.
pub(crate) unsafe fn restore_action(signal: c_int, action: &libc::sigaction) -> bool {
    let raw = KernelAction {
        handler: action.sa_sigaction,
        // As unsigned: SA_RESETHAND is the sign bit of C's int.
        flags: action.sa_flags as u32 as usize,
        restorer: action.sa_restorer.map_or(0, |function| function as usize),
        mask: from_sigset(&action.sa_mask).bits(),
    };
    // SAFETY: the kernel reads one of its structs, which is on this stack; the caller vouches for the handler.
    unsafe { syscall4(libc::SYS_rt_sigaction, signal as usize, (&raw const raw).addr(), 0, SIGSET_BYTES) == 0 }
}

/// Whether the kernel would see the same in both.
pub(crate) fn same_action(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    let restorer = |action: &libc::sigaction| action.sa_restorer.map(|function| function as usize);
    let mask = |action: &libc::sigaction| from_sigset(&action.sa_mask);
    a.sa_sigaction == b.sa_sigaction && a.sa_flags == b.sa_flags && mask(a) == mask(b) && restorer(a) == restorer(b)
}
