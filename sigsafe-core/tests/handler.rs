//! Handlers' options, and handlers that run in a region because they must: registered as immediate.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, in_region, mask, region_depth};
use support::{
    Disposition, Form, RT, SENT_FAULT, alone, expect_success, fork_child, kernel_mask, log, log_runs, manage, reap, send, spin_until,
};

/// Logs, raises its own signal the first time, and marks the end of each run.
fn raise_itself_once(delivery: &Delivery<'_>) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    log::record(delivery);
    if RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        send::tgkill(delivery.signal());
    }
    log::note(1);
}

/// The order of runs and ends of runs, direct and in every form.
fn orders_of(handler: Handler, signal: Signal) -> Vec<Vec<i32>> {
    let registration = manage(handler, signal);
    let before = kernel_mask();
    let order = || log::take().iter().map(|row| row.signal).collect();
    send::tgkill(signal);
    let mut orders = vec![order()];
    for form in Form::ALL {
        form.run(|| send::tgkill(signal));
        orders.push(order());
        assert_eq!(kernel_mask(), before, "{form:?}");
    }
    registration.remove().unwrap();
    orders
}

#[test]
fn a_handler_is_not_interrupted_by_its_own_signal() {
    alone("a_handler_is_not_interrupted_by_its_own_signal", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            for order in orders_of(Handler::new(raise_itself_once), signal) {
                assert_eq!(order, [signal.number(), -1, signal.number(), -1]);
            }
        }
    });
}

#[test]
fn no_defer_lets_a_handler_be_interrupted_by_its_own_signal() {
    alone("no_defer_lets_a_handler_be_interrupted_by_its_own_signal", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            for order in orders_of(Handler::new(raise_itself_once).no_defer(true), signal) {
                assert_eq!(order, [signal.number(), signal.number(), -1, -1]);
            }
        }
    });
}

#[test]
fn no_defer_gives_way_to_sa_mask() {
    alone("no_defer_gives_way_to_sa_mask", || {
        for signal in [Signal::USR1, RT] {
            for order in orders_of(Handler::new(raise_itself_once).no_defer(true).mask(signal.into()), signal) {
                assert_eq!(order, [signal.number(), -1, signal.number(), -1]);
            }
        }
    });
}

fn raise_usr2(delivery: &Delivery<'_>) {
    log::record(delivery);
    send::tgkill(Signal::USR2);
    log::note(1);
}

#[test]
fn signals_of_sa_mask_wait_for_the_handler_s_end() {
    alone("signals_of_sa_mask_wait_for_the_handler_s_end", || {
        log_runs(Signal::USR2);
        for signal in [Signal::USR1, RT, Signal::CONT, SENT_FAULT] {
            for order in orders_of(Handler::new(raise_usr2), signal) {
                assert_eq!(order, [signal.number(), libc::SIGUSR2, -1], "not in the mask");
            }
            for order in orders_of(Handler::new(raise_usr2).mask(Signal::USR2.into()), signal) {
                assert_eq!(order, [signal.number(), -1, libc::SIGUSR2], "in the mask");
            }
        }
    });
}

#[test]
fn reset_hand_restores_the_default_at_the_first_delivery() {
    alone("reset_hand_restores_the_default_at_the_first_delivery", || {
        // The default action of both is to do nothing, so that a second one does no harm.
        for signal in [Signal::URG, Signal::WINCH] {
            let once = || manage(Handler::new(log::record).reset_hand(true), signal);
            let registration = once();
            send::tgkill(signal);
            assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
            send::tgkill(signal);
            assert_eq!(log::take().len(), 1);
            registration.remove().expect("it is removed already");
            for form in Form::ALL {
                let registration = once();
                form.run(|| {
                    send::tgkill(signal);
                    assert_ne!(Disposition::of(signal), Disposition::DEFAULT, "{form:?}: before the delivery");
                });
                assert_eq!(Disposition::of(signal), Disposition::DEFAULT, "{form:?}");
                let rows = log::take();
                assert!(rows.len() == 1 && rows[0].deferred, "{form:?}");
                registration.remove().unwrap();
            }
        }
    });
}

#[test]
fn reset_hand_of_a_real_time_signal_takes_one_of_several() {
    alone("reset_hand_of_a_real_time_signal_takes_one_of_several", || {
        let child = fork_child(|| {
            let _registration = manage(Handler::new(log::record).reset_hand(true), RT);
            critical(|_| (1..=2).for_each(|value| send::sigqueue(RT, value)));
            unreachable!("the second one meets the default action");
        });
        let status = reap(child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == RT.number(), "{status:#x}");
    });
}

