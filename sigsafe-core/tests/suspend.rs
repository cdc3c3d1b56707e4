//! `mask::suspend` and `mask::temporary`: what they admit runs, in a region too, and nothing comes too early or is waited for in vain.

mod support;

use std::ptr::null_mut;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, SigSet, Signal, critical, critical_with, mask};
use support::send::{self, sigqueue_to, tgkill};
use support::{Disposition, Form, RT, SENT_FAULT, alone, kernel_mask, log, log_runs, manage};

/// What waited before is handled by the call, in every form of region and outside.
#[test]
fn suspend_admits_what_is_blocked() {
    alone("suspend_admits_what_is_blocked", || {
        let _registration = log_runs(Signal::USR1);
        mask::block(Signal::USR1.into());
        for form in Form::ALL {
            form.run(|| {
                tgkill(Signal::USR1);
                assert_eq!(log::count(), 0);
                mask::suspend(SigSet::EMPTY);
                assert_eq!(log::take().len(), 1, "{form:?}");
            });
            assert_eq!(mask::current(), Signal::USR1.into(), "{form:?}");
            assert_eq!(kernel_mask(), Signal::USR1.into(), "{form:?}");
        }
        tgkill(Signal::USR1);
        mask::suspend(SigSet::EMPTY);
        assert_eq!(log::take().len(), 1);
    });
}

/// A region has captured it already: in the kernel, in a slot, or as a sent fault.
#[test]
fn suspend_admits_what_a_region_holds_back() {
    alone("suspend_admits_what_a_region_holds_back", || {
        for signal in [Signal::USR1, RT, Signal::CONT, Signal::TSTP, SENT_FAULT, Signal::ABRT] {
            let registration = log_runs(signal);
            for form in Form::CAPTURING {
                form.run(|| {
                    // By another process's number, since SIGABRT of this one's own runs at once.
                    sigqueue_to(send::thread(), signal, 7);
                    assert_eq!(log::count(), 0, "{form:?}: {signal} is held back");
                    mask::suspend(SigSet::EMPTY);
                    let rows = log::take();
                    assert_eq!(rows.len(), 1, "{form:?}: {signal}");
                    assert_eq!((rows[0].code(), rows[0].value()), (libc::SI_QUEUE, 7), "{form:?}: {signal}");
                    // Afterwards the region holds back again.
                    sigqueue_to(send::thread(), signal, 8);
                    assert_eq!(log::count(), 0, "{form:?}: {signal} is held back again");
                });
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{form:?}: {signal}");
                assert_eq!(rows[0].value(), 8);
                assert_eq!(kernel_mask(), SigSet::EMPTY, "{form:?}");
            }
            registration.remove().unwrap();
        }
    });
}

/// Both are delivered before the first handler runs: the second frame lies on the first, whose mask does not show that it was admitted.
#[test]
fn of_two_admitted_at_once_both_run() {
    alone("of_two_admitted_at_once_both_run", || {
        let set = SigSet::EMPTY.with(Signal::USR1).with(Signal::USR2);
        let _registrations = [log_runs(Signal::USR1), log_runs(Signal::USR2)];
        for blocked in [set, SigSet::EMPTY] {
            mask::set(blocked);
            for form in Form::ALL {
                form.run(|| {
                    tgkill(Signal::USR1);
                    tgkill(Signal::USR2);
                    assert_eq!(log::count(), 0);
                    mask::suspend(SigSet::EMPTY);
                    assert_eq!(log::take().len(), 2, "{form:?}, blocked {blocked}");
                });
                assert_eq!(log::count(), 0, "{form:?}");
                assert_eq!(kernel_mask(), blocked, "{form:?}");
            }
        }
    });
}

#[test]
fn what_the_mask_blocks_waits_on() {
    alone("what_the_mask_blocks_waits_on", || {
        let _registrations = [log_runs(Signal::USR1), log_runs(RT)];
        for form in Form::ALL {
            form.run(|| {
                sigqueue_to(send::thread(), RT, 1);
                tgkill(Signal::USR1);
                mask::suspend(RT.into());
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{form:?}");
                assert_eq!(rows[0].signal, Signal::USR1.number());
            });
            let rows = log::take();
            assert_eq!(rows.len(), 1, "{form:?}");
            assert_eq!((rows[0].signal, rows[0].value()), (RT.number(), 1));
        }
    });
}

/// A handler that runs in a region because a mask admitted it has regions of its own, and they hold back.
#[test]
fn regions_of_an_admitted_handler_hold_back() {
    alone("regions_of_an_admitted_handler_hold_back", || {
        fn handler(_: &Delivery<'_>) {
            critical(|_| {
                tgkill(Signal::USR2);
                log::note(1);
            });
            log::note(2);
        }
        let _registration = manage(Handler::new(handler), Signal::USR1);
        let _logged = log_runs(Signal::USR2);
        for form in Form::CAPTURING {
            form.run(|| {
                tgkill(Signal::USR1);
                mask::suspend(SigSet::EMPTY);
                // The handler lies over a region, so what it provokes waits for that.
                let signals: Vec<i32> = log::take().iter().map(|row| row.signal).collect();
                assert!(signals == [-1, -2] || signals == [-1, Signal::USR2.number(), -2], "{form:?}: {signals:?}");
            });
            log::take();
        }
    });
}

