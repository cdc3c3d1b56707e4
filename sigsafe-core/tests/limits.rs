//! A kernel that takes nothing back: a seccomp filter refuses the call by which a region requeues. What is captured waits in the record
//! instead, and the region's exit calls its handler. (`RLIMIT_SIGPENDING` is in `process.rs` and `realtime.rs`.)

mod support;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, in_region, mask};
use support::seccomp::{self, Filter};
use support::{Form, RT, SENT_FAULT, alone, kernel_mask, log, log_runs, manage, send};

const KINDS: [Signal; 5] = [Signal::USR1, RT, SENT_FAULT, Signal::CONT, Signal::TSTP];

/// In a process whose sandbox does not let it queue signals to itself.
fn sandboxed(test_name: &str, body: impl FnOnce()) {
    alone(test_name, || {
        KINDS.into_iter().for_each(|signal| _ = log_runs(signal));
        seccomp::install(Filter::Refuse, libc::SYS_rt_tgsigqueueinfo);
        assert!(std::panic::catch_unwind(|| send::sigqueue_to(send::thread(), RT, 0)).is_err(), "the filter is not in force");
        body();
    });
}

#[test]
fn what_a_sandbox_does_not_let_requeue_is_handled_at_the_region_s_end() {
    sandboxed("what_a_sandbox_does_not_let_requeue_is_handled_at_the_region_s_end", || {
        for signal in KINDS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::sigqueue(signal, 7);
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                    assert!(mask::pending().contains(signal), "{signal} {form:?}");
                });
                let rows = log::take();
                assert_eq!(rows.len(), 1, "{signal} {form:?}");
                assert_eq!((rows[0].code(), rows[0].value()), (libc::SI_QUEUE, 7), "{signal} {form:?}");
                assert!(rows[0].deferred && !rows[0].in_region, "{signal} {form:?}");
                assert_eq!(rows[0].mask, before.with(signal), "{signal} {form:?}");
                assert_eq!((kernel_mask(), mask::pending()), (before, SigSet::EMPTY), "{signal} {form:?}");
                send::sigqueue(signal, 8);
                assert_eq!(log::take().len(), 1, "{signal} {form:?}: outside a region");
            }
        }
    });
}

#[test]
fn real_time_signals_keep_their_order_in_a_sandbox() {
    sandboxed("real_time_signals_keep_their_order_in_a_sandbox", || {
        for form in Form::ALL {
            form.run(|| (1..=5).for_each(|value| send::sigqueue(RT, value)));
            assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{form:?}");
        }
    });
}

#[test]
fn what_is_blocked_meanwhile_waits_until_it_is_unblocked_in_a_sandbox_too() {
    sandboxed("what_is_blocked_meanwhile_waits_until_it_is_unblocked_in_a_sandbox_too", || {
        for signal in KINDS {
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| {
                    send::sigqueue(signal, 7);
                    mask::block(signal.into());
                });
                form.run(|| ());
                assert_eq!(log::count(), 0, "{signal} {form:?}");
                assert!(mask::pending().contains(signal), "{signal} {form:?}");
                mask::unblock(signal.into());
                assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [7], "{signal} {form:?}");
                assert_eq!((kernel_mask(), mask::pending()), (before, SigSet::EMPTY), "{signal} {form:?}");
            }
        }
    });
}

fn use_regions(delivery: &Delivery<'_>) {
    critical(|_| send::sigqueue(Signal::USR1, 1));
    assert!(!in_region());
    log::record(delivery);
}

#[test]
fn a_handler_called_by_the_exit_itself_may_use_regions() {
    sandboxed("a_handler_called_by_the_exit_itself_may_use_regions", || {
        for signal in [RT, Signal::CONT, Signal::TSTP] {
            manage(Handler::new(use_regions), signal);
            for form in Form::ALL {
                let before = kernel_mask();
                form.run(|| send::sigqueue(signal, 2));
                let signals: Vec<_> = log::take().iter().map(|row| row.signal).collect();
                assert_eq!(signals, [libc::SIGUSR1, signal.number()], "{signal} {form:?}: the region in the handler ends in the handler");
                assert_eq!((kernel_mask(), mask::pending()), (before, SigSet::EMPTY), "{signal} {form:?}");
            }
        }
    });
}

/// The kernel refuses the token of one real-time signal, so that no further ones are asked for: another's order holds all the same.
#[test]
fn a_refused_token_leaves_other_streams_in_order() {
    alone("a_refused_token_leaves_other_streams_in_order", || {
        let other = Signal::new(RT.number() + 1).unwrap();
        // Its handler lets nothing of the other in.
        let _registrations = [manage(Handler::new(log::record).mask(SigSet::FULL), RT), log_runs(other)];
        seccomp::refuse_queueing(RT);
        for suspended in [false, true] {
            critical(|_| {
                send::kill(RT);
                // Foreign code unblocks it in the region, so that it is captured as well.
                support::raw_mask(libc::SIG_UNBLOCK, other.into());
                send::sigqueue_to(send::thread(), other, 1);
                send::sigqueue_to(send::thread(), other, 2);
                assert_eq!(log::count(), 0);
                if suspended {
                    mask::suspend(SigSet::EMPTY);
                }
            });
            let rows = log::take();
            let values: Vec<i32> = rows.iter().filter(|row| row.signal == other.number()).map(log::Row::value).collect();
            assert_eq!((rows.len(), values), (3, vec![1, 2]), "suspended: {suspended}");
        }
    });
}
