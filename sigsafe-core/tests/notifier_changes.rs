//! Subscriptions that come and go while signals arrive: what is in force when a call returns, and that no signal falls between.

mod support;

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use sigsafe_core::notifier::{self, Receiver, Subscription, subscribed};
use sigsafe_core::{SigInfo, SigSet, Signal, critical};
use support::notify::{notifier_mask, send_values, value};
use support::{Disposition, RT, alone, expect_success, fork_child, log, raw_mask, send, spin_until};

const USR1: SigSet = SigSet::EMPTY.with(Signal::USR1);
const TERM: SigSet = SigSet::EMPTY.with(Signal::TERM);

/// The default action of SIGTERM is death; of the two masks, one has this thread take it and one the notifier's.
#[test]
fn enable_is_in_force_when_it_returns() {
    alone("enable_is_in_force_when_it_returns", || {
        let receiver = Receiver::new(SigSet::EMPTY, 4).unwrap();
        for round in 0..4000 {
            raw_mask(libc::SIG_SETMASK, if round % 2 == 0 { SigSet::EMPTY } else { SigSet::FULL });
            receiver.enable(TERM).unwrap();
            send::kill(Signal::TERM);
            receiver.disable(TERM);
            assert_eq!(receiver.try_recv().expect("it had arrived before disable").signal(), Signal::TERM, "{round}");
            assert_eq!((subscribed(), Disposition::of(Signal::TERM)), (SigSet::EMPTY, Disposition::DEFAULT));
            assert!(receiver.try_recv().is_none());
        }
    });
}

#[test]
fn nothing_is_let_in_after_disable() {
    alone("nothing_is_let_in_after_disable", || {
        let receiver = Receiver::new(USR1, 4).unwrap();
        for _ in 0..500 {
            receiver.enable(TERM).unwrap();
            spin_until(|| !notifier_mask().contains(Signal::TERM));
            receiver.disable(TERM);
            assert!(notifier_mask().contains(Signal::TERM));
        }
    });
}

/// A process that sends what `send` sends until this is dropped.
struct Sender(libc::pid_t);

impl Sender {
    fn new(mut send: impl FnMut(libc::pid_t)) -> Sender {
        let parent = send::process();
        Sender(fork_child(|| {
            loop {
                send(parent);
            }
        }))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not reaped.
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGKILL) }, 0);
        support::reap(self.0);
    }
}

/// Its default action would be death, also in the notifier, which alone lets it in.
#[test]
fn a_signal_blocked_everywhere_else_does_not_kill_between_subscriptions() {
    alone("a_signal_blocked_everywhere_else_does_not_kill_between_subscriptions", || {
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        // SAFETY: the call takes no pointer.
        let _sender = Sender::new(|parent| assert_eq!(unsafe { libc::kill(parent, libc::SIGTERM) }, 0));
        let receiver = Receiver::new(SigSet::EMPTY, 4).unwrap();
        for _ in 0..2000 {
            receiver.enable(TERM).unwrap();
            assert_eq!(receiver.recv().unwrap().signal(), Signal::TERM);
            receiver.disable(TERM);
            while receiver.try_recv().is_some() {}
        }
    });
}

static VALUES: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn keep_value(info: &SigInfo) {
    VALUES.lock().unwrap().push(value(info));
}

fn values() -> usize {
    VALUES.lock().unwrap().len()
}

#[test]
fn real_time_values_arrive_complete_and_in_order_while_subscriptions_come_and_go() {
    alone("real_time_values_arrive_complete_and_in_order_while_subscriptions_come_and_go", || {
        const COUNT: i32 = 20_000;
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        let sender = send_values(COUNT);
        let subscription = Subscription::new(RT.into(), keep_value).unwrap();
        while values() < COUNT as usize {
            subscription.disable(RT.into());
            let before = values();
            subscription.enable(RT.into()).unwrap();
            spin_until(|| values() > before || values() == COUNT as usize);
        }
        assert!(VALUES.lock().unwrap().iter().copied().eq(0..COUNT));
        assert_eq!(notifier::lost(), 0);
        expect_success(sender);
    });
}