/// The mask that is in force is not that of the full-mask region below, so a full-mask region of the handler's blocks for itself.
#[test]
fn a_full_mask_region_of_an_admitted_handler_blocks() {
    fn handler(_: &Delivery<'_>) {
        critical_with::<FullSyscall, _>(|_| {
            tgkill(Signal::USR2);
            log::note(1);
        });
        log::note(2);
    }
    alone("a_full_mask_region_of_an_admitted_handler_blocks", || {
        let _registration = manage(Handler::new(handler), Signal::USR1);
        Disposition::plain().install(Signal::USR2);
        for form in Form::ALL {
            form.run(|| {
                tgkill(Signal::USR1);
                mask::suspend(SigSet::EMPTY);
                log::note(3);
            });
            let signals = log::signals();
            log::take();
            assert_eq!(signals[0], -1, "{form:?}: {signals:?}");
            assert_eq!(signals.iter().filter(|signal| **signal == Signal::USR2.number()).count(), 1, "{form:?}: {signals:?}");
            assert_eq!((kernel_mask(), mask::pending()), (SigSet::EMPTY, SigSet::EMPTY), "{form:?}");
        }
    });
}

#[test]
fn temporary_hands_over_the_mask() {
    alone("temporary_hands_over_the_mask", || {
        let _registration = log_runs(Signal::USR1);
        let day = libc::timespec { tv_sec: 86_400, tv_nsec: 0 };
        for form in Form::ALL {
            form.run(|| {
                tgkill(Signal::USR1);
                // SAFETY: no descriptors; timeout and mask are live.
                let result = mask::temporary(SigSet::EMPTY, |mask| unsafe { libc::ppoll(null_mut(), 0, &raw const day, mask) });
                assert_eq!(result, Some(-1), "{form:?}");
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
                assert_eq!(log::take().len(), 1, "{form:?}");
            });
        }
    });
}

/// What cannot wait in the kernel is handled before the call, which is then not made: it would sleep for what has come.
#[test]
fn temporary_does_not_sleep_for_what_has_come() {
    alone("temporary_does_not_sleep_for_what_has_come", || {
        for signal in [Signal::CONT, SENT_FAULT] {
            let _registration = log_runs(signal);
            critical(|_| {
                sigqueue_to(send::thread(), signal, 1);
                assert_eq!(log::count(), 0);
                assert_eq!(mask::temporary(SigSet::EMPTY, |_| ()), None);
                assert_eq!(log::take().len(), 1);
            });
        }
    });
}

#[test]
fn a_call_that_panics_ends_the_announcement() {
    alone("a_call_that_panics_ends_the_announcement", || {
        let _registration = log_runs(Signal::USR1);
        critical(|_| {
            let call = || mask::temporary(SigSet::EMPTY, |_| panic!("on purpose"));
            assert!(std::panic::catch_unwind(call).is_err());
            tgkill(Signal::USR1);
            assert_eq!(log::count(), 0, "the region holds back");
        });
        assert_eq!(log::count(), 1);
    });
}

/// The mask is announced and not in force yet: what an immediate handler does to its own lets in nothing that the call waits for.
#[test]
fn an_immediate_handler_right_before_the_call_lets_nothing_in() {
    alone("an_immediate_handler_right_before_the_call_lets_nothing_in", || {
        let immediate = Handler::new(|_| _ = mask::unblock(SigSet::FULL)).immediate(true);
        let _registrations = [log_runs(Signal::USR1), manage(immediate, Signal::USR2)];
        for form in Form::ALL {
            form.run(|| {
                tgkill(Signal::USR1);
                let polled = mask::temporary(SigSet::EMPTY, |mask| {
                    tgkill(Signal::USR2);
                    assert_eq!(log::count(), 0, "{form:?}: handled before the call");
                    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                    // SAFETY: the pointers are null or to live values.
                    unsafe { libc::ppoll(null_mut(), 0, &raw const now, mask) }
                });
                assert_eq!((polled, log::take().len()), (Some(-1), 1), "{form:?}");
            });
        }
    });
}

/// A fault that was sent, is kept, and has been blocked since by the thread itself: the call lets it in, and does not return without.
#[test]
fn suspend_admits_a_sent_fault_that_was_blocked_since() {
    alone("suspend_admits_a_sent_fault_that_was_blocked_since", || {
        let _registration = log_runs(SENT_FAULT);
        for form in Form::ALL {
            form.run(|| {
                tgkill(SENT_FAULT);
                mask::block(SENT_FAULT.into());
                assert_eq!(log::count(), 0, "{form:?}");
                mask::suspend(SigSet::EMPTY);
                assert_eq!(log::take().len(), 1, "{form:?}");
                mask::unblock(SENT_FAULT.into());
            });
        }
    });
}
