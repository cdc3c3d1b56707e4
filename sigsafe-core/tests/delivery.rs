//! What a handler finds and leaves behind: context, stack, errno, mask, order, and the library's account of it.
//!
//! Every behaviour is shown for a direct delivery and for one held back by a region, in each form of region where that matters.

mod support;

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, deferrals, handler_depth, in_handler, mask};
use support::{Form, RT, SENT_FAULT, alone, errno, kernel_mask, landing, libc_set, log, log_runs, manage, send, set_errno, spin_until};

/// One legacy and one real-time signal: they are captured in different ways.
const KINDS: [Signal; 2] = [Signal::USR1, RT];

#[test]
fn an_edit_of_the_context_takes_effect_after_a_direct_delivery() {
    alone("an_edit_of_the_context_takes_effect_after_a_direct_delivery", || {
        landing::prepare();
        for signal in KINDS {
            let before = landing::landings();
            manage(Handler::new(landing::divert), signal);
            send::tgkill(signal);
            assert_eq!(landing::landings(), before + 1, "{signal}");
        }
    });
}

#[test]
fn an_edit_of_the_context_takes_effect_after_a_deferred_delivery() {
    alone("an_edit_of_the_context_takes_effect_after_a_deferred_delivery", || {
        landing::prepare();
        for signal in KINDS {
            manage(Handler::new(landing::divert), signal);
            for form in Form::ALL {
                let before = landing::landings();
                form.run(|| send::tgkill(signal));
                assert_eq!(landing::landings(), before + 1, "{signal} {form:?}");
                assert!(log::take()[0].deferred, "{signal} {form:?}");
            }
        }
    });
}

static STACK_ADDRESS: AtomicUsize = AtomicUsize::new(0);

fn note_stack(_: &Delivery<'_>) {
    let local = 0u8;
    STACK_ADDRESS.store((&raw const local).addr(), Ordering::Relaxed);
}

#[test]
fn a_handler_runs_on_the_alternate_stack_if_it_asked_for_it() {
    alone("a_handler_runs_on_the_alternate_stack_if_it_asked_for_it", || {
        let mut stack = vec![0u8; 128 * 1024];
        let range = stack.as_ptr_range();
        let (start, end) = (range.start.addr(), range.end.addr());
        let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        // SAFETY: the memory outlives the process's last delivery.
        assert_eq!(unsafe { libc::sigaltstack(&raw const alternate, std::ptr::null_mut()) }, 0);
        std::mem::forget(stack);
        let ran_there = || (start..end).contains(&STACK_ADDRESS.swap(0, Ordering::Relaxed));
        for signal in KINDS {
            for wanted in [true, false] {
                manage(Handler::new(note_stack).on_stack(wanted), signal);
                send::tgkill(signal);
                assert_eq!(ran_there(), wanted, "{signal} direct");
                for form in Form::ALL {
                    form.run(|| send::tgkill(signal));
                    assert_eq!(ran_there(), wanted, "{signal} {form:?}");
                }
            }
        }
    });
}

fn spoil_errno(delivery: &Delivery<'_>) {
    log::record(delivery);
    set_errno(libc::EXDEV);
}

#[test]
fn errno_is_kept_over_a_delivery() {
    alone("errno_is_kept_over_a_delivery", || {
        for signal in [Signal::USR1, RT, Signal::CONT, SENT_FAULT] {
            manage(Handler::new(spoil_errno), signal);
            set_errno(libc::ENOMSG);
            send::tgkill(signal);
            assert_eq!(errno(), libc::ENOMSG, "{signal} direct");
            for form in Form::ALL {
                form.run(|| {
                    send::tgkill(signal);
                    assert_eq!(errno(), libc::ENOMSG, "{signal} {form:?}: in the region");
                });
                assert_eq!(errno(), libc::ENOMSG, "{signal} {form:?}");
            }
            assert_eq!(log::take().len(), 1 + Form::ALL.len());
        }
    });
}

#[test]
fn errno_is_kept_by_a_region_without_signals() {
    alone("errno_is_kept_by_a_region_without_signals", || {
        for form in Form::ALL {
            set_errno(libc::ENOMSG);
            form.run(|| assert_eq!(errno(), libc::ENOMSG, "{form:?}"));
            assert_eq!(errno(), libc::ENOMSG, "{form:?}");
        }
    });
}

