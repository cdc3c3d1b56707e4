//! Adoption while the library whose handler it is goes on: it forwards to what it found, installs itself again, or goes.

mod support;

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{AdoptError, Delivery, Handler, Registration, RemoveErrorKind, adopt};
use sigsafe_core::{Signal, critical};
use support::{Disposition, Form, RT, alone, log, manage, send};

/// Adopts what these tests have installed: it returns.
fn take(signal: Signal) -> Registration {
    // SAFETY: the plain handlers of these tests return, and are functions of this program.
    unsafe { adopt(signal) }.expect("the handler is adopted")
}

fn tags() -> Vec<i32> {
    log::take().iter().map(|row| row.signal).collect()
}

/// A library whose handler passes signals on to what it found, as signal-hook's does.
mod library {
    use super::*;

    static FOUND: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
        log::note(100);
        let found = FOUND.load(Ordering::Relaxed);
        if !matches!(found, libc::SIG_DFL | libc::SIG_IGN) {
            // SAFETY: what was found was a handler with SA_SIGINFO.
            let found: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(found) };
            found(number, info, context);
        }
        log::note(110);
    }

    pub(super) fn disposition() -> Disposition {
        Disposition { handler: handler as *const () as usize, ..Disposition::plain() }
    }

    /// Returns what it found, for its removal.
    pub(super) fn install(signal: Signal) -> Disposition {
        let found = Disposition::of(signal);
        if found.handler != disposition().handler {
            FOUND.store(found.handler, Ordering::Relaxed);
        }
        disposition().install(signal);
        found
    }
}

#[test]
fn an_adopted_handler_passes_signals_on_to_the_managed_one_that_it_found() {
    alone("an_adopted_handler_passes_signals_on_to_the_managed_one_that_it_found", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            let below = support::log_runs(signal);
            library::install(signal);
            let adopted = take(signal);
            let order = [-100, signal.number(), -110];
            send::tgkill(signal);
            assert_eq!(tags(), order);
            for form in Form::ALL {
                form.run(|| {
                    send::tgkill(signal);
                    assert_eq!(log::count(), 0);
                });
                assert_eq!(tags(), order, "{form:?}");
            }
            // Over it, one that forwards.
            let above = manage(Handler::new(|delivery: &Delivery<'_>| delivery.forward()), signal);
            critical(|_| send::tgkill(signal));
            assert_eq!(tags(), order);
            above.remove().unwrap();
            adopted.remove().unwrap();
            assert_eq!(Disposition::of(signal), library::disposition());
            assert_eq!(below.remove().unwrap_err().kind(), RemoveErrorKind::Replaced);
        }
    });
}

#[test]
fn a_library_that_installs_its_handler_again_takes_it_out_of_adoption() {
    alone("a_library_that_installs_its_handler_again_takes_it_out_of_adoption", || {
        let below = support::log_runs(Signal::USR1);
        let found = library::install(Signal::USR1);
        let first = take(Signal::USR1);
        library::install(Signal::USR1);
        let first = first.remove().expect_err("the library's own lies over it");
        assert_eq!(first.kind(), RemoveErrorKind::Replaced);
        critical(|_| {
            send::tgkill(Signal::USR1);
            assert_ne!(log::count(), 0, "it is not held back any more");
        });
        log::take();
        // Adopted once more, it is called once for a signal, and so is the one below.
        let second = take(Signal::USR1);
        send::tgkill(Signal::USR1);
        assert_eq!(tags(), [-100, libc::SIGUSR1, -110]);
        second.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), library::disposition());
        // The library goes, and what it found comes back: nobody calls its handler any more, by way of the first adoption neither.
        found.install(Signal::USR1);
        send::tgkill(Signal::USR1);
        assert_eq!(tags(), [libc::SIGUSR1]);
        assert_eq!(first.into_registration().remove().unwrap_err().kind(), RemoveErrorKind::Replaced);
        below.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

#[test]
fn a_library_that_removes_its_handler_is_left_alone() {
    alone("a_library_that_removes_its_handler_is_left_alone", || {
        for left in [Disposition::DEFAULT, Disposition::IGNORE] {
            Disposition::plain().install(Signal::WINCH);
            let adopted = take(Signal::WINCH);
            left.install(Signal::WINCH);
            send::tgkill(Signal::WINCH);
            critical(|_| send::tgkill(Signal::WINCH));
            assert_eq!(log::count(), 0);
            assert_eq!(adopted.remove().unwrap_err().kind(), RemoveErrorKind::Replaced);
            assert_eq!(Disposition::of(Signal::WINCH), left);
            // SAFETY: there is nothing to adopt.
            assert_eq!(unsafe { adopt(Signal::WINCH) }.unwrap_err(), AdoptError::NoHandler(Signal::WINCH));
        }
    });
}
