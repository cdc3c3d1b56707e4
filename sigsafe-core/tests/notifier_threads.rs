//! The notifier's thread among others: their masks and its own, regions, children.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use sigsafe_core::notifier::{NotifyError, Receiver, Subscription, subscribed};
use sigsafe_core::{SigSet, Signal, critical, mask, thread};
use support::notify::{NOT_TO_BE_SUBSCRIBED, expect_nothing, next, notifier_mask, receiver};
use support::{
    Disposition, Form, RT, alone, expect_success, fork_child, kernel_mask, log, log_runs, mapped_pages, raw_mask, reap, send, spin_until,
};

const USR1: SigSet = SigSet::EMPTY.with(Signal::USR1);
const USR2: SigSet = SigSet::EMPTY.with(Signal::USR2);

#[test]
fn a_signal_blocked_in_every_other_thread_arrives() {
    alone("a_signal_blocked_in_every_other_thread_arrives", || {
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        send::kill(Signal::TERM);
        assert!(mask::pending().contains(Signal::TERM));
        let receiver = receiver(Signal::TERM.into());
        assert_eq!(next(&receiver).signal(), Signal::TERM, "the one that waited");
        send::kill(Signal::TERM);
        assert_eq!(next(&receiver).signal(), Signal::TERM);
        assert!(kernel_mask().contains(Signal::TERM), "this thread has it blocked still");
    });
}

#[test]
fn a_foreign_thread_keeps_sigio_blocked_while_it_is_subscribed() {
    alone("a_foreign_thread_keeps_sigio_blocked_while_it_is_subscribed", || {
        let kept = || kernel_mask().contains(Signal::IO) && mask::current().contains(Signal::IO);
        raw_mask(libc::SIG_BLOCK, Signal::IO.into());
        std::thread::scope(|scope| {
            let foreign = scope.spawn(|| {
                let attached = thread::attach().unwrap();
                assert!(kept(), "attached");
                let receiver = receiver(Signal::IO.into());
                assert!(kept(), "subscribed");
                send::kill(Signal::IO);
                assert_eq!(next(&receiver).signal(), Signal::IO);
                assert!(kept(), "notified");
                attached.detach();
                assert!(kept(), "detached");
            });
            foreign.join().unwrap();
        });
    });
}

