//! A handler sees the kernel's own siginfo, whether its signal came through at once or was held back by a region.
//!
//! Each test sends the same signal in the same way to a plain `sigaction` handler, to a managed one outside a region, and to a managed one
//! in each form of region, and compares all 48 bytes that the kernel fills.

mod support;

use sigsafe_core::{Signal, critical};
use support::send::{self, Timer, wait_for_arrival};
use support::{Disposition, Form, RT, alone, expect_success, fork_child, log, log_runs, reap, spin_until};

/// `si_code` of an access that a mapping does not permit (asm-generic/siginfo.h).
const SEGV_ACCERR: i32 = 2;

/// The siginfo of one run of a plain handler.
fn seen_by_plain(signal: Signal, send: &impl Fn()) -> log::Row {
    Disposition::plain().install(signal);
    send();
    spin_until(|| log::count() > 0);
    let rows = log::take();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]
}

/// Compares a plain handler's siginfo with a managed one's, direct and deferred in every form. Returns the plain one's.
fn same_as_plain(signal: Signal, send: impl Fn()) -> log::Row {
    let plain = seen_by_plain(signal, &send);
    let registration = log_runs(signal);
    send();
    spin_until(|| log::count() > 0);
    let direct = log::take();
    assert_eq!(direct.len(), 1);
    assert_eq!((direct[0].signal, direct[0].info), (signal.number(), plain.info), "direct");
    assert!(!direct[0].deferred);
    for form in Form::ALL {
        form.run(|| {
            send();
            wait_for_arrival(signal);
            assert_eq!(log::count(), 0, "{form:?}: a handler ran in the region");
        });
        let rows = log::take();
        assert_eq!(rows.len(), 1, "{form:?}");
        assert_eq!((rows[0].signal, rows[0].info), (signal.number(), plain.info), "{form:?}");
        assert!(rows[0].deferred, "{form:?}");
    }
    registration.remove().unwrap();
    plain
}

/// The sender is this process, by this user.
fn assert_sent_by_us(row: log::Row, code: i32) {
    assert_eq!(row.code(), code);
    assert_eq!(row.sender(), send::process());
    // SAFETY: the call takes nothing.
    assert_eq!(row.uid(), unsafe { libc::getuid() });
}

#[test]
fn kill_of_a_legacy_signal() {
    alone("kill_of_a_legacy_signal", || {
        let row = same_as_plain(Signal::USR1, || send::kill(Signal::USR1));
        assert_sent_by_us(row, libc::SI_USER);
    });
}

#[test]
fn kill_of_a_real_time_signal() {
    alone("kill_of_a_real_time_signal", || {
        let row = same_as_plain(RT, || send::kill(RT));
        assert_sent_by_us(row, libc::SI_USER);
    });
}

#[test]
fn tgkill_of_a_legacy_signal() {
    alone("tgkill_of_a_legacy_signal", || {
        let row = same_as_plain(Signal::PROF, || send::tgkill(Signal::PROF));
        assert_sent_by_us(row, libc::SI_TKILL);
    });
}

#[test]
fn tgkill_of_a_real_time_signal() {
    alone("tgkill_of_a_real_time_signal", || {
        let row = same_as_plain(RT, || send::tgkill(RT));
        assert_sent_by_us(row, libc::SI_TKILL);
    });
}

#[test]
fn sigqueue_of_a_legacy_signal() {
    alone("sigqueue_of_a_legacy_signal", || {
        let row = same_as_plain(Signal::USR2, || send::sigqueue(Signal::USR2, -7));
        assert_sent_by_us(row, libc::SI_QUEUE);
        assert_eq!(row.value(), -7);
    });
}

#[test]
fn sigqueue_of_a_real_time_signal() {
    alone("sigqueue_of_a_real_time_signal", || {
        let row = same_as_plain(RT, || send::sigqueue(RT, 0x7fff_1234));
        assert_sent_by_us(row, libc::SI_QUEUE);
        assert_eq!(row.value(), 0x7fff_1234);
    });
}

#[test]
fn sigqueue_to_the_thread_of_a_legacy_signal() {
    alone("sigqueue_to_the_thread_of_a_legacy_signal", || {
        let row = same_as_plain(Signal::URG, || send::sigqueue_to(send::thread(), Signal::URG, 5));
        assert_sent_by_us(row, libc::SI_QUEUE);
        assert_eq!(row.value(), 5);
    });
}

