//! Death by a signal of one's choice: what the parent is told, whatever was done to the signal.

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, crash};
use support::{Disposition, Form, SIGNALS, alone, exhaust_pending, fork_child, log, manage, raw_mask, reap, send};

/// No signal of these ends a process by default.
const SURVIVED: SigSet = SigSet::EMPTY
    .with(Signal::CHLD)
    .with(Signal::CONT)
    .with(Signal::URG)
    .with(Signal::WINCH)
    .with(Signal::STOP)
    .with(Signal::TSTP)
    .with(Signal::TTIN)
    .with(Signal::TTOU);

/// Forks a child that runs `body`, and says of which signal it has died.
fn cause_of_death(body: impl FnOnce()) -> Signal {
    let status = reap(fork_child(|| {
        // SAFETY: the pointer is to a live value. What dies here leaves no file behind.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
        body();
    }));
    assert!(libc::WIFSIGNALED(status), "wait status {status:#x}");
    Signal::new(libc::WTERMSIG(status)).unwrap()
}

fn expected(signal: Signal) -> Signal {
    if SURVIVED.contains(signal) { Signal::ABRT } else { signal }
}

/// What can be done to a signal beforehand.
fn dispositions(signal: Signal) -> Vec<Disposition> {
    let fixed = SigSet::RESERVED.with(Signal::KILL).with(Signal::STOP);
    if fixed.contains(signal) { vec![] } else { vec![Disposition::DEFAULT, Disposition::IGNORE, Disposition::plain()] }
}

#[test]
fn the_wait_status_says_every_signal_whatever_its_mask_and_disposition() {
    alone("the_wait_status_says_every_signal_whatever_its_mask_and_disposition", || {
        for signal in SIGNALS {
            assert_eq!(cause_of_death(|| crash(signal)), expected(signal));
            for disposition in dispositions(signal) {
                for mask in [SigSet::EMPTY, SigSet::FULL] {
                    let cause = cause_of_death(|| {
                        disposition.install(expected(signal));
                        raw_mask(libc::SIG_SETMASK, mask);
                        crash(signal)
                    });
                    assert_eq!(cause, expected(signal), "{disposition:?} {mask:?}");
                }
            }
        }
    });
}

#[test]
fn a_crash_in_a_region_is_not_held_back() {
    alone("a_crash_in_a_region_is_not_held_back", || {
        for signal in [Signal::TERM, Signal::SEGV, Signal::ABRT, support::RT] {
            for form in Form::ALL {
                for deferred in [false, true] {
                    let cause = cause_of_death(|| {
                        manage(Handler::new(log::record), signal);
                        form.run(|| {
                            if deferred {
                                send::kill(signal);
                            }
                            crash(signal)
                        });
                    });
                    assert_eq!(cause, signal, "{form:?} {deferred}");
                }
            }
        }
    });
}

static CAUSE: AtomicI32 = AtomicI32::new(0);

fn crash_now(_: &Delivery<'_>) {
    crash(Signal::new(CAUSE.load(Ordering::Relaxed)).unwrap());
}

#[test]
fn a_handler_crashes_by_its_own_signal_and_by_another() {
    alone("a_handler_crashes_by_its_own_signal_and_by_another", || {
        for signal in [Signal::TERM, Signal::SEGV, Signal::PROF, support::RT] {
            for cause in [signal, Signal::QUIT, Signal::KILL] {
                CAUSE.store(cause.number(), Ordering::Relaxed);
                let died_of = cause_of_death(|| {
                    manage(Handler::new(crash_now).mask(SigSet::FULL), signal);
                    send::tgkill(signal);
                });
                assert_eq!(died_of, cause, "in a handler of {signal}");
                let died_of = cause_of_death(|| {
                    manage(Handler::new(crash_now), signal);
                    sigsafe_core::critical(|_| send::tgkill(signal));
                });
                assert_eq!(died_of, cause, "in a deferred handler of {signal}");
            }
        }
    });
}

fn must_not_run(_: &Delivery<'_>) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(9) };
}

