//! The mask operations speak of what the *thread* has blocked, in a region and outside one, with and without a signal held back.

mod support;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, mask};
use support::{Form, RT, SENT_FAULT, SIGNALS, alone, fault, kernel_mask, libc_set, log, log_runs, manage, raw_mask, send};

/// Of each way in which a signal is held back: requeued, kept with a token, kept and requeued at the exit, kept and dispatched.
const KINDS: [Signal; 5] = [Signal::USR1, RT, SENT_FAULT, Signal::CONT, Signal::TSTP];

const USR1: SigSet = SigSet::EMPTY.with(Signal::USR1);
const USR2: SigSet = SigSet::EMPTY.with(Signal::USR2);

/// Logs the runs of every signal of [`KINDS`] and of SIGUSR2.
fn with_handlers(test_name: &str, body: impl FnOnce()) {
    alone(test_name, || {
        KINDS.into_iter().for_each(|signal| _ = log_runs(signal));
        log_runs(Signal::USR2);
        body();
    });
}

/// The number of runs that `send` causes at once.
fn runs(send: impl FnOnce()) -> usize {
    let before = log::count();
    send();
    log::count() - before
}

#[test]
fn operations_outside_a_region_are_the_kernel_s() {
    with_handlers("operations_outside_a_region_are_the_kernel_s", || {
        let start = kernel_mask();
        assert_eq!(mask::current(), start);
        assert_eq!(mask::block(USR1), start);
        assert_eq!((mask::current(), kernel_mask()), (start | USR1, start | USR1));
        assert_eq!(mask::set(USR2), start | USR1);
        assert_eq!((mask::current(), kernel_mask()), (USR2, USR2));
        assert_eq!(mask::unblock(USR2), USR2);
        assert_eq!((mask::current(), kernel_mask()), (SigSet::EMPTY, SigSet::EMPTY));
        assert_eq!(mask::unblock(USR2), SigSet::EMPTY);
    });
}

#[test]
fn unblock_and_set_deliver_before_they_return() {
    with_handlers("unblock_and_set_deliver_before_they_return", || {
        for signal in KINDS {
            mask::block(signal.into());
            assert_eq!(runs(|| send::kill(signal)), 0, "{signal}");
            assert!(mask::pending().contains(signal));
            assert_eq!(runs(|| _ = mask::unblock(signal.into())), 1, "{signal}");
            assert!(!mask::pending().contains(signal));
            let old = mask::block(signal.into());
            send::kill(signal);
            assert_eq!(runs(|| _ = mask::set(old)), 1, "{signal}");
        }
    });
}

