//! Forwarding where there is no handler below: the default action happens, or nothing, as the kernel has it. And one-shots, whose
//! successor is the default action.

mod support;

use std::ptr::null;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical};
use support::{Disposition, Form, RT, SIGNALS, alone, expect_success, fork_child, kernel_mask, log, manage, reap, send, spin_until};

fn forwarding(delivery: &Delivery<'_>) {
    log::note(1);
    delivery.forward();
    log::note(2);
}

fn twice(delivery: &Delivery<'_>) {
    forwarding(delivery);
    forwarding(delivery);
}

fn tags() -> Vec<i32> {
    log::take().iter().map(|row| row.signal).collect()
}

/// How a child ends in which `body` runs.
fn end_of(body: impl FnOnce()) -> Option<i32> {
    let status = reap(fork_child(body));
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

#[test]
fn the_default_action_that_ends_the_process_does_so_by_this_signal() {
    alone("the_default_action_that_ends_the_process_does_so_by_this_signal", || {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live value.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) }, 0);
        let harmless = [Signal::CHLD, Signal::CONT, Signal::URG, Signal::WINCH, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let libc_s_own = SigSet::from_bits((1 << (libc::SIGRTMIN() - 1)) - (1 << 31));
        for signal in SIGNALS - libc_s_own - SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP) - harmless.into_iter().collect::<SigSet>()
        {
            for install in [
                |signal| _ = manage(Handler::new(forwarding).mask(SigSet::FULL), signal),
                |signal| {
                    manage(Handler::new(forwarding).no_defer(true), signal);
                    manage(Handler::new(forwarding), signal);
                },
            ] {
                let end = end_of(|| {
                    Disposition::DEFAULT.install(signal);
                    install(signal);
                    send::tgkill(signal);
                });
                assert_eq!(end, Some(signal.number()), "{signal}");
            }
            let end = end_of(|| {
                // Rust's runtime has handlers of its own for overflows of the stack.
                Disposition::DEFAULT.install(signal);
                manage(Handler::new(forwarding), signal);
                critical(|_| send::sigqueue(signal, 1));
            });
            assert_eq!(end, Some(signal.number()), "{signal}, deferred");
        }
    });
}

#[test]
fn the_default_action_that_does_nothing_does_nothing() {
    alone("the_default_action_that_does_nothing_does_nothing", || {
        for signal in [Signal::CHLD, Signal::CONT, Signal::URG, Signal::WINCH] {
            manage(Handler::new(forwarding), signal);
            send::tgkill(signal);
            Form::ALL.into_iter().for_each(|form| form.run(|| send::tgkill(signal)));
            assert_eq!(tags(), [-1, -2].repeat(1 + Form::ALL.len()), "{signal}");
        }
    });
}

#[test]
fn what_is_ignored_below_is_ignored() {
    alone("what_is_ignored_below_is_ignored", || {
        for signal in [Signal::USR1, RT, Signal::TSTP, Signal::SEGV] {
            Disposition::IGNORE.install(signal);
            let registration = manage(Handler::new(forwarding), signal);
            send::tgkill(signal);
            critical(|_| send::tgkill(signal));
            assert_eq!(tags(), [-1, -2, -1, -2], "{signal}");
            registration.remove().unwrap();
            assert_eq!(Disposition::of(signal), Disposition::IGNORE);
        }
    });
}

fn read_null() {
    // SAFETY: none; that is the point: the process dies of it, or its handler does not return.
    unsafe { null::<u8>().read_volatile() };
}

#[test]
fn a_fault_that_was_raised_ends_the_process_also_when_it_is_ignored_below() {
    alone("a_fault_that_was_raised_ends_the_process_also_when_it_is_ignored_below", || {
        for below in [Disposition::DEFAULT, Disposition::IGNORE] {
            for in_region in [false, true] {
                let end = end_of(|| {
                    below.install(Signal::SEGV);
                    manage(Handler::new(forwarding), Signal::SEGV);
                    if in_region { critical(|_| read_null()) } else { read_null() }
                });
                assert_eq!(end, Some(libc::SIGSEGV), "{below:?}");
            }
        }
    });
}

/// Waits until the child has stopped, and returns the signal that stopped it.
fn stopped(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the pointer is to a live value.
    spin_until(|| unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) } == child);
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
    libc::WSTOPSIG(status)
}

#[test]
fn the_default_action_that_stops_stops_and_goes_on() {
    alone("the_default_action_that_stops_stops_and_goes_on", || {
        for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
            let child = fork_child(|| {
                // A group of its own with a parent outside it: the kernel does not stop orphans.
                // SAFETY: the call takes no pointer.
                assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
                manage(Handler::new(forwarding), signal);
                let installed = Disposition::of(signal);
                send::tgkill(signal);
                assert_eq!(tags(), [-1, -2]);
                critical(|_| send::tgkill(signal));
                assert_eq!(tags(), [-1, -2]);
                assert_eq!((Disposition::of(signal), kernel_mask()), (installed, SigSet::EMPTY));
            });
            for _ in 0..2 {
                assert_eq!(stopped(child), signal.number());
                // SAFETY: the child is ours.
                assert_eq!(unsafe { libc::kill(child, libc::SIGCONT) }, 0);
            }
            expect_success(child);
        }
    });
}

#[test]
fn a_plain_one_shot_below_is_called_once() {
    alone("a_plain_one_shot_below_is_called_once", || {
        for signal in [Signal::WINCH, Signal::URG] {
            Disposition { flags: libc::SA_SIGINFO | libc::SA_RESETHAND, ..Disposition::plain() }.install(signal);
            let registration = manage(Handler::new(twice), signal);
            send::tgkill(signal);
            send::tgkill(signal);
            assert_eq!(tags(), [-1, signal.number(), -2, -1, -2, -1, -2, -1, -2]);
            registration.remove().unwrap();
            assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
        }
    });
}

#[test]
fn a_managed_one_shot_below_is_called_once() {
    alone("a_managed_one_shot_below_is_called_once", || {
        for signal in [Signal::WINCH, Signal::URG] {
            Disposition::IGNORE.install(signal);
            let below = manage(Handler::new(log::record).reset_hand(true), signal);
            let above = manage(Handler::new(twice), signal);
            send::tgkill(signal);
            assert_eq!(tags(), [-1, signal.number(), -2, -1, -2]);
            above.remove().unwrap();
            assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
            below.remove().unwrap();
        }
    });
}

#[test]
fn what_a_one_shot_below_leaves_is_the_default_action() {
    alone("what_a_one_shot_below_leaves_is_the_default_action", || {
        let plain = end_of(|| {
            Disposition { flags: libc::SA_SIGINFO | libc::SA_RESETHAND, ..Disposition::plain() }.install(Signal::USR1);
            manage(Handler::new(twice), Signal::USR1);
            send::tgkill(Signal::USR1);
        });
        let managed = end_of(|| {
            manage(Handler::new(log::record).reset_hand(true), RT);
            manage(Handler::new(twice), RT);
            send::tgkill(RT);
        });
        assert_eq!((plain, managed), (Some(libc::SIGUSR1), Some(RT.number())));
    });
}
