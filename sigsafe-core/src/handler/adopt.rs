//! Adoption: a handler that somebody else has installed is put behind the trampoline, so that regions hold it back.
//!
//! An adopted handler is a managed one that does nothing but [forward](super::Delivery::forward): its registration has the foreign
//! disposition's options, and below it lies that disposition itself, to be called for each delivery and to be restored by the
//! removal. Runs in threads, in regions and in handlers.

use super::table::{self, ChangeError};
use super::{AdoptError, Delivery, Handler, InstallError, Registration, catchable};
use crate::signal::Signal;
use crate::sys;

/// Puts the handler that others have installed for `signal`, by a plain `sigaction` or `signal`, behind the trampoline, with its
/// mask and its flags: from now on regions hold it back like any managed handler. [`Registration::remove`] gives it back: the
/// disposition is then bit for bit what it was.
///
/// It is called as the kernel calls it, with the siginfo and the machine context of its delivery. (Only where a region's exit
/// dispatches the signal itself is there no context; [`Delivery::forward`] says what it gets then.)
///
/// ```
/// use sigsafe_core::handler::{AdoptError, adopt};
/// use sigsafe_core::{SigSet, Signal};
///
/// extern "C" fn of_some_library(_: libc::c_int) {}
/// # let function = of_some_library as *const () as libc::sighandler_t;
/// unsafe { libc::signal(libc::SIGUSR1, function) };
///
/// // What libraries have installed up to now:
/// let mut adopted = Vec::new();
/// for signal in SigSet::FULL {
///     // SAFETY: that library's handler returns.
///     match unsafe { adopt(signal) } {
///         Ok(registration) => adopted.push(registration),
///         Err(AdoptError::NoHandler(_)) => {}
///         Err(error) => println!("{error}"),
///     }
/// }
/// # assert!(adopted.iter().any(|registration| registration.signal() == Signal::USR1));
/// for registration in adopted {
///     registration.remove().unwrap();
/// }
/// ```
///
/// What adoption cannot see: a library that *saves* the disposition and puts it back later puts ours back, and its own handler goes on
/// being called; one that installs its handler anew takes it out from behind the trampoline, and the removal then says
/// [`Replaced`](super::RemoveErrorKind::Replaced). So give a handler back before its library removes it, is unloaded, or changes it. A
/// handler with `SA_RESETHAND` that installs itself again each time is adopted for one delivery. Give a handler of a real-time signal
/// back when no other thread is about to leave a region that holds one back: the foreign handler may then be called once more, with
/// a siginfo that says nothing.
///
/// Async-signal safety: may be called from a handler. Cost: as [`Handler::install`]. A delivery costs no system call more than
/// that of a managed handler with the same options.
///
/// # Errors
///
/// [`AdoptError`]: there is no handler, or it is managed already, or it cannot be managed. Nothing has changed then.
///
/// # Safety
///
/// The foreign handler returns, instead of leaving by `longjmp`, and stays callable until it is given back.
#[doc(alias = "sigaction")]
pub unsafe fn adopt(signal: Signal) -> Result<Registration, AdoptError> {
    catchable(signal)?;
    match table::adopt(signal) {
        Ok(entry) => Ok(Registration { signal, entry }),
        Err(ChangeError::NoHandler) => Err(AdoptError::NoHandler(signal)),
        Err(ChangeError::Managed) => Err(AdoptError::Managed(signal)),
        Err(error) => Err(InstallError::from_change(error, signal).into()),
    }
}

/// The handler of an adopted registration.
fn pass_on(delivery: &Delivery<'_>) {
    delivery.forward();
}

impl Handler {
    /// The managed handler that stands for a foreign one.
    pub(super) fn standing_for(action: &libc::sigaction) -> Handler {
        let has = |flag| action.sa_flags & flag != 0;
        Handler {
            mask: sys::from_sigset(&action.sa_mask),
            on_stack: has(libc::SA_ONSTACK),
            restart: has(libc::SA_RESTART),
            no_defer: has(libc::SA_NODEFER),
            reset_hand: has(libc::SA_RESETHAND),
            no_cld_stop: has(libc::SA_NOCLDSTOP),
            no_cld_wait: has(libc::SA_NOCLDWAIT),
            immediate: false,
            adopted: true,
            function: pass_on,
            data: 0,
        }
    }
}