#[test]
fn what_is_blocked_in_a_region_stays_blocked_after_it() {
    with_handlers("what_is_blocked_in_a_region_stays_blocked_after_it", || {
        for form in Form::ALL {
            let before = kernel_mask();
            form.run(|| assert_eq!(mask::block(USR1), before, "{form:?}"));
            assert_eq!(kernel_mask(), before | USR1, "{form:?}");
            assert_eq!(runs(|| send::kill(Signal::USR1)), 0, "{form:?}");
            assert_eq!(runs(|| _ = mask::unblock(USR1)), 1, "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

#[test]
fn what_is_unblocked_in_a_region_is_let_in_at_its_end() {
    with_handlers("what_is_unblocked_in_a_region_is_let_in_at_its_end", || {
        for signal in [Signal::USR1, RT, Signal::CONT, Signal::TSTP] {
            for form in Form::ALL {
                let before = mask::block(signal.into());
                send::kill(signal);
                form.run(|| {
                    assert_eq!(mask::unblock(signal.into()), before.with(signal), "{signal} {form:?}");
                    assert_eq!(mask::current(), before, "{signal} {form:?}");
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                });
                assert_eq!(log::take().len(), 1, "{signal} {form:?}");
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn set_in_a_region_holds_after_it() {
    with_handlers("set_in_a_region_holds_after_it", || {
        for form in Form::ALL {
            mask::set(USR1);
            send::kill(Signal::USR1);
            form.run(|| {
                assert_eq!(mask::set(USR2), USR1, "{form:?}");
                assert_eq!(mask::current(), USR2, "{form:?}");
                assert_eq!(runs(|| send::kill(Signal::USR2)), 0, "{form:?}");
                assert_eq!(log::count(), 0, "{form:?}");
            });
            assert_eq!(log::take().iter().map(|row| row.signal).collect::<Vec<_>>(), [libc::SIGUSR1], "{form:?}");
            assert_eq!(kernel_mask(), USR2, "{form:?}");
            assert_eq!(runs(|| _ = mask::set(SigSet::EMPTY)), 1);
            log::take();
        }
    });
}

#[test]
fn current_shows_the_logical_mask_while_a_region_holds_signals_back() {
    with_handlers("current_shows_the_logical_mask_while_a_region_holds_signals_back", || {
        mask::block(USR2);
        let before = kernel_mask();
        for form in Form::ALL {
            form.run(|| {
                send::kill(Signal::USR1);
                assert!(kernel_mask().contains(Signal::USR1), "{form:?}: the kernel's");
                assert_eq!(mask::current(), before, "{form:?}");
                assert_eq!(mask::block(SigSet::EMPTY), before, "{form:?}");
                assert_eq!(mask::unblock(SigSet::EMPTY), before, "{form:?}");
                assert_eq!(mask::set(before), before, "{form:?}");
            });
            assert_eq!(kernel_mask(), before, "{form:?}");
            assert_eq!(log::take().len(), 1, "{form:?}");
        }
    });
}

#[test]
fn a_signal_held_back_and_then_blocked_waits_until_it_is_unblocked() {
    with_handlers("a_signal_held_back_and_then_blocked_waits_until_it_is_unblocked", || {
        for signal in KINDS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::sigqueue(signal, 5);
                    mask::block(signal.into());
                });
                assert_eq!(log::count(), 0, "{signal} {form:?}");
                assert!(mask::pending().contains(signal), "{signal} {form:?}");
                assert_eq!(kernel_mask(), before.with(signal), "{signal} {form:?}");
                form.run(|| ());
                assert_eq!(log::count(), 0, "{signal} {form:?}: after a second region");
                mask::unblock(signal.into());
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{signal} {form:?}");
                assert_eq!((rows[0].code(), rows[0].value()), (libc::SI_QUEUE, 5), "{signal} {form:?}");
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn a_signal_held_back_then_blocked_is_let_in_by_a_foreign_unblock() {
    with_handlers("a_signal_held_back_then_blocked_is_let_in_by_a_foreign_unblock", || {
        for signal in KINDS {
            Form::Closure.run(|| {
                send::sigqueue(signal, 5);
                mask::block(signal.into());
            });
            assert_eq!(log::count(), 0, "{signal}");
            raw_mask(libc::SIG_UNBLOCK, signal.into());
            let rows = log::take();
            assert_eq!(rows.len(), 1, "{signal}");
            assert_eq!((rows[0].code(), rows[0].value()), (libc::SI_QUEUE, 5), "{signal}");
        }
    });
}

#[test]
fn blocked_and_unblocked_again_in_one_region_is_let_in_at_its_end() {
    with_handlers("blocked_and_unblocked_again_in_one_region_is_let_in_at_its_end", || {
        for signal in KINDS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::kill(signal);
                    mask::block(signal.into());
                    mask::unblock(signal.into());
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                });
                assert_eq!(log::take().len(), 1, "{signal} {form:?}");
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn what_cannot_be_blocked_is_passed_over_in_silence() {
    with_handlers("what_cannot_be_blocked_is_passed_over_in_silence", || {
        let never = SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP);
        let reserved: SigSet = (32..libc::SIGRTMIN()).map(|number| Signal::new(number).unwrap()).collect();
        let check = |place: &str| {
            let start = mask::current();
            mask::block(never | reserved | USR1);
            assert_eq!(mask::current(), start | USR1, "{place}");
            mask::set(SigSet::FULL);
            assert_eq!(mask::current(), SIGNALS - never - reserved, "{place}");
            mask::set(start);
            assert_eq!(mask::current(), start, "{place}");
        };
        check("outside");
        for form in Form::ALL {
            form.run(|| check(&format!("{form:?}")));
            assert_eq!(kernel_mask(), SigSet::EMPTY, "{form:?}");
        }
    });
}

#[test]
fn pending_sees_what_a_region_holds_back() {
    with_handlers("pending_sees_what_a_region_holds_back", || {
        for signal in KINDS {
            for form in Form::ALL {
                assert_eq!(mask::pending(), SigSet::EMPTY);
                form.run(|| {
                    assert_eq!(mask::pending(), SigSet::EMPTY, "{signal} {form:?}");
                    send::kill(signal);
                    assert_eq!(mask::pending(), signal.into(), "{signal} {form:?}");
                });
                assert_eq!(mask::pending(), SigSet::EMPTY, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn a_real_fault_whose_signal_is_kept_is_handled_at_once() {
    alone("a_real_fault_whose_signal_is_kept_is_handled_at_once", || {
        let _registration = fault::manage_page_faults();
        for form in Form::ALL {
            let page = fault::Page::without_access();
            form.run(|| {
                send::tgkill(Signal::SEGV);
                assert_eq!(log::count(), 0, "{form:?}");
                page.touch();
                assert_eq!(log::count(), 1, "{form:?}");
            });
            let codes: Vec<_> = log::take().iter().map(log::Row::code).collect();
            assert!(codes[0] > 0 && codes[1..] == [libc::SI_TKILL], "{form:?}: {codes:?}");
        }
    });
}

fn block_hup(delivery: &Delivery<'_>) {
    mask::block(SigSet::EMPTY.with(Signal::HUP));
    mask::unblock(USR2);
    log::record(delivery);
}

#[test]
fn mask_changes_of_a_handler_end_with_it() {
    alone("mask_changes_of_a_handler_end_with_it", || {
        log_runs(Signal::USR2);
        mask::block(USR2);
        for signal in KINDS {
            manage(Handler::new(block_hup), signal);
            let before = kernel_mask();
            let check = |place: &str| {
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{signal} {place}");
                assert!(rows[0].mask.contains(Signal::HUP) && !rows[0].mask.contains(Signal::USR2), "{signal} {place}");
                assert_eq!((kernel_mask(), mask::current()), (before, before), "{signal} {place}");
            };
            send::tgkill(signal);
            check("direct");
            for form in Form::ALL {
                form.run(|| send::tgkill(signal));
                check(&format!("{form:?}"));
            }
        }
    });
}

#[test]
fn a_foreign_sigtimedwait_in_a_region_takes_a_signal_and_nothing_stays_blocked() {
    with_handlers("a_foreign_sigtimedwait_in_a_region_takes_a_signal_and_nothing_stays_blocked", || {
        let before = kernel_mask();
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                // SAFETY: the pointers are to live values and null.
                let taken = unsafe { libc::sigtimedwait(&libc_set(USR1), std::ptr::null_mut(), &raw const now) };
                assert_eq!(taken, libc::SIGUSR1, "{form:?}");
            });
            assert_eq!(log::count(), 0, "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
        assert_eq!(runs(|| send::kill(Signal::USR1)), 1);
    });
}