static ENDED: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn fail_after_the_end(_: &SigInfo) {
    for _ in 0..100 {
        assert!(!ENDED.load(Ordering::SeqCst), "called after the subscription's end");
    }
    CALLS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn no_callback_runs_after_its_subscription_has_ended() {
    alone("no_callback_runs_after_its_subscription_has_ended", || {
        let _other = Subscription::new(USR1, |_| ()).unwrap();
        // SAFETY: the call takes no pointer.
        let _sender = Sender::new(|parent| assert_eq!(unsafe { libc::kill(parent, libc::SIGUSR1) }, 0));
        let kept = Subscription::new(SigSet::EMPTY, fail_after_the_end).unwrap();
        for round in 0..300 {
            let calls = CALLS.load(Ordering::SeqCst);
            ENDED.store(false, Ordering::SeqCst);
            let dropped = Subscription::new(if round % 2 == 0 { USR1 } else { SigSet::EMPTY }, fail_after_the_end).unwrap();
            kept.enable(if round % 2 == 0 { SigSet::EMPTY } else { USR1 }).unwrap();
            spin_until(|| CALLS.load(Ordering::SeqCst) > calls);
            drop(dropped);
            kept.disable(USR1);
            ENDED.store(true, Ordering::SeqCst);
        }
    });
}

/// A subscription that its own callback can reach.
static OWN: AtomicPtr<Subscription> = AtomicPtr::new(std::ptr::null_mut());

fn own(make: impl FnOnce() -> Subscription) {
    OWN.store(Box::into_raw(Box::new(make())), Ordering::SeqCst);
}

fn take_own() -> Option<Box<Subscription>> {
    let own = OWN.swap(std::ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: what is there is a box that nobody else takes.
    (!own.is_null()).then(|| unsafe { Box::from_raw(own) })
}

fn end_itself(_: &SigInfo) {
    if let Some(own) = take_own() {
        drop(own);
        assert_eq!(Disposition::of(Signal::USR1), Disposition::IGNORE, "in force at once");
        assert!(notifier_mask().contains(Signal::USR1));
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_callback_may_end_its_own_subscription() {
    alone("a_callback_may_end_its_own_subscription", || {
        Disposition::IGNORE.install(Signal::USR1);
        for round in 0..500 {
            own(|| Subscription::new(USR1, end_itself).unwrap());
            // The second finds the signal ignored, or a record of it that nobody wants.
            send::kill(Signal::USR1);
            send::kill(Signal::USR1);
            spin_until(|| CALLS.load(Ordering::SeqCst) > round);
        }
        let receiver = Receiver::new(USR1, 4).unwrap();
        send::kill(Signal::USR1);
        spin_until(|| receiver.recv().is_some());
    });
}

/// Each call subscribes anew, twice, and ends one of the two before.
fn subscribe_again(_: &SigInfo) {
    let made = Subscription::new(TERM.with(Signal::USR1), subscribe_again).unwrap();
    drop(Subscription::new(Signal::USR2.into(), |_| ()).unwrap());
    made.disable(TERM);
    drop(take_own());
    own(|| made);
    CALLS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_callback_may_subscribe_and_end_others() {
    alone("a_callback_may_subscribe_and_end_others", || {
        own(|| Subscription::new(USR1, subscribe_again).unwrap());
        for round in 0..500 {
            send::kill(Signal::USR1);
            spin_until(|| CALLS.load(Ordering::SeqCst) == round + 1);
            // While the notifier is in a callback or near one, this thread subscribes and ends too.
            drop(Receiver::new(TERM, 1).unwrap());
        }
        drop(take_own());
        assert_eq!((subscribed(), Disposition::of(Signal::USR1)), (SigSet::EMPTY, Disposition::DEFAULT));
    });
}

#[test]
fn threads_subscribe_at_the_same_time() {
    alone("threads_subscribe_at_the_same_time", || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let own = Signal::real_time(thread).unwrap();
                    for round in 0..300 {
                        let receiver = Receiver::new(own.into(), 8).unwrap();
                        let _both = Subscription::new(USR1.with(own), |_| ()).unwrap();
                        critical(|_| send::sigqueue(own, round));
                        assert_eq!(value(&receiver.recv().unwrap()), round);
                        assert!(subscribed().contains(own));
                    }
                });
            }
        });
        assert_eq!(subscribed(), SigSet::EMPTY);
        (0..4).for_each(|thread| assert_eq!(Disposition::of(Signal::real_time(thread).unwrap()), Disposition::DEFAULT));
    });
}