#[test]
fn sigqueue_to_the_thread_of_a_real_time_signal() {
    alone("sigqueue_to_the_thread_of_a_real_time_signal", || {
        let row = same_as_plain(RT, || send::sigqueue_to(send::thread(), RT, 6));
        assert_sent_by_us(row, libc::SI_QUEUE);
        assert_eq!(row.value(), 6);
    });
}

#[test]
fn a_posix_timer_with_a_legacy_signal() {
    alone("a_posix_timer_with_a_legacy_signal", || {
        let timer = Timer::new(Signal::ALRM, 42);
        let row = same_as_plain(Signal::ALRM, || timer.fire());
        assert_eq!((row.code(), row.value(), row.overrun()), (libc::SI_TIMER, 42, 0));
    });
}

#[test]
fn a_posix_timer_with_a_real_time_signal() {
    alone("a_posix_timer_with_a_real_time_signal", || {
        // The second timer has another id than zero, which tells it from an empty field.
        let _first = Timer::new(RT, 1);
        let timer = Timer::new(RT, 43);
        let row = same_as_plain(RT, || timer.fire());
        assert_eq!((row.code(), row.value(), row.overrun()), (libc::SI_TIMER, 43, 0));
        assert_ne!(row.info[2] as i32, 0, "the timer's id");
    });
}

#[test]
fn the_overrun_count_of_a_timer() {
    alone("the_overrun_count_of_a_timer", || {
        for signal in [Signal::ALRM, RT] {
            let timer = Timer::new(signal, 44);
            let row = same_as_plain(signal, || timer.fire_late(5));
            assert_eq!((row.code(), row.value(), row.overrun()), (libc::SI_TIMER, 44, 5));
        }
    });
}

#[test]
fn a_signal_from_another_process_names_its_sender() {
    alone("a_signal_from_another_process_names_its_sender", || {
        for signal in [Signal::TERM, RT] {
            let _registration = log_runs(signal);
            let us = send::process();
            for form in Form::ALL {
                let child = form.run(|| {
                    // SAFETY: the call takes no pointer.
                    let child = fork_child(|| assert_eq!(unsafe { libc::kill(us, signal.number()) }, 0));
                    wait_for_arrival(signal);
                    assert_eq!(log::count(), 0, "{form:?}");
                    child
                });
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{form:?}");
                assert_eq!((rows[0].code(), rows[0].sender()), (libc::SI_USER, child), "{form:?}");
                expect_success(child);
            }
        }
    });
}

#[test]
fn sigchld_says_which_child_ended_and_how() {
    alone("sigchld_says_which_child_ended_and_how", || {
        let _registration = log_runs(Signal::CHLD);
        let check = |child: i32, deferred: bool| {
            let rows = log::take();
            assert_eq!(rows.len(), 1);
            // si_status lies where a queued signal's value does.
            assert_eq!((rows[0].code(), rows[0].sender(), rows[0].value()), (libc::CLD_EXITED, child, 7));
            assert_eq!(rows[0].deferred, deferred);
            assert_eq!(libc::WEXITSTATUS(reap(child)), 7);
        };
        // SAFETY: ends the child.
        let exit_with_7 = || fork_child(|| unsafe { libc::_exit(7) });
        let child = exit_with_7();
        spin_until(|| log::count() > 0);
        check(child, false);
        for form in Form::ALL {
            let child = form.run(|| {
                let child = exit_with_7();
                wait_for_arrival(Signal::CHLD);
                child
            });
            check(child, true);
        }
    });
}

#[test]
fn the_address_of_a_fault_is_the_kernel_s_in_a_region_too() {
    alone("the_address_of_a_fault_is_the_kernel_s_in_a_region_too", || {
        let _registration = support::fault::manage_page_faults();
        for in_region in [false, true] {
            let page = support::fault::Page::without_access();
            if in_region {
                critical(|_| page.touch());
            } else {
                page.touch();
            }
            let rows = log::take();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].code(), SEGV_ACCERR);
            assert_eq!(rows[0].info[2] as usize, page.address());
        }
    });
}
