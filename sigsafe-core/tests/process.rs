//! The signals that a region cannot simply give back to the kernel: sent faults and real ones, SIGABRT, job control, and any signal when
//! the kernel's queue is full.

mod support;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, in_region, mask, overflows};
use support::send::Timer;
use support::{
    Form, RT, alone, alone_until_death, exhaust_pending, expect_success, fault, fork_child, kernel_mask, log, log_runs, manage, raw_mask,
    send, spin_until,
};

const SENT_FAULTS: [Signal; 6] = [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL, Signal::TRAP, Signal::SYS];

#[test]
fn a_sent_fault_is_deferred_and_not_lost() {
    alone("a_sent_fault_is_deferred_and_not_lost", || {
        for signal in SENT_FAULTS {
            log_runs(signal);
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::tgkill(signal);
                    send::tgkill(signal);
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                    assert!(!mask::current().contains(signal));
                });
                let rows = log::take();
                assert!(matches!(rows.len(), 1 | 2), "{signal} {form:?}");
                assert!(rows.iter().all(|row| row.context && row.code() == libc::SI_TKILL && !row.in_region));
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn more_sent_faults_than_there_are_slots_are_all_handled() {
    alone("more_sent_faults_than_there_are_slots_are_all_handled", || {
        SENT_FAULTS.into_iter().for_each(|signal| _ = log_runs(signal));
        for form in Form::ALL {
            let (before, without_a_slot) = (kernel_mask(), overflows());
            form.run(|| {
                SENT_FAULTS.into_iter().for_each(send::tgkill);
                assert_eq!(log::count(), 0, "{form:?}");
            });
            assert_eq!(overflows() - without_a_slot, 3, "{form:?}");
            let handled: SigSet = log::take().iter().map(|row| Signal::new(row.signal).unwrap()).collect();
            assert_eq!(handled, SENT_FAULTS.into_iter().collect(), "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

#[test]
fn a_real_fault_runs_at_once_and_the_region_still_defers() {
    alone("a_real_fault_runs_at_once_and_the_region_still_defers", || {
        let _registration = fault::manage_page_faults();
        log_runs(Signal::USR1);
        for form in Form::ALL {
            let page = fault::Page::without_access();
            let before = kernel_mask();
            form.run(|| {
                page.touch();
                assert_eq!(log::signals(), [libc::SIGSEGV], "{form:?}");
                send::tgkill(Signal::USR1);
                let page = fault::Page::without_access();
                page.touch();
                assert_eq!(log::signals(), [libc::SIGSEGV; 2], "{form:?}");
            });
            assert_eq!(log::take().last().map(|row| (row.signal, row.deferred)), Some((libc::SIGUSR1, true)), "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

fn open_in_regions(_: &Delivery<'_>) {
    critical(|_| {
        send::tgkill(Signal::USR1);
        log::note(1);
    });
    let guard = MaskGuard::<FullSyscall>::new();
    fault::open_page();
    drop(guard);
    log::note(2);
}

#[test]
fn a_fault_handler_that_uses_regions_does_not_end_those_below_it() {
    alone("a_fault_handler_that_uses_regions_does_not_end_those_below_it", || {
        let _registration = fault::manage_faults_with(open_in_regions);
        log_runs(Signal::USR1);
        let before = kernel_mask();
        let page = fault::Page::without_access();
        page.touch();
        assert_eq!(log::take().iter().map(|row| row.signal).collect::<Vec<_>>(), [-1, libc::SIGUSR1, -2]);
        for form in Form::ALL {
            let page = fault::Page::without_access();
            form.run(|| {
                page.touch();
                assert_eq!(log::signals(), [-1, -2], "{form:?}");
                assert!(in_region());
            });
            assert_eq!(log::take().iter().map(|row| row.signal).collect::<Vec<_>>(), [-1, -2, libc::SIGUSR1], "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

fn say_last_words(_: &Delivery<'_>) {
    let words = b"the handler of SIGABRT ran\n";
    // SAFETY: the slice is live.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
}

#[test]
fn abort_in_a_deferring_region_runs_the_handler_and_dies_of_sigabrt() {
    let name = "abort_in_a_deferring_region_runs_the_handler_and_dies_of_sigabrt";
    alone_until_death(name, Signal::ABRT, "the handler of SIGABRT ran", || {
        manage(Handler::new(say_last_words), Signal::ABRT);
        critical(|_| std::process::abort());
    });
}

#[test]
fn abort_in_a_full_mask_region_runs_the_handler_and_dies_of_sigabrt() {
    let name = "abort_in_a_full_mask_region_runs_the_handler_and_dies_of_sigabrt";
    alone_until_death(name, Signal::ABRT, "the handler of SIGABRT ran", || {
        manage(Handler::new(say_last_words), Signal::ABRT);
        critical_with::<FullSyscall, _>(|_| std::process::abort());
    });
}

#[test]
fn sigabrt_of_another_process_waits_for_the_region_s_end() {
    alone("sigabrt_of_another_process_waits_for_the_region_s_end", || {
        log_runs(Signal::ABRT);
        let us = send::process();
        for form in Form::ALL {
            let child = form.run(|| {
                // SAFETY: the call takes no pointer.
                let child = fork_child(|| assert_eq!(unsafe { libc::kill(us, libc::SIGABRT) }, 0));
                spin_until(|| mask::pending().contains(Signal::ABRT) || log::count() > 0);
                assert_eq!(log::count(), 0, "{form:?}");
                child
            });
            let rows = log::take();
            assert_eq!(rows.len(), 1, "{form:?}");
            assert_eq!((rows[0].code(), rows[0].sender()), (libc::SI_USER, child), "{form:?}");
            expect_success(child);
        }
    });
}

#[test]
fn sigcont_is_dispatched_by_the_region_s_end_without_a_context() {
    alone("sigcont_is_dispatched_by_the_region_s_end_without_a_context", || {
        log_runs(Signal::CONT);
        send::tgkill(Signal::CONT);
        assert!(log::take()[0].context, "direct");
        for form in Form::CAPTURING {
            let before = kernel_mask();
            form.run(|| {
                send::tgkill(Signal::CONT);
                assert_eq!(log::count(), 0, "{form:?}");
            });
            let rows = log::take();
            assert_eq!(rows.len(), 1, "{form:?}");
            assert!(!rows[0].context && rows[0].deferred && !rows[0].in_region, "{form:?}");
            assert_eq!((rows[0].code(), rows[0].sender()), (libc::SI_TKILL, send::process()));
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

#[test]
fn stop_signals_are_deferred() {
    alone("stop_signals_are_deferred", || {
        for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
            log_runs(signal);
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::kill(signal);
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                });
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{signal} {form:?}");
                assert!(rows[0].deferred && !rows[0].in_region, "{signal} {form:?}");
                assert_eq!(kernel_mask(), before, "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn of_a_stop_and_a_continue_the_later_one_is_handled() {
    alone("of_a_stop_and_a_continue_the_later_one_is_handled", || {
        for [first, last] in [[Signal::TSTP, Signal::CONT], [Signal::CONT, Signal::TTIN], [Signal::CONT, Signal::CONT]] {
            [first, last].into_iter().for_each(|signal| _ = log_runs(signal));
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::kill(first);
                    send::kill(last);
                    assert_eq!(log::count(), 0, "{form:?}");
                });
                // Generating one discards the other while that is pending (POSIX, 2.4.1), so the first may be gone.
                let mut handled: Vec<_> = log::take().iter().map(|row| row.signal).collect();
                assert!(handled.contains(&last.number()) && handled.len() <= 2, "{first} {last} {form:?}: {handled:?}");
                handled.retain(|signal| *signal == first.number());
                assert!(handled.len() <= if first == last { 2 } else { 1 }, "{first} {last} {form:?}");
                assert_eq!(kernel_mask(), before, "{form:?}");
            }
        }
    });
}

/// Queues values 1 to 3 while they are blocked, and then leaves the kernel no room for more.
fn queue_three_and_exhaust(signal: Signal) {
    raw_mask(libc::SIG_BLOCK, signal.into());
    (1..=3).for_each(|value| send::sigqueue(signal, value));
    exhaust_pending();
}

#[test]
fn real_time_signals_keep_their_order_when_the_kernel_s_queue_is_full() {
    alone("real_time_signals_keep_their_order_when_the_kernel_s_queue_is_full", || {
        for form in Form::CAPTURING {
            // The limit cannot be raised again, so each form has a process of its own.
            expect_success(fork_child(|| {
                log_runs(RT);
                queue_three_and_exhaust(RT);
                form.run(|| {
                    raw_mask(libc::SIG_UNBLOCK, RT.into());
                    assert_eq!(log::count(), 0, "{form:?}");
                });
                assert_eq!(log::values(), [1, 2, 3], "{form:?}");
                assert_eq!(kernel_mask(), SigSet::EMPTY, "{form:?}");
            }));
        }
    });
}

#[test]
fn real_time_signals_kept_by_a_full_queue_and_then_blocked_keep_their_order() {
    alone("real_time_signals_kept_by_a_full_queue_and_then_blocked_keep_their_order", || {
        log_runs(RT);
        queue_three_and_exhaust(RT);
        critical(|_| {
            raw_mask(libc::SIG_UNBLOCK, RT.into());
            mask::block(RT.into());
        });
        critical(|_| ());
        assert_eq!(log::count(), 0);
        assert!(mask::pending().contains(RT));
        mask::unblock(RT.into());
        assert_eq!(log::values(), [1, 2, 3]);
        assert_eq!(kernel_mask(), SigSet::EMPTY);
        assert_eq!(mask::pending(), SigSet::EMPTY);
    });
}

#[test]
fn a_legacy_signal_is_handled_when_the_kernel_s_queue_is_full() {
    alone("a_legacy_signal_is_handled_when_the_kernel_s_queue_is_full", || {
        log_runs(Signal::USR1);
        exhaust_pending();
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                assert_eq!(log::count(), 0, "{form:?}");
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
        }
    });
}

#[test]
fn the_siginfo_of_a_captured_legacy_signal_survives_a_full_queue() {
    alone("the_siginfo_of_a_captured_legacy_signal_survives_a_full_queue", || {
        log_runs(Signal::ALRM);
        // A timer has its queue entry since it was made, so that its siginfo arrives whole.
        let timer = Timer::new(Signal::ALRM, 42);
        exhaust_pending();
        for form in Form::ALL {
            form.run(|| {
                timer.fire();
                send::wait_for_arrival(Signal::ALRM);
            });
            let rows = log::take();
            assert_eq!(rows.len(), 1, "{form:?}");
            assert_eq!((rows[0].code(), rows[0].value()), (libc::SI_TIMER, 42), "{form:?}");
        }
    });
}

/// The copy of a siginfo goes with the delivery that it was kept for.
#[test]
fn a_captured_siginfo_is_not_given_to_a_later_signal() {
    alone("a_captured_siginfo_is_not_given_to_a_later_signal", || {
        log_runs(Signal::USR1);
        critical(|_| {
            send::sigqueue(Signal::USR1, 77);
            mask::block(Signal::USR1.into());
        });
        mask::unblock(Signal::USR1.into());
        assert_eq!(log::values(), [77]);
        // As the kernel delivers one whose siginfo it had no room for.
        // SAFETY: zero is a value of every field.
        let mut empty: libc::siginfo_t = unsafe { std::mem::zeroed() };
        empty.si_signo = libc::SIGUSR1;
        // SAFETY: the kernel reads the siginfo.
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), libc::SIGUSR1, &raw const empty) };
        let row = log::take().pop().expect("it was handled");
        assert_eq!((row.code(), row.value()), (0, 0));
    });
}

#[test]
fn the_siginfo_of_a_legacy_signal_captured_twice_survives_a_full_queue() {
    alone("the_siginfo_of_a_legacy_signal_captured_twice_survives_a_full_queue", || {
        log_runs(Signal::ALRM);
        let timer = Timer::new(Signal::ALRM, 42);
        exhaust_pending();
        critical(|_| {
            timer.fire();
            send::wait_for_arrival(Signal::ALRM);
            mask::block(Signal::ALRM.into());
        });
        assert_eq!(log::count(), 0);
        critical(|_| {
            // Behind the library's back, so that it is captured here again.
            raw_mask(libc::SIG_UNBLOCK, Signal::ALRM.into());
            assert_eq!(log::count(), 0);
        });
        let rows = log::take();
        assert_eq!((rows.len(), rows[0].code(), rows[0].value()), (1, libc::SI_TIMER, 42));
    });
}
