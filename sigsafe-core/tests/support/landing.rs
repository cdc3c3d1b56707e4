//! Proof that a handler's edit of the machine context takes effect: the interrupted code goes on somewhere else.
//!
//! The handler moves the program counter to the *landing*, one instruction that no processor knows. If the edit is in force when the
//! handler returns, that instruction raises SIGILL at just this address, and a plain handler moves the program counter back. No
//! register and no byte of the stack is touched, so any code may be interrupted in this way.

use std::arch::global_asm;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::Signal;
use sigsafe_core::handler::Delivery;

use super::{Disposition, log};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl sigsafe_test_landing", "sigsafe_test_landing:", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".globl sigsafe_test_landing", "sigsafe_test_landing:", "udf #0");

unsafe extern "C" {
    fn sigsafe_test_landing();
}

static RETURN_TO: AtomicUsize = AtomicUsize::new(0);
static LANDINGS: AtomicUsize = AtomicUsize::new(0);

/// The program counter in a context.
fn program_counter(context: *mut libc::ucontext_t) -> *mut usize {
    // SAFETY: a delivery's context is the kernel's frame.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        (&raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize]).cast()
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        (&raw mut (*context).uc_mcontext.pc).cast()
    }
}

/// A managed handler that logs and diverts the interrupted code to the landing.
pub fn divert(delivery: &Delivery<'_>) {
    log::record(delivery);
    if let Some(context) = delivery.ucontext() {
        let pc = program_counter(context.as_ptr());
        // SAFETY: the word is in the live frame.
        unsafe {
            RETURN_TO.store(pc.read(), Ordering::Relaxed);
            pc.write(sigsafe_test_landing as *const () as usize);
        }
    }
}

/// The plain SIGILL handler: from the landing back to where the code was interrupted. An illegal instruction elsewhere comes back for ever,
/// which the watchdog ends.
extern "C" fn resume(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    let pc = program_counter(context.cast());
    // SAFETY: the word is in the live frame.
    unsafe {
        if pc.read() == sigsafe_test_landing as *const () as usize {
            LANDINGS.fetch_add(1, Ordering::Relaxed);
            pc.write(RETURN_TO.load(Ordering::Relaxed));
        }
    }
}

/// Installs the SIGILL handler.
pub fn prepare() {
    Disposition { handler: resume as *const () as usize, ..Disposition::plain() }.install(Signal::ILL);
}

/// How often the interrupted code has gone on at the landing.
pub fn landings() -> usize {
    LANDINGS.load(Ordering::Relaxed)
}
