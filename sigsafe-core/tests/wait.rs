//! `mask::wait` and `wait_timeout`: what they take, in which order, and what they leave.

mod support;

use std::time::{Duration, Instant};

use sigsafe_core::{SigSet, Signal, critical, mask};
use support::send::{self, sigqueue_to, tgkill};
use support::{Form, RT, alone, kernel_mask, log, log_runs};

const LONG: Duration = Duration::from_secs(60);

fn value(info: &sigsafe_core::SigInfo) -> i32 {
    // SAFETY: only asked of signals that were sent with a value.
    unsafe { info.as_raw().si_value().sival_ptr.addr() as i32 }
}

#[test]
fn a_blocked_signal_is_taken_with_its_siginfo() {
    alone("a_blocked_signal_is_taken_with_its_siginfo", || {
        let _registration = log_runs(RT);
        mask::block(RT.into());
        let before = kernel_mask();
        for number in 0..3 {
            sigqueue_to(send::thread(), RT, number);
        }
        for number in 0..3 {
            let info = mask::wait_timeout(RT.into(), LONG).expect("it waits");
            assert_eq!((info.signal(), info.code(), value(&info)), (RT, libc::SI_QUEUE, number));
        }
        assert!(mask::wait_timeout(RT.into(), Duration::ZERO).is_none());
        assert_eq!(kernel_mask(), before);
        mask::unblock(RT.into());
        assert_eq!(log::count(), 0, "no handler ran");
    });
}

#[test]
fn the_lowest_number_comes_first() {
    alone("the_lowest_number_comes_first", || {
        let low = Signal::real_time(1).unwrap();
        let set = SigSet::EMPTY.with(RT).with(low).with(Signal::TERM);
        mask::block(set);
        for signal in [RT, low, Signal::TERM] {
            tgkill(signal);
        }
        assert_eq!([(); 3].map(|()| mask::wait(set).signal()), [Signal::TERM, low, RT]);
    });
}

/// In a region the first one is captured, into a slot where it is a real-time signal; the others wait in the kernel.
#[test]
fn what_a_region_holds_back_is_taken_in_order() {
    alone("what_a_region_holds_back_is_taken_in_order", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            let _registration = log_runs(signal);
            for form in Form::ALL {
                let count = if signal.is_real_time() { 5 } else { 1 };
                form.run(|| {
                    for number in 0..count {
                        sigqueue_to(send::thread(), signal, number);
                    }
                    for number in 0..count {
                        let info = mask::wait_timeout(signal.into(), LONG).expect("it waits");
                        assert_eq!((info.signal(), value(&info)), (signal, number), "{form:?}");
                    }
                    assert!(mask::wait_timeout(signal.into(), Duration::ZERO).is_none(), "{form:?}");
                    assert!(!mask::pending().contains(signal));
                });
                assert_eq!(log::count(), 0, "{form:?}: no handler ran for {signal}");
                assert_eq!(kernel_mask(), SigSet::EMPTY, "{form:?}");
            }
        }
    });
}

/// A token waits in the kernel for what an exit could not let in, because the thread had blocked it since.
#[test]
fn a_token_brings_what_it_stands_for() {
    alone("a_token_brings_what_it_stands_for", || {
        let _registration = log_runs(RT);
        critical(|_| {
            for number in 0..3 {
                sigqueue_to(send::thread(), RT, number);
            }
            mask::block(RT.into());
        });
        sigqueue_to(send::thread(), RT, 3);
        for number in 0..4 {
            let info = mask::wait_timeout(RT.into(), LONG).expect("it waits");
            assert_eq!(value(&info), number);
        }
        assert!(mask::wait_timeout(RT.into(), Duration::ZERO).is_none());
        mask::unblock(RT.into());
        assert_eq!(log::count(), 0);
    });
}

/// Whoever waits without having blocked the signals still takes them, and nothing stays blocked.
#[test]
fn unblocked_signals_are_taken_and_stay_unblocked() {
    alone("unblocked_signals_are_taken_and_stay_unblocked", || {
        let _registration = log_runs(Signal::USR2);
        let main = send::thread();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The kernel tells the number of the system call that a thread sleeps in.
                let path = format!("/proc/self/task/{main}/syscall");
                let asleep = libc::SYS_rt_sigtimedwait.to_string();
                support::spin_until(|| std::fs::read_to_string(&path).unwrap().split(' ').next() == Some(&asleep));
                send::tgkill_to(main, Signal::USR2);
            });
            let info = mask::wait_timeout(Signal::USR2.into(), LONG).expect("it was sent");
            assert_eq!(info.code(), libc::SI_TKILL);
        });
        assert_eq!(kernel_mask(), SigSet::EMPTY);
        tgkill(Signal::USR2);
        assert_eq!(log::count(), 1);
    });
}

/// A handler for another signal runs in the middle of the wait, which goes on.
#[test]
fn another_signal_s_handler_does_not_end_the_wait() {
    alone("another_signal_s_handler_does_not_end_the_wait", || {
        let _registration = log_runs(Signal::USR1);
        mask::block(RT.into());
        let main = send::thread();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send::tgkill_to(main, Signal::USR1);
                support::spin_until(|| log::count() > 0);
                sigqueue_to(main, RT, 9);
            });
            let info = mask::wait_timeout(RT.into(), LONG).expect("it was sent");
            assert_eq!(value(&info), 9);
            assert_eq!(log::count(), 1);
        });
    });
}

#[test]
fn the_timeout_ends_the_wait() {
    alone("the_timeout_ends_the_wait", || {
        mask::block(RT.into());
        let start = Instant::now();
        assert!(mask::wait_timeout(RT.into(), Duration::from_millis(20)).is_none());
        assert!(start.elapsed() >= Duration::from_millis(20));
        // A wait that long is one without end; the signal is there already.
        sigqueue_to(send::thread(), RT, 1);
        assert!(mask::wait_timeout(RT.into(), Duration::MAX).is_some());
    });
}