static GATE: Mutex<()> = Mutex::new(());
static AT_THE_GATE: AtomicUsize = AtomicUsize::new(0);

fn wait_at_the_gate(_: &SigInfo) {
    AT_THE_GATE.fetch_add(1, Ordering::SeqCst);
    drop(GATE.lock().unwrap());
}

#[test]
fn a_full_pipe_merges_signals_and_counts_real_time_ones() {
    alone("a_full_pipe_merges_signals_and_counts_real_time_ones", || {
        const COUNT: i32 = 2000;
        let gate = Subscription::new(Signal::URG.into(), wait_at_the_gate).unwrap();
        let receiver = Receiver::new(USR1.with(RT), COUNT as usize).unwrap();
        for round in 1..4 {
            let lost = notifier::lost();
            let closed = GATE.lock().unwrap();
            send::kill(Signal::URG);
            spin_until(|| AT_THE_GATE.load(Ordering::SeqCst) == round);
            (0..COUNT).for_each(|value| send::sigqueue(RT, value));
            let dropped = notifier::lost() - lost;
            assert!(dropped > 0 && dropped < COUNT as u64 - 100, "{dropped}");
            (0..10).for_each(|_| send::kill(Signal::USR1));
            drop(closed);
            // Those for which there was room, and one more for the ten that merged, somewhere among them.
            let infos = Vec::from_iter((dropped..COUNT as u64 + 1).map(|_| receiver.recv().unwrap()));
            let (values, merged): (Vec<_>, Vec<_>) = infos.iter().partition(|info| info.signal() == RT);
            assert!(values.into_iter().map(value).eq(0..COUNT - dropped as i32), "the oldest, in order");
            assert!(merged.len() == 1 && merged[0].signal() == Signal::USR1);
            receiver.disable(SigSet::FULL);
            assert!(receiver.try_recv().is_none(), "no more of them");
            receiver.enable(USR1.with(RT)).unwrap();
        }
        drop(gate);
    });
}

/// Many times what the pipe holds, of several numbers.
#[test]
fn what_nobody_else_takes_waits_in_the_kernel_and_is_not_lost() {
    alone("what_nobody_else_takes_waits_in_the_kernel_and_is_not_lost", || {
        const COUNT: i32 = 1000;
        let numbers = [RT, Signal::real_time(4).unwrap(), Signal::real_time(5).unwrap()];
        raw_mask(libc::SIG_BLOCK, SigSet::FULL);
        let receiver = Receiver::new(numbers.into_iter().collect(), 3 * COUNT as usize).unwrap();
        let _gate = Subscription::new(Signal::URG.into(), wait_at_the_gate).unwrap();
        let closed = GATE.lock().unwrap();
        send::kill(Signal::URG);
        spin_until(|| AT_THE_GATE.load(Ordering::SeqCst) == 1);
        (0..COUNT).for_each(|value| numbers.iter().for_each(|signal| send::sigqueue(*signal, value)));
        drop(closed);
        let infos = Vec::from_iter((0..3 * COUNT).map_while(|_| receiver.recv_timeout(Duration::from_secs(10))));
        assert_eq!((infos.len(), notifier::lost(), receiver.lost()), (3 * COUNT as usize, 0, 0));
        for signal in numbers {
            assert!(infos.iter().filter(|info| info.signal() == signal).map(value).eq(0..COUNT), "{signal}: in order");
        }
    });
}

/// A callback that takes long, while another thread wants to end its subscription.
#[test]
fn disable_waits_for_the_callback_that_is_running() {
    alone("disable_waits_for_the_callback_that_is_running", || {
        let subscription = Subscription::new(USR1, |info| {
            wait_at_the_gate(info);
            CALLS.fetch_add(1, Ordering::SeqCst);
        });
        let subscription = subscription.unwrap();
        let closed = GATE.lock().unwrap();
        send::kill(Signal::USR1);
        let (done, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(subscription);
                done.send(CALLS.load(Ordering::SeqCst)).unwrap();
            });
            let start = Instant::now();
            assert!(ended.recv_timeout(Duration::from_millis(100)).is_err() && start.elapsed() >= Duration::from_millis(100));
            drop(closed);
            assert_eq!(ended.recv().unwrap(), 1);
        });
        assert_eq!(log::count(), 0);
    });
}