#[test]
fn the_mask_in_a_handler_is_sa_mask_its_own_signal_and_what_was_blocked() {
    alone("the_mask_in_a_handler_is_sa_mask_its_own_signal_and_what_was_blocked", || {
        let sa_mask = SigSet::EMPTY.with(Signal::HUP).with(Signal::WINCH);
        let blocked = SigSet::EMPTY.with(Signal::QUIT);
        mask::block(blocked);
        let before = kernel_mask();
        for signal in [Signal::USR1, RT, Signal::CONT, SENT_FAULT] {
            manage(Handler::new(log::record).mask(sa_mask), signal);
            let expected = before.union(sa_mask).with(signal);
            send::tgkill(signal);
            assert_eq!(log::take()[0].mask, expected, "{signal} direct");
            for form in Form::ALL {
                form.run(|| send::tgkill(signal));
                assert_eq!(log::take()[0].mask, expected, "{signal} {form:?}");
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn many_signals_of_one_region_are_each_handled_once_with_their_own_siginfo() {
    alone("many_signals_of_one_region_are_each_handled_once_with_their_own_siginfo", || {
        let legacy = [Signal::HUP, Signal::USR1, SENT_FAULT, Signal::USR2, Signal::TERM, Signal::CONT, Signal::PROF, Signal::VTALRM];
        let real_time = (4..8).map(|offset| Signal::real_time(offset).unwrap());
        let signals: Vec<Signal> = legacy.into_iter().chain(real_time).collect();
        signals.iter().for_each(|signal| _ = log_runs(*signal));
        for form in Form::ALL {
            form.run(|| {
                for signal in &signals {
                    send::sigqueue(*signal, 1000 + signal.number());
                }
                assert_eq!(log::count(), 0, "{form:?}");
            });
            let mut seen: Vec<_> = log::take().iter().map(|row| (row.signal, row.code(), row.value())).collect();
            seen.sort_unstable();
            let mut sent: Vec<_> = signals.iter().map(|s| (s.number(), libc::SI_QUEUE, 1000 + s.number())).collect();
            sent.sort_unstable();
            assert_eq!(seen, sent, "{form:?}");
        }
    });
}

/// It may carry what `poll` says of a descriptor, in the same bytes.
#[test]
fn a_sigio_with_a_value_is_handled_with_that_value() {
    alone("a_sigio_with_a_value_is_handled_with_that_value", || {
        let _registration = log_runs(Signal::IO);
        for form in Form::ALL {
            form.run(|| {
                send::sigqueue(Signal::IO, 1029);
                assert_eq!(log::count(), 0, "{form:?}");
            });
            let seen: Vec<_> = log::take().iter().map(|row| (row.signal, row.code(), row.value())).collect();
            assert_eq!(seen, [(libc::SIGIO, libc::SI_QUEUE, 1029)], "{form:?}");
        }
    });
}

#[test]
fn a_legacy_signal_sent_twice_in_a_region_is_handled() {
    alone("a_legacy_signal_sent_twice_in_a_region_is_handled", || {
        let _registration = log_runs(Signal::USR1);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                send::tgkill(Signal::USR1);
                assert_eq!(log::count(), 0);
            });
            // How many deliveries there are POSIX leaves open.
            assert!(matches!(log::take().len(), 1 | 2), "{form:?}");
        }
    });
}

#[test]
fn deferred_deliveries_say_so_and_are_counted() {
    alone("deferred_deliveries_say_so_and_are_counted", || {
        let mut expected = 0;
        for signal in [Signal::USR1, RT, Signal::CONT, SENT_FAULT] {
            log_runs(signal);
            send::tgkill(signal);
            assert!(!log::take()[0].deferred, "{signal} direct");
            assert_eq!(deferrals(), expected, "{signal} direct");
            for form in Form::ALL {
                form.run(|| send::tgkill(signal));
                expected += 1;
                assert!(log::take()[0].deferred, "{signal} {form:?}");
                assert_eq!(deferrals(), expected, "{signal} {form:?}");
            }
        }
    });
}

static RAISED_INSIDE: AtomicI32 = AtomicI32::new(0);

fn raise_usr2(delivery: &Delivery<'_>) {
    log::record(delivery);
    send::tgkill(Signal::USR2);
    RAISED_INSIDE.store(handler_depth() as i32, Ordering::Relaxed);
}

#[test]
fn queries_count_nested_handlers() {
    alone("queries_count_nested_handlers", || {
        manage(Handler::new(raise_usr2), Signal::USR1);
        log_runs(Signal::USR2);
        let check = || {
            let depths: Vec<_> = log::take().iter().map(|row| (row.signal, row.depth)).collect();
            assert_eq!(depths, [(libc::SIGUSR1, 1), (libc::SIGUSR2, 2)]);
            assert_eq!(RAISED_INSIDE.load(Ordering::Relaxed), 1);
            assert!(!in_handler() && handler_depth() == 0);
        };
        assert!(!in_handler() && handler_depth() == 0);
        send::tgkill(Signal::USR1);
        check();
        for form in Form::ALL {
            form.run(|| send::tgkill(Signal::USR1));
            check();
        }
    });
}

fn use_a_region(delivery: &Delivery<'_>) {
    critical(|_| {
        send::tgkill(Signal::USR2);
        log::record(delivery);
    });
    log::note(1);
}

#[test]
fn a_region_in_a_deferred_handler_ends_before_the_handler_does() {
    alone("a_region_in_a_deferred_handler_ends_before_the_handler_does", || {
        manage(Handler::new(use_a_region), Signal::USR1);
        log_runs(Signal::USR2);
        for form in Form::ALL {
            let before = kernel_mask();
            form.run(|| send::tgkill(Signal::USR1));
            let order: Vec<_> = log::take().iter().map(|row| row.signal).collect();
            assert_eq!(order, [libc::SIGUSR1, libc::SIGUSR2, -1], "{form:?}");
            assert_eq!(kernel_mask(), before);
        }
    });
}

/// `sigsuspend` in a region, with `signal` waiting: it must let the handler run, or never return.
fn suspend_admits(signal: Signal, form: Form) {
    form.run(|| {
        send::tgkill(signal);
        assert_eq!(log::count(), 0, "{form:?}");
        let before = mask::current();
        // SAFETY: the pointer is to a live set.
        assert_eq!(unsafe { libc::sigsuspend(&libc_set(SigSet::EMPTY)) }, -1);
        assert_eq!(errno(), libc::EINTR);
        assert_eq!(log::signals(), [signal.number()], "{form:?}");
        assert_eq!(mask::current(), before, "{form:?}");
    });
    assert_eq!(log::take().len(), 1, "{form:?}");
}

#[test]
fn a_temporary_mask_in_a_region_admits_a_signal_that_the_thread_had_blocked() {
    alone("a_temporary_mask_in_a_region_admits_a_signal_that_the_thread_had_blocked", || {
        for signal in KINDS {
            log_runs(signal);
            let old = mask::block(signal.into());
            let before = kernel_mask();
            for form in Form::ALL {
                suspend_admits(signal, form);
                assert_eq!(kernel_mask(), before, "{form:?}");
            }
            mask::set(old);
        }
    });
}

#[test]
fn a_temporary_mask_in_a_region_admits_a_signal_that_the_region_holds_back() {
    alone("a_temporary_mask_in_a_region_admits_a_signal_that_the_region_holds_back", || {
        log_runs(Signal::USR1);
        let before = kernel_mask();
        for form in Form::ALL {
            suspend_admits(Signal::USR1, form);
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

#[test]
fn a_signal_of_another_thread_is_deferred_too() {
    alone("a_signal_of_another_thread_is_deferred_too", || {
        let _registration = log_runs(Signal::USR1);
        let target = send::thread();
        for form in Form::ALL {
            form.run(|| {
                std::thread::scope(|scope| {
                    scope.spawn(|| send::tgkill_to(target, Signal::USR1));
                });
                spin_until(|| mask::pending().contains(Signal::USR1));
                assert_eq!(log::count(), 0, "{form:?}");
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
        }
    });
}
