//! Installing and removing handlers where it hurts: in the middle of a change of the same signal's handler, in the child of a fork, and
//! where the system refuses.

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use sigsafe_core::handler::{AdoptError, Delivery, Handler, InstallError, RemoveErrorKind, adopt};
use sigsafe_core::{SigSet, Signal, critical};
use support::{Disposition, RT, alone, expect_success, fork_child, kernel_mask, log, log_runs, manage, send, spin_until};

const CHANGED: Signal = Signal::USR1;

/// From here on the kernel answers `rt_sigaction` for `signal` by `action`: each call, or those that replace the disposition.
fn refuse(signal: Signal, reading_too: bool, action: u32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, then, otherwise| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value);
    let give = |value| statement(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let program = [
        // The call's number at 0, its arguments from 16.
        load(0),
        equal(libc::SYS_rt_sigaction as u32, 0, 5),
        load(16),
        equal(signal.number() as u32, 0, 3),
        // The lower half of the pointer to the new disposition: 0 if there is none. (An address on a stack has another.)
        load(24),
        equal(if reading_too { u32::MAX } else { 0 }, 1, 0),
        give(action),
        give(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the calls read the filter, which is live.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
}

const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn tagged<const TAG: i32>(_: &Delivery<'_>) {
    log::note(TAG);
}

/// Whom the signal reaches, direct and deferred.
fn reached() -> Vec<i32> {
    send::tgkill(CHANGED);
    critical(|_| send::tgkill(CHANGED));
    log::take().iter().map(|row| row.signal).collect()
}

#[test]
fn a_sandbox_that_refuses_changes_nothing() {
    alone("a_sandbox_that_refuses_changes_nothing", || {
        for reading_too in [false, true] {
            expect_success(fork_child(|| {
                let registration = manage(Handler::new(tagged::<1>), CHANGED);
                Disposition::plain().install(Signal::USR2);
                refuse(CHANGED, reading_too, EPERM);
                refuse(Signal::USR2, reading_too, EPERM);
                for handler in [Handler::new(tagged::<2>), Handler::new(tagged::<3>).immediate(true)] {
                    // SAFETY: the handler touches atomics alone.
                    let error = unsafe { handler.install(CHANGED) }.expect_err("the kernel refuses");
                    assert_eq!(error, InstallError::Refused(CHANGED));
                    assert_eq!(reached(), [-1, -1]);
                }
                let error = registration.remove().expect_err("the kernel refuses");
                assert_eq!(error.kind(), RemoveErrorKind::Refused);
                assert_eq!(error.to_string(), "the system refused to change the handler of SIGUSR1");
                assert_eq!(reached(), [-1, -1]);
                assert_eq!(error.into_registration().remove().unwrap_err().kind(), RemoveErrorKind::Refused);
                // SAFETY: the plain handler returns.
                let error = unsafe { adopt(Signal::USR2) }.expect_err("the kernel refuses");
                assert_eq!(error, AdoptError::Install(InstallError::Refused(Signal::USR2)));
                critical(|_| {
                    send::tgkill(Signal::USR2);
                    assert_eq!(log::take().len(), 1, "it is not managed");
                });
                assert_eq!(kernel_mask(), SigSet::EMPTY);
            }));
        }
    });
}

/// The filter answers the change by a real SIGSYS, whose handler runs in the middle of it.
#[test]
fn a_handler_in_the_middle_of_a_change_is_told_so() {
    alone("a_handler_in_the_middle_of_a_change_is_told_so", || {
        fn answer(delivery: &Delivery<'_>) {
            // SAFETY: the handlers touch atomics alone.
            let (same, other) = unsafe { (Handler::new(tagged::<2>).install(CHANGED), Handler::new(tagged::<2>).install(RT)) };
            assert_eq!(same.expect_err("it interrupts a change of this one"), InstallError::Busy(CHANGED));
            other.expect("this is another signal").remove().unwrap();
            // SAFETY: as above.
            let adopted = unsafe { adopt(CHANGED) };
            assert_eq!(adopted.unwrap_err(), AdoptError::Install(InstallError::Busy(CHANGED)));
            log::note(9);
            let context = delivery.ucontext().expect("the kernel's").as_ptr();
            // SAFETY: the context of the refused call, of which this is the result.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                ((*context).uc_mcontext.gregs[libc::REG_RAX as usize] = -i64::from(libc::EPERM));
                #[cfg(target_arch = "aarch64")]
                ((*context).uc_mcontext.regs[0] = -i64::from(libc::EPERM) as u64);
            }
        }
        manage(Handler::new(tagged::<1>), CHANGED);
        manage(Handler::new(answer), Signal::SYS);
        refuse(CHANGED, false, libc::SECCOMP_RET_TRAP);
        // SAFETY: the handler touches atomics alone.
        assert_eq!(unsafe { Handler::new(tagged::<3>).install(CHANGED) }.unwrap_err(), InstallError::Refused(CHANGED));
        assert_eq!(log::take().len(), 1);
        assert_eq!((reached(), kernel_mask()), (vec![-1, -1], SigSet::EMPTY));
    });
}

/// Faults are never blocked, so one that somebody sends may land in the middle of a change, whose handler makes the same change.
#[test]
fn handlers_of_sent_faults_change_the_handler_that_is_being_changed() {
    alone("handlers_of_sent_faults_change_the_handler_that_is_being_changed", || {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        static TARGET: AtomicI32 = AtomicI32::new(0);
        fn change(_: &Delivery<'_>) {
            manage(Handler::new(tagged::<1>), CHANGED).remove().expect("it is on top");
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        for signal in [Signal::SEGV, Signal::SYS] {
            manage(Handler::new(change), signal);
        }
        TARGET.store(send::thread(), Ordering::Release);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Read once for each turn: it changes while this runs.
                while let target @ 1.. = TARGET.load(Ordering::Acquire) {
                    send::tgkill_to(target, Signal::SEGV);
                    std::thread::yield_now();
                }
                TARGET.store(-1, Ordering::Release);
            });
            // Few of them land where it matters.
            while RUNS.load(Ordering::Relaxed) < 3000 {
                manage(Handler::new(tagged::<2>), CHANGED).remove().expect("it is on top");
            }
            TARGET.store(0, Ordering::Release);
            spin_until(|| TARGET.load(Ordering::Acquire) == -1);
        });
        assert_eq!(Disposition::of(CHANGED), Disposition::DEFAULT);
    });
}

