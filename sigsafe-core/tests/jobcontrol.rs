//! Stops and continues around regions. To generate one discards the other while it is pending (POSIX, 2.4.1), which a signal that is
//! given back to the kernel, or kept from it, must neither cause nor prevent.

mod support;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, mask};
use support::{Form, RT, SENT_FAULT, alone, errno, expect_success, fork_child, kernel_mask, log, log_runs, manage, raw_mask, send};

const STOPS: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
const CONT: SigSet = SigSet::EMPTY.with(Signal::CONT);

fn with_handlers(test_name: &str, body: impl FnOnce()) {
    alone(test_name, || {
        STOPS.into_iter().chain([Signal::CONT, Signal::USR1]).for_each(|signal| _ = log_runs(signal));
        body();
    });
}

/// The signals that were handled, in order.
fn handled() -> Vec<i32> {
    log::take().iter().map(|row| row.signal).collect()
}

#[test]
fn a_stop_that_a_region_has_captured_is_discarded_by_a_continue() {
    with_handlers("a_stop_that_a_region_has_captured_is_discarded_by_a_continue", || {
        for stop in STOPS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::kill(stop);
                    assert_eq!(mask::pending(), stop.into(), "{stop} {form:?}");
                    send::kill(Signal::CONT);
                    assert_eq!(mask::pending(), CONT, "{stop} {form:?}");
                });
                assert_eq!(handled(), [libc::SIGCONT], "{stop} {form:?}");
                // What was blocked for the signal that never came is not blocked any more.
                assert_eq!(kernel_mask(), before, "{stop} {form:?}");
            }
        }
    });
}

#[test]
fn a_continue_that_a_region_has_captured_is_discarded_by_a_stop() {
    with_handlers("a_continue_that_a_region_has_captured_is_discarded_by_a_stop", || {
        for stop in STOPS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::kill(Signal::CONT);
                    assert_eq!(mask::pending(), CONT, "{stop} {form:?}");
                    send::kill(stop);
                    assert_eq!(mask::pending(), stop.into(), "{stop} {form:?}");
                });
                assert_eq!(handled(), [stop.number()], "{stop} {form:?}");
                assert_eq!(kernel_mask(), before, "{stop} {form:?}");
            }
        }
    });
}

fn send_stop(delivery: &Delivery<'_>) {
    log::record(delivery);
    send::kill(Signal::TSTP);
}

/// The kernel has delivered the continue, and its trampoline is about to capture it, when a stop is sent. To give the continue back
/// to the kernel would discard the stop.
#[test]
fn a_stop_sent_while_a_continue_is_captured_is_handled() {
    with_handlers("a_stop_sent_while_a_continue_is_captured_is_handled", || {
        manage(Handler::new(send_stop).immediate(true), RT);
        let both = CONT.with(RT);
        for form in Form::CAPTURING {
            let before = kernel_mask();
            form.run(|| {
                raw_mask(libc::SIG_BLOCK, both);
                send::tgkill(Signal::CONT);
                send::tgkill(RT);
                // The kernel makes the frame of the lower number first and that of the higher on top of it, which runs first.
                raw_mask(libc::SIG_UNBLOCK, both);
                assert_eq!(log::signals(), [RT.number()], "{form:?}");
            });
            assert!(handled().contains(&libc::SIGTSTP), "{form:?}: the stop is lost");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

#[test]
fn a_process_that_stops_in_a_region_handles_its_continue_at_the_region_s_end() {
    with_handlers("a_process_that_stops_in_a_region_handles_its_continue_at_the_region_s_end", || {
        for form in Form::ALL {
            let child = fork_child(|| {
                form.run(|| {
                    send::tgkill(Signal::USR1);
                    // SAFETY: the call takes no pointer; the parent lets this process go on.
                    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
                    // The continue may come to the thread a moment after it runs again.
                    support::spin_until(|| mask::pending().contains(Signal::CONT));
                    assert_eq!(log::count(), 0, "{form:?}");
                });
                let mut signals = handled();
                signals.sort_unstable();
                assert_eq!(signals, [libc::SIGUSR1, libc::SIGCONT], "{form:?}");
                assert_eq!(kernel_mask(), SigSet::EMPTY);
            });
            let mut status = 0;
            // SAFETY: the pointer is to a live value.
            let stopped = unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
            assert!(stopped == child && libc::WIFSTOPPED(status), "{form:?}: {status:#x}, errno {}", errno());
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::kill(child, libc::SIGCONT) }, 0);
            expect_success(child);
        }
    });
}

/// The exit would unblock what a captured signal has blocked when that is delivered: it never is.
#[test]
fn a_captured_signal_that_is_ignored_before_the_region_ends_leaves_nothing_blocked() {
    alone("a_captured_signal_that_is_ignored_before_the_region_ends_leaves_nothing_blocked", || {
        for signal in [Signal::USR2, RT, Signal::CONT, SENT_FAULT] {
            for form in Form::ALL {
                log_runs(signal);
                let before = kernel_mask();
                form.run(|| {
                    send::tgkill(signal);
                    support::Disposition::IGNORE.install(signal);
                });
                assert_eq!((log::count(), kernel_mask()), (0, before), "{signal} {form:?}");
                critical(|_| ());
                assert_eq!(mask::pending(), SigSet::EMPTY, "{signal} {form:?}");
                support::Disposition::DEFAULT.install(signal);
            }
        }
    });
}
