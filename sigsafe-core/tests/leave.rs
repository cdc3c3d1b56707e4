//! The end of a thread in a region: what the region has captured of the process's signals is handled by another thread.

mod support;

use std::sync::mpsc::channel;
use std::thread;

use sigsafe_core::{DeferredCounter, MaskGuard, SigSet, Signal, leave_thread, mask};
use support::send::{kill, sigqueue, tgkill};
use support::{Form, RT, SENT_FAULT, SIGNALS, alone, expect_success, fork_child, log, log_runs, spin_until};

/// KILL and STOP, libc's own, and faults.
const NEVER_BLOCKED: SigSet = SigSet::RESERVED.union(SigSet::SYNCHRONOUS).union(SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP));

/// A thread captures what `send` sends and exits in the region; all others have the signal blocked until then. In a child, where
/// there are no others but those of the test.
fn exits_with_a_deferral(signal: Signal, send: fn(Signal)) {
    mask::block(SigSet::from(signal));
    thread::spawn(move || {
        mask::unblock(signal.into());
        std::mem::forget(MaskGuard::<DeferredCounter>::new());
        send(signal);
        spin_until(|| mask::pending().contains(signal));
        assert_eq!(log::count(), 0);
        leave_thread();
    })
    .join()
    .unwrap();
    mask::unblock(signal.into());
}

#[test]
fn a_signal_of_the_process_is_handled_by_another_thread() {
    alone("a_signal_of_the_process_is_handled_by_another_thread", || {
        expect_success(fork_child(|| {
            let sends: [(fn(Signal), i32); 2] = [(kill, libc::SI_USER), (|signal| sigqueue(signal, 5), libc::SI_QUEUE)];
            for signal in [Signal::TERM, RT, Signal::CONT, Signal::TSTP, SENT_FAULT] {
                let registration = log_runs(signal);
                for (send, code) in sends {
                    exits_with_a_deferral(signal, send);
                    let rows = log::take();
                    assert_eq!(rows.len(), 1, "{signal}");
                    assert_eq!((rows[0].code(), rows[0].sender()), (code, support::send::process()), "{signal}");
                    if code == libc::SI_QUEUE {
                        assert_eq!(rows[0].value(), 5);
                    }
                }
                registration.remove().unwrap();
            }
        }));
    });
}

#[test]
fn a_signal_of_the_thread_goes_with_it() {
    alone("a_signal_of_the_thread_goes_with_it", || {
        expect_success(fork_child(|| {
            for signal in [Signal::TERM, RT] {
                let registration = log_runs(signal);
                exits_with_a_deferral(signal, tgkill);
                assert_eq!(log::count(), 0, "{signal}");
                registration.remove().unwrap();
            }
        }));
    });
}

/// What has been handled meanwhile is not sent again.
#[test]
fn what_was_handled_is_not_sent_on() {
    alone("what_was_handled_is_not_sent_on", || {
        let _registration = log_runs(Signal::TERM);
        let (done, wait) = channel();
        let exiting = thread::spawn(move || {
            sigsafe_core::critical(|_| {
                tgkill(Signal::TERM);
            });
            assert_eq!(log::take().len(), 1);
            leave_thread();
            done.send(()).unwrap();
        });
        wait.recv().unwrap();
        exiting.join().unwrap();
        assert_eq!(log::count(), 0);
    });
}

/// The guard of a thread-local ends as late as that.
#[test]
fn a_region_that_ends_after_leaving_lets_nothing_in() {
    alone("a_region_that_ends_after_leaving_lets_nothing_in", || {
        for signal in [Signal::TERM, RT, Signal::CONT, SENT_FAULT] {
            let registration = log_runs(signal);
            for form in Form::ALL {
                thread::spawn(move || {
                    form.run(|| {
                        tgkill(signal);
                        leave_thread();
                    });
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                    assert_eq!(mask::current(), SIGNALS - NEVER_BLOCKED, "{signal} {form:?}");
                })
                .join()
                .unwrap();
            }
            registration.remove().unwrap();
        }
    });
}
