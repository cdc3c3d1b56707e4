//! The notifier's thread among others: their masks and its own, regions, children.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use sigsafe_core::notifier::{NotifyError, Subscription, subscribed};
use sigsafe_core::{SigSet, Signal, critical, mask, thread};
use support::notify::{NOT_TO_BE_SUBSCRIBED, expect_nothing, next, notifier_mask, receiver};
use support::{Disposition, Form, RT, alone, expect_success, fork_child, kernel_mask, raw_mask, send, spin_until};

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
        Disposition::IGNORE.install(Signal::USR2);
        let parents = receiver(USR1 | USR2);
        let subscription = Subscription::new(USR1 | USR2, |_| _ = CALLS.fetch_add(1, Ordering::Relaxed)).unwrap();
        let child = fork_child(move || {
            assert_eq!(subscribed(), SigSet::EMPTY);
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
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    });
}