#[test]
fn no_cld_stop_passes_over_children_that_stop() {
    alone("no_cld_stop_passes_over_children_that_stop", || {
        for wanted in [false, true] {
            let registration = manage(Handler::new(log::record).no_cld_stop(wanted), Signal::CHLD);
            // SAFETY: the call takes no pointer.
            let child = fork_child(|| unsafe { _ = libc::raise(libc::SIGSTOP) });
            let mut status = 0;
            // SAFETY: the pointer is to a live value.
            spin_until(|| unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) } == child);
            assert!(libc::WIFSTOPPED(status));
            if !wanted {
                spin_until(|| log::count() > 0);
                assert_eq!(log::rows()[0].code(), libc::CLD_STOPPED);
            }
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::kill(child, libc::SIGCONT) }, 0);
            expect_success(child);
            let codes: Vec<_> = log::take().iter().map(log::Row::code).collect();
            assert!(!wanted || codes == [libc::CLD_EXITED], "{codes:?}");
            registration.remove().unwrap();
        }
    });
}

#[test]
fn no_cld_wait_leaves_no_zombie() {
    alone("no_cld_wait_leaves_no_zombie", || {
        let _registration = manage(Handler::new(log::record).no_cld_wait(true), Signal::CHLD);
        let child = fork_child(|| ());
        let mut status = 0;
        // SAFETY: the pointer is to a live value.
        spin_until(|| unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 && support::errno() == libc::ECHILD);
    });
}

/// Uses regions of both backends, in which a deferrable signal is raised.
fn use_both_backends(delivery: &Delivery<'_>) {
    log::record(delivery);
    let depth = region_depth();
    critical(|_| send::tgkill(Signal::USR1));
    critical_with::<FullSyscall, _>(|_| send::tgkill(Signal::USR1));
    let guards: (MaskGuard, MaskGuard<FullSyscall>) = (MaskGuard::new(), MaskGuard::new());
    send::tgkill(Signal::USR1);
    drop(guards.0);
    drop(guards.1);
    assert_eq!(region_depth(), depth);
    log::note(1);
}

#[test]
fn an_immediate_handler_runs_in_a_region_and_uses_regions() {
    alone("an_immediate_handler_runs_in_a_region_and_uses_regions", || {
        log_runs(Signal::USR1);
        for signal in [Signal::PROF, RT, Signal::CONT, SENT_FAULT] {
            manage(Handler::new(use_both_backends).immediate(true), signal);
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    let depth = region_depth();
                    send::tgkill(signal);
                    assert_eq!(log::signals(), [signal.number(), -1], "{signal} {form:?}: at once, and USR1 not");
                    assert!(!log::rows()[0].deferred && log::rows()[0].in_region);
                    assert_eq!(region_depth(), depth, "{signal} {form:?}");
                    // The region still defers.
                    send::tgkill(Signal::USR1);
                    assert_eq!(log::count(), 2, "{signal} {form:?}");
                });
                let runs = log::take();
                assert!(runs.len() > 2 && runs[2..].iter().all(|row| row.signal == libc::SIGUSR1), "{signal} {form:?}");
                assert!(runs[2..].iter().all(|row| !row.in_region));
                assert_eq!((kernel_mask(), region_depth()), (before, 0), "{signal} {form:?}");
            }
        }
    });
}