#[test]
fn sigterm_blocked_at_the_start_stays_blocked_in_every_thread_and_arrives_when_subscribed() {
    alone("sigterm_blocked_at_the_start_stays_blocked_in_every_thread_and_arrives_when_subscribed", || {
        const TERM: SigSet = SigSet::EMPTY.with(Signal::TERM);
        raw_mask(libc::SIG_BLOCK, TERM);
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = || {
            let stop = stop.clone();
            let run = move || spin_until(|| stop.load(Ordering::Relaxed));
            thread::spawn(move || {
                assert!(kernel_mask().contains(Signal::TERM));
                // One that it spawns in its turn.
                thread::spawn(run).unwrap().join().unwrap();
                assert!(kernel_mask().contains(Signal::TERM));
            })
            .unwrap()
        };
        let threads = [spawn(), critical(|_| spawn()), spawn()];
        send::kill(Signal::TERM);
        assert!(mask::pending().contains(Signal::TERM), "nobody takes it");
        let receiver = receiver(TERM);
        assert_eq!(next(&receiver).signal(), Signal::TERM);
        send::kill(Signal::TERM);
        assert_eq!(next(&receiver).signal(), Signal::TERM);
        drop(receiver);
        send::kill(Signal::TERM);
        assert!(mask::pending().contains(Signal::TERM), "nobody takes it again");
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn the_notifier_s_mask_is_the_documented_one() {
    alone("the_notifier_s_mask_is_the_documented_one", || {
        let open = SigSet::ESSENTIAL | SigSet::SYNCHRONOUS | SigSet::RESERVED;
        let waits_with = |subscribed: SigSet| {
            let blocked = !(open | subscribed).with(Signal::KILL).with(Signal::STOP);
            spin_until(|| notifier_mask() == blocked);
        };
        let receiver = receiver(USR1);
        waits_with(USR1);
        let all = !NOT_TO_BE_SUBSCRIBED;
        for signal in all {
            receiver.enable(signal.into()).unwrap();
            waits_with(USR1.with(signal));
            receiver.disable(signal.into());
            receiver.enable(USR1).unwrap();
            waits_with(USR1);
        }
        receiver.enable(all).unwrap();
        waits_with(all);
        drop(receiver);
        waits_with(SigSet::EMPTY);
    });
}

/// The callback leaves the pipe never empty, so that the notifier never waits.
#[test]
fn a_signal_that_the_notifier_alone_takes_arrives_while_others_fill_the_pipe() {
    alone("a_signal_that_the_notifier_alone_takes_arrives_while_others_fill_the_pipe", || {
        static FILL: AtomicBool = AtomicBool::new(true);
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        let subscription = Subscription::new(USR1, |_| {
            if FILL.load(Ordering::Relaxed) {
                raw_mask(libc::SIG_UNBLOCK, USR1);
                send::tgkill(Signal::USR1);
                raw_mask(libc::SIG_BLOCK, USR1);
            }
        });
        send::kill(Signal::USR1);
        let term = receiver(Signal::TERM.into());
        for _ in 0..100 {
            send::kill(Signal::TERM);
            assert_eq!(term.recv_timeout(Duration::from_secs(10)).expect("it is let in").signal(), Signal::TERM);
        }
        FILL.store(false, Ordering::Relaxed);
        drop(subscription);
    });
}

/// The C libraries do not agree on its sign.
#[cfg(target_env = "musl")]
type Resource = i32;
#[cfg(not(target_env = "musl"))]
type Resource = u32;

/// Sets a soft limit and returns the one before.
fn limit(resource: Resource, soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, soft);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
    before
}

/// A subscription fails with one of these numbers, and changes nothing.
fn refused(expected: &[i32]) {
    let before = mask::current();
    let owned = Arc::new(());
    let kept = owned.clone();
    let error = Subscription::closure(USR1, move |_| _ = Arc::strong_count(&kept)).unwrap_err();
    assert_eq!(Arc::strong_count(&owned), 1, "the closure is dropped, once");
    assert!(matches!(error, NotifyError::System(number) if expected.contains(&number)), "{error:?}");
    assert_eq!((Disposition::of(Signal::USR1), subscribed(), mask::current()), (Disposition::DEFAULT, SigSet::EMPTY, before));
}

#[test]
fn a_subscription_without_memory_for_the_thread_changes_nothing() {
    alone("a_subscription_without_memory_for_the_thread_changes_nothing", || {
        // Less than the smallest stack of any C library: musl's are of 128 KiB.
        let before = limit(libc::RLIMIT_AS, mapped_pages() as u64 * 4096 + (64 << 10));
        let mask = kernel_mask();
        critical(|_| refused(&[libc::ENOMEM, libc::EAGAIN]));
        assert_eq!(kernel_mask(), mask);
        refused(&[libc::ENOMEM, libc::EAGAIN]);
        limit(libc::RLIMIT_AS, before);
        let kept = receiver(USR1);
        send::kill(Signal::USR1);
        assert_eq!(next(&kept).signal(), Signal::USR1);
    });
}

#[test]
fn a_subscription_that_the_system_refuses_changes_nothing() {
    alone("a_subscription_that_the_system_refuses_changes_nothing", || {
        // No descriptor for the pipe.
        let before = limit(libc::RLIMIT_NOFILE, 3);
        refused(&[libc::EMFILE]);
        critical(|_| refused(&[libc::EMFILE]));
        limit(libc::RLIMIT_NOFILE, before);
        let kept = receiver(USR2);
        let before = limit(libc::RLIMIT_NOFILE, 3);
        assert_eq!(Receiver::new(USR1, 1).err(), Some(NotifyError::System(libc::EMFILE)));
        limit(libc::RLIMIT_NOFILE, before);
        send::kill(Signal::USR2);
        assert_eq!(next(&kept).signal(), Signal::USR2);
    });
}

#[test]
fn subscriptions_work_in_regions_and_with_everything_blocked() {
    alone("subscriptions_work_in_regions_and_with_everything_blocked", || {
        for blocked in [SigSet::EMPTY, SigSet::FULL] {
            raw_mask(libc::SIG_SETMASK, blocked);
            for form in Form::ALL {
                let before = kernel_mask();
                let kept = form.run(|| {
                    let kept = receiver(USR1.with(RT));
                    for signal in [Signal::USR1, RT] {
                        send::kill(signal);
                        assert_eq!(next(&kept).signal(), signal, "{form:?}: received in the region");
                    }
                    receiver(USR2).enable(Signal::HUP.into()).unwrap();
                    kept
                });
                assert_eq!((kernel_mask(), subscribed()), (before, USR1.with(RT)), "{form:?}");
                expect_nothing(&kept);
            }
        }
    });
}

#[test]
fn every_child_of_several_is_found() {
    alone("every_child_of_several_is_found", || {
        let receiver = receiver(Signal::CHLD.into());
        let mut children: Vec<_> = (0..20).map(|_| fork_child(|| ())).collect();
        while !children.is_empty() {
            assert_eq!(next(&receiver).signal(), Signal::CHLD);
            let mut status = 0;
            // SAFETY: the pointer is to a live value.
            children.retain(|child| unsafe { libc::waitpid(*child, &raw mut status, libc::WNOHANG) } == 0);
        }
    });
}

#[test]
fn a_fork_s_child_has_subscriptions_of_its_own() {
    alone("a_fork_s_child_has_subscriptions_of_its_own", || {
        static CALLS: AtomicI32 = AtomicI32::new(0);
        log_runs(Signal::USR1);
        Disposition::IGNORE.install(Signal::USR2);
        let parents = receiver(USR1 | USR2 | Signal::TERM.into());
        let subscription = Subscription::new(USR1 | USR2, |_| _ = CALLS.fetch_add(1, Ordering::Relaxed)).unwrap();
        let child = fork_child(move || {
            assert_eq!(subscribed(), SigSet::EMPTY);
            send::kill(Signal::USR1);
            assert_eq!(log::take().len(), 1, "the handler from before the subscription");
            send::kill(Signal::USR2);
            assert!(parents.try_recv().is_none() && parents.recv().is_none());
            assert_eq!(parents.enable(USR2).err(), Some(NotifyError::Forked));
            parents.disable(USR1);
            drop((parents, subscription));
            let own = receiver(USR2);
            for _ in 0..100 {
                send::kill(Signal::USR2);
                assert_eq!(next(&own).signal(), Signal::USR2);
            }
            assert_eq!(CALLS.load(Ordering::Relaxed), 0);
        });
        expect_success(child);
        let status = reap(fork_child(|| {
            raw_mask(libc::SIG_SETMASK, SigSet::EMPTY);
            send::kill(Signal::TERM);
        }));
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "the default action: {status:#x}");
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    });
}