/// A thread of the parent's holds the lock of the signal's handler when the process forks.
#[test]
fn the_child_of_a_fork_changes_what_a_thread_of_its_parent_was_changing() {
    alone("the_child_of_a_fork_changes_what_a_thread_of_its_parent_was_changing", || {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    manage(Handler::new(tagged::<1>), CHANGED).remove().unwrap();
                }
            });
            for _ in 0..300 {
                expect_success(fork_child(|| {
                    let registration = manage(Handler::new(tagged::<2>), CHANGED);
                    assert_eq!(reached(), [-2, -2]);
                    registration.remove().unwrap();
                }));
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn without_memory_nothing_changes() {
    alone("without_memory_nothing_changes", || {
        expect_success(fork_child(|| {
            let registration = log_runs(CHANGED);
            let none = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
            // SAFETY: the pointer is to a live value.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) }, 0);
            let mut last = Ok(());
            for index in 0..1000u64 {
                // Each with a mask of its own, so that no entry is found again.
                let handler = Handler::new(tagged::<1>).mask(SigSet::from_bits(index << 34));
                // SAFETY: the handler touches atomics alone.
                last = unsafe { handler.install(CHANGED) }.map(|registration| registration.remove().unwrap());
                if last.is_err() {
                    break;
                }
            }
            assert_eq!(last, Err(InstallError::NoMemory));
            assert_eq!(reached(), [CHANGED.number(), CHANGED.number()]);
            registration.remove().unwrap();
        }));
    });
}

/// Handlers that install and remove their own signal's handler, in two threads under a storm each.
#[test]
fn handlers_change_their_own_signal_s_handler_under_a_storm() {
    alone("handlers_change_their_own_signal_s_handler_under_a_storm", || {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        fn change(_: &Delivery<'_>) {
            // Over this one, and away again; another thread's may lie over it for a moment.
            let mut registration = manage(Handler::new(tagged::<1>), RT);
            while let Err(error) = registration.remove() {
                registration = error.into_registration();
            }
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        manage(Handler::new(change), RT);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while RUNS.load(Ordering::Relaxed) < 4000 {
                        send::tgkill(RT);
                        critical(|_| send::tgkill(RT));
                    }
                });
            }
        });
        assert_eq!(Disposition::of(RT).flags & libc::SA_SIGINFO, libc::SA_SIGINFO);
    });
}
