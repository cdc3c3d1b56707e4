//! What a forked child, a new thread and a dying process take from regions and signals held back.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::{SigSet, handler::Handler};
use sigsafe_core::{Signal, critical, deferrals, fatal, in_region, mask, region_depth, thread_id};
use support::{
    Disposition, Form, RT, SENT_FAULT, alone, alone_until_death, expect_success, fork_child, kernel_mask, log, log_runs, manage, raw_mask,
    send,
};

#[test]
fn a_fork_in_a_region_leaves_the_signal_to_the_parent_alone() {
    alone("a_fork_in_a_region_leaves_the_signal_to_the_parent_alone", || {
        for signal in [Signal::USR1, RT, SENT_FAULT, Signal::CONT] {
            log_runs(signal);
            for form in Form::ALL {
                let before = kernel_mask();
                let (child, is_child) = form.run(|| {
                    send::sigqueue(signal, 5);
                    assert_eq!(log::count(), 0);
                    // SAFETY: this process has one thread that runs; the child goes on here and leaves the region on its own.
                    let child = unsafe { libc::fork() };
                    assert!(child >= 0);
                    (child, child == 0)
                });
                let result = std::panic::catch_unwind(|| {
                    assert_eq!(log::take().len(), usize::from(!is_child), "{signal} {form:?}, child: {is_child}");
                    assert_eq!(kernel_mask(), before, "{signal} {form:?}");
                    send::tgkill(signal);
                    assert_eq!(log::take().len(), 1, "{signal} {form:?}: outside a region afterwards, child: {is_child}");
                    form.run(|| send::tgkill(signal));
                    assert_eq!(log::take().len(), 1, "{signal} {form:?}: in a region afterwards, child: {is_child}");
                });
                if is_child {
                    // SAFETY: ends the child without the parent's exit handlers.
                    unsafe { libc::_exit(i32::from(result.is_err())) };
                }
                assert!(result.is_ok());
                expect_success(child);
            }
        }
    });
}

#[test]
fn a_forked_child_s_own_signals_are_not_taken_for_its_parent_s() {
    alone("a_forked_child_s_own_signals_are_not_taken_for_its_parent_s", || {
        for signal in [SENT_FAULT, Signal::CONT, RT, Signal::USR1] {
            log_runs(signal);
            for form in Form::ALL {
                let child = form.run(|| {
                    send::sigqueue(signal, 5);
                    let child = fork_child(|| {
                        assert_eq!(mask::pending(), SigSet::EMPTY, "{signal} {form:?}: POSIX, fork");
                        send::sigqueue(signal, 6);
                        // The child is in the region still: the signal has to wait, and not to be lost.
                        assert_eq!(log::count(), 0);
                        assert!(mask::pending().contains(signal), "{signal} {form:?}: lost");
                    });
                    expect_success(child);
                    child
                });
                assert!(child > 0);
                assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [5], "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn a_forked_child_handles_its_own_signals_at_the_region_s_end() {
    alone("a_forked_child_handles_its_own_signals_at_the_region_s_end", || {
        for signal in [SENT_FAULT, Signal::CONT, RT, Signal::USR1] {
            log_runs(signal);
            expect_success(fork_child(|| {
                let parent = send::process();
                let child = critical(|_| {
                    send::sigqueue(signal, 5);
                    // SAFETY: this process has one thread.
                    let child = unsafe { libc::fork() };
                    if child == 0 {
                        send::sigqueue(signal, 6);
                    }
                    child
                });
                let expected = if send::process() == parent { 5 } else { 6 };
                assert_eq!(log::values(), [expected], "{signal}");
                if child > 0 {
                    expect_success(child);
                }
            }));
        }
    });
}

#[test]
fn a_new_thread_is_in_no_region_and_has_deferred_nothing() {
    alone("a_new_thread_is_in_no_region_and_has_deferred_nothing", || {
        log_runs(Signal::USR1);
        critical(|_| send::tgkill(Signal::USR1));
        assert_eq!(deferrals(), 1);
        for form in Form::ALL {
            form.run(|| {
                let check = || {
                    assert!(!in_region() && region_depth() == 0 && deferrals() == 0);
                    critical(|_| send::tgkill(Signal::USR1));
                };
                // In a full-mask region the thread inherits the mask, as with any other blocked signals; it is not counted here.
                std::thread::scope(|scope| scope.spawn(check).join().unwrap());
            });
        }
        assert_eq!(deferrals(), 1);
    });
}

static RUNS_AT_EXIT: AtomicUsize = AtomicUsize::new(0);

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        let before = log::count();
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                assert_eq!(log::count() - before, RUNS_AT_EXIT.load(Ordering::Relaxed));
            });
            RUNS_AT_EXIT.store(log::count() - before, Ordering::Relaxed);
        }
    }
}

