//! Where the interrupted code stood, out of the machine context of a signal frame. Runs in handlers.

use libc::ucontext_t;

/// The instruction that the interrupted code would have executed next; `None` where the layout of the context is not known here.
///
/// A pointer and not a reference: the kernel's context may be shorter than libc's type.
///
/// # Safety
///
/// `context` is the kernel's of a live frame.
pub(crate) unsafe fn program_counter(context: *const ucontext_t) -> Option<usize> {
    // SAFETY: the caller's context.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let counter = Some(unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize);
    // SAFETY: the caller's context.
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    let counter = Some(unsafe { (*context).uc_mcontext.pc } as usize);
    // SAFETY: the caller's context.
    #[cfg(all(any(target_os = "freebsd", target_os = "dragonfly"), target_arch = "x86_64"))]
    let counter = Some(unsafe { (*context).uc_mcontext.mc_rip } as usize);
    // SAFETY: the caller's context, which points to the registers in the same frame.
    #[cfg(all(target_vendor = "apple", target_arch = "x86_64"))]
    let counter = Some(unsafe { (*(*context).uc_mcontext).__ss.__rip } as usize);
    // SAFETY: the caller's context, which points to the registers in the same frame.
    #[cfg(all(target_vendor = "apple", target_arch = "aarch64"))]
    let counter = Some(unsafe { (*(*context).uc_mcontext).__ss.__pc } as usize);
    #[cfg(not(any(
        all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")),
        all(any(target_os = "freebsd", target_os = "dragonfly"), target_arch = "x86_64"),
        all(target_vendor = "apple", any(target_arch = "x86_64", target_arch = "aarch64"))
    )))]
    let counter = {
        let _ = context;
        None
    };
    counter
}