#[test]
fn no_other_handler_runs_on_the_way_to_a_crash() {
    alone("no_other_handler_runs_on_the_way_to_a_crash", || {
        let cause = cause_of_death(|| {
            raw_mask(libc::SIG_SETMASK, SigSet::FULL);
            for signal in [Signal::HUP, Signal::USR1, Signal::SEGV, support::RT] {
                manage(Handler::new(must_not_run), signal);
                send::tgkill(signal);
            }
            crash(Signal::TERM)
        });
        assert_eq!(cause, Signal::TERM);
    });
}

#[test]
fn a_crash_succeeds_though_another_thread_keeps_installing_a_handler() {
    static GO: AtomicBool = AtomicBool::new(false);

    alone("a_crash_succeeds_though_another_thread_keeps_installing_a_handler", || {
        for signal in [Signal::TERM, Signal::SEGV, support::RT] {
            for disposition in [Disposition::plain(), Disposition::IGNORE] {
                // Again and again, so that the default action is replaced before it takes effect.
                for _ in 0..40 {
                    let cause = cause_of_death(|| {
                        manage(Handler::new(must_not_run), Signal::HUP);
                        raw_mask(libc::SIG_SETMASK, SigSet::FULL);
                        send::tgkill(Signal::HUP);
                        GO.store(false, Ordering::Relaxed);
                        std::thread::spawn(move || {
                            loop {
                                disposition.install(signal);
                                GO.store(true, Ordering::Relaxed);
                            }
                        });
                        support::spin_until(|| GO.load(Ordering::Relaxed));
                        crash(signal)
                    });
                    assert_eq!(cause, signal, "{disposition:?}");
                }
            }
        }
    });
}

#[test]
fn a_crash_succeeds_with_no_room_for_pending_signals() {
    alone("a_crash_succeeds_with_no_room_for_pending_signals", || {
        for signal in [Signal::TERM, support::RT] {
            let cause = cause_of_death(|| {
                exhaust_pending();
                crash(signal)
            });
            assert_eq!(cause, signal);
        }
    });
}

/// A seccomp filter by which sending any signal is refused.
fn refuse_signals() {
    let sending = [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in sending.into_iter().enumerate() {
        let to_refusal = (sending.len() - index) as u8;
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_refusal, 0, call as u32));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the pointer is to a live program.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0), 0);
    }
}

#[test]
fn where_no_signal_can_be_sent_the_exit_status_is_128_and_the_number() {
    alone("where_no_signal_can_be_sent_the_exit_status_is_128_and_the_number", || {
        for signal in [Signal::TERM, Signal::KILL, Signal::SEGV] {
            let status = reap(fork_child(|| {
                refuse_signals();
                crash(signal)
            }));
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 128 + signal.number(), "{signal}: {status:#x}");
        }
    });
}

/// Runs `body` in a process that is the first of a new pid namespace, and returns its exit status. `None` where that is not permitted.
fn as_first_process(body: impl FnOnce()) -> Option<i32> {
    const NOT_PERMITTED: i32 = 77;
    let status = reap(fork_child(|| {
        // SAFETY: the call takes no pointer; this process has one thread.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            // SAFETY: ends the process.
            unsafe { libc::_exit(NOT_PERMITTED) };
        }
        let status = reap(fork_child(body));
        assert!(libc::WIFEXITED(status), "wait status {status:#x}");
        // SAFETY: ends the process.
        unsafe { libc::_exit(libc::WEXITSTATUS(status)) };
    }));
    assert!(libc::WIFEXITED(status), "wait status {status:#x}");
    Some(libc::WEXITSTATUS(status)).filter(|status| *status != NOT_PERMITTED)
}

#[test]
fn the_first_process_of_a_namespace_exits_with_128_and_the_number() {
    alone("the_first_process_of_a_namespace_exits_with_128_and_the_number", || {
        for signal in [Signal::TERM, Signal::KILL] {
            match as_first_process(|| crash(signal)) {
                Some(status) => assert_eq!(status, 128 + signal.number(), "{signal}"),
                // Only a user with the right to make namespaces can see this.
                None => println!("no pid namespace here"),
            }
        }
    });
}