#[test]
fn regions_work_in_the_destructors_of_thread_locals() {
    alone("regions_work_in_the_destructors_of_thread_locals", || {
        thread_local!(static AT_EXIT: AtExit = const { AtExit });
        log_runs(Signal::USR1);
        std::thread::spawn(|| AT_EXIT.with(|_| ())).join().unwrap();
        assert_eq!(RUNS_AT_EXIT.load(Ordering::Relaxed), Form::ALL.len());
        assert!(log::take().iter().all(|row| row.deferred));
    });
}

/// Must not run: says so and leaves with another status.
fn must_not_run(_: &sigsafe_core::handler::Delivery<'_>) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(9) };
}

#[test]
fn fatal_says_why_and_dies_of_sigabrt() {
    alone_until_death("fatal_says_why_and_dies_of_sigabrt", Signal::ABRT, "sigsafe: first second\n", || fatal(&["first", " second"]));
}

#[test]
fn fatal_dies_though_sigabrt_is_blocked_and_others_wait() {
    alone_until_death("fatal_dies_though_sigabrt_is_blocked_and_others_wait", Signal::ABRT, "sigsafe: blocked\n", || {
        manage(Handler::new(must_not_run), Signal::HUP);
        manage(Handler::new(must_not_run), Signal::USR1);
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        send::tgkill(Signal::HUP);
        send::kill(Signal::USR1);
        fatal(&["blocked"]);
    });
}

#[test]
fn fatal_dies_though_sigabrt_is_ignored() {
    alone_until_death("fatal_dies_though_sigabrt_is_ignored", Signal::ABRT, "sigsafe: ignored\n", || {
        Disposition::IGNORE.install(Signal::ABRT);
        fatal(&["ignored"]);
    });
}

#[test]
fn fatal_dies_though_sigabrt_is_handled() {
    alone_until_death("fatal_dies_though_sigabrt_is_handled", Signal::ABRT, "sigsafe: handled\n", || {
        manage(Handler::new(must_not_run), Signal::ABRT);
        critical(|_| fatal(&["handled"]));
    });
}

#[test]
fn a_long_message_of_fatal_is_cut_and_ends_its_line() {
    let expected = format!("sigsafe: {}\n", "x".repeat(502));
    alone_until_death("a_long_message_of_fatal_is_cut_and_ends_its_line", Signal::ABRT, &expected, || fatal(&["x".repeat(2000).as_str()]));
}

/// The kernel gives the id of a thread that has ended to another. A fork's child keeps its number for the locks that it holds, and when
/// its parent is gone the id that the number was made of may come back as that of a thread of its own.
#[test]
fn a_thread_of_a_fork_s_child_has_no_number_of_a_thread_of_the_parent() {
    alone("a_thread_of_a_fork_s_child_has_no_number_of_a_thread_of_the_parent", || {
        fn apart(generations: u32) {
            let (here, id) = (thread_id(), send::thread());
            if generations == 0 {
                return;
            }
            expect_success(fork_child(|| {
                assert_eq!(thread_id(), here, "what the thread holds over the fork carries its number");
                let (child, child_id) = std::thread::spawn(|| (thread_id(), send::thread())).join().unwrap();
                assert_ne!(child, here.wrapping_sub(id as u32).wrapping_add(child_id as u32), "what the parent makes of this id");
                assert!(child != 0 && child < 1 << 30 && child != here);
                std::thread::spawn(move || apart(generations - 1)).join().unwrap();
            }));
        }
        apart(3);
    });
}