#[test]
fn an_immediate_handler_leaves_what_is_outstanding_to_the_region() {
    alone("an_immediate_handler_leaves_what_is_outstanding_to_the_region", || {
        log_runs(Signal::USR2);
        log_runs(Signal::USR1);
        manage(Handler::new(use_both_backends).immediate(true), Signal::PROF);
        for form in Form::ALL {
            let before = kernel_mask();
            form.run(|| {
                send::tgkill(Signal::USR2);
                send::tgkill(Signal::PROF);
                assert_eq!(log::signals(), [libc::SIGPROF, -1], "{form:?}");
                assert_eq!(mask::current(), before, "{form:?}");
                assert!(mask::pending().contains(Signal::USR2));
            });
            let signals: Vec<_> = log::take().iter().map(|row| row.signal).collect();
            assert_eq!(signals.iter().filter(|signal| **signal == libc::SIGUSR2).count(), 1, "{form:?}");
            assert!(signals.contains(&libc::SIGUSR1), "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

fn forget_guards(delivery: &Delivery<'_>) {
    log::record(delivery);
    std::mem::forget((MaskGuard::<FullSyscall>::new(), MaskGuard::<sigsafe_core::DefaultBackend>::new()));
    send::tgkill(Signal::USR1);
    log::note(1);
}

#[test]
fn guards_forgotten_by_a_handler_end_with_it() {
    alone("guards_forgotten_by_a_handler_end_with_it", || {
        log_runs(Signal::USR1);
        for immediate in [false, true] {
            manage(Handler::new(forget_guards).immediate(immediate), Signal::PROF);
            let before = kernel_mask();
            send::tgkill(Signal::PROF);
            assert_eq!(log::take().iter().map(|row| row.signal).collect::<Vec<_>>(), [libc::SIGPROF, -1, libc::SIGUSR1]);
            for form in Form::ALL {
                form.run(|| {
                    let depth = region_depth();
                    send::tgkill(Signal::PROF);
                    assert_eq!(log::count(), if immediate { 2 } else { 0 }, "{form:?}");
                    assert_eq!(region_depth(), depth, "{form:?}");
                });
                let signals: Vec<_> = log::take().iter().map(|row| row.signal).collect();
                assert_eq!(signals, [libc::SIGPROF, -1, libc::SIGUSR1], "{form:?}");
                assert_eq!((kernel_mask(), in_region()), (before, false), "{form:?}");
            }
        }
    });
}

fn block_everything(delivery: &Delivery<'_>) {
    log::record(delivery);
    mask::set(SigSet::FULL);
}

#[test]
fn mask_changes_of_an_immediate_handler_end_with_it() {
    alone("mask_changes_of_an_immediate_handler_end_with_it", || {
        log_runs(Signal::USR1);
        manage(Handler::new(block_everything).immediate(true), Signal::PROF);
        for form in Form::ALL {
            let before = kernel_mask();
            form.run(|| {
                send::tgkill(Signal::PROF);
                send::tgkill(Signal::USR1);
                send::tgkill(Signal::PROF);
                assert_eq!(log::signals(), [libc::SIGPROF; 2], "{form:?}");
                assert_eq!(mask::current(), before, "{form:?}");
            });
            assert_eq!(log::take().len(), 3, "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

fn has_hup_blocked(delivery: &Delivery<'_>) {
    log::record(delivery);
    assert!(mask::current().contains(Signal::HUP), "the handler runs with another one's mask");
}

fn install_over_usr1(_: &Delivery<'_>) {
    manage(Handler::new(has_hup_blocked).mask(Signal::HUP.into()), Signal::USR1);
}

/// The kernel has built both frames when the upper one's handler replaces the lower one's.
#[test]
fn a_handler_that_replaces_one_with_a_frame_has_its_own_mask() {
    alone("a_handler_that_replaces_one_with_a_frame_has_its_own_mask", || {
        log_runs(Signal::USR1);
        manage(Handler::new(install_over_usr1), Signal::USR2);
        let both = SigSet::EMPTY.with(Signal::USR1).with(Signal::USR2);
        mask::block(both);
        send::tgkill(Signal::USR1);
        send::tgkill(Signal::USR2);
        mask::unblock(both);
        assert_eq!(log::count(), 1);
    });
}

#[test]
fn a_handler_finds_the_word_that_it_was_installed_with() {
    alone("a_handler_finds_the_word_that_it_was_installed_with", || {
        fn note_data(delivery: &Delivery<'_>) {
            log::note(delivery.data() as i32);
            delivery.forward();
        }
        Disposition::IGNORE.install(Signal::USR1);
        Disposition::IGNORE.install(Signal::USR2);
        let handler = Handler::new(note_data);
        let _first = manage(handler.data(1), Signal::USR1);
        let _other = manage(handler.data(2), Signal::USR2);
        // A registration that has been removed is found again by an equal one, and by no other.
        for data in [3, 4, 3] {
            let above = manage(handler.data(data), Signal::USR1);
            for form in Form::ALL {
                form.run(|| {
                    send::tgkill(Signal::USR1);
                    send::tgkill(Signal::USR2);
                });
                // Which of two that wait is delivered first is the kernel's affair.
                let mut seen: Vec<i32> = log::take().iter().map(|row| -row.signal).collect();
                seen.sort_unstable();
                assert_eq!(seen, [1, 2, data as i32], "{form:?}");
            }
            above.remove().unwrap();
        }
    });
}
