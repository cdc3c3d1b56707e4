//! What a subscription delivers, to whom, and what it leaves behind.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sigsafe_core::handler::Handler;
use sigsafe_core::notifier::{NotifyError, Receiver, Subscription, subscribed};
use sigsafe_core::{SigInfo, SigSet, Signal, critical, handler_depth, in_handler, in_region};
use support::notify::{NOT_TO_BE_SUBSCRIBED, expect_nothing, next, receiver, value};
use support::{Disposition, RT, SIGNALS, alone, alone_until_death, log, log_runs, manage, raw_mask, send, spin_until};

const USR1: SigSet = SigSet::EMPTY.with(Signal::USR1);
const USR2: SigSet = SigSet::EMPTY.with(Signal::USR2);

#[test]
fn every_signal_that_can_be_subscribed_arrives() {
    alone("every_signal_that_can_be_subscribed_arrives", || {
        for signal in SIGNALS - NOT_TO_BE_SUBSCRIBED {
            let receiver = receiver(signal.into());
            // This thread takes it, and then, blocked here, the notifier's.
            for _ in 0..2 {
                send::kill(signal);
                let info = next(&receiver);
                assert_eq!((info.signal(), info.code()), (signal, libc::SI_USER));
                raw_mask(libc::SIG_BLOCK, SigSet::FULL);
            }
            drop(receiver);
            raw_mask(libc::SIG_SETMASK, SigSet::EMPTY);
        }
        assert_eq!(subscribed(), SigSet::EMPTY);
    });
}

#[test]
fn what_cannot_be_subscribed_is_refused_and_changes_nothing() {
    alone("what_cannot_be_subscribed_is_refused_and_changes_nothing", || {
        let kept = receiver(USR2);
        for signal in NOT_TO_BE_SUBSCRIBED {
            let expected = match signal {
                Signal::KILL | Signal::STOP => NotifyError::Uncatchable(signal),
                _ if SigSet::RESERVED.contains(signal) => NotifyError::Reserved(signal),
                _ => NotifyError::Synchronous(signal),
            };
            let set = USR1.with(signal);
            assert_eq!(Receiver::new(set, 1).err(), Some(expected));
            assert_eq!(Subscription::new(set, |_| ()).err(), Some(expected));
            assert_eq!(kept.enable(set).err(), Some(expected));
            assert_eq!((kept.signals(), subscribed()), (USR2, USR2));
            assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
        }
        assert_eq!(Receiver::new(USR1, usize::MAX).err(), Some(NotifyError::System(libc::EINVAL)));
        send::kill(Signal::USR2);
        assert_eq!(next(&kept).signal(), Signal::USR2);
    });
}

#[test]
fn the_siginfo_arrives_whole() {
    alone("the_siginfo_arrives_whole", || {
        let receiver = receiver(USR1.with(RT));
        for signal in [Signal::USR1, RT] {
            send::sigqueue(signal, 0x1234_5678);
            let info = next(&receiver);
            // SAFETY: SI_QUEUE's siginfo carries pid and uid.
            let sender = unsafe { (info.as_raw().si_pid(), info.as_raw().si_uid()) };
            // SAFETY: the call takes nothing.
            assert_eq!(sender, (send::process(), unsafe { libc::getuid() }));
            assert_eq!((info.signal(), info.code(), value(&info)), (signal, libc::SI_QUEUE, 0x1234_5678));
        }
    });
}

static SHARED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock_and_allocate(info: &SigInfo) {
    assert!(!in_handler() && !in_region() && handler_depth() == 0);
    // SAFETY: zero is a value of every field.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) }, 0);
    assert_eq!(stack.ss_flags, 0, "the thread has an alternate stack");
    SHARED.lock().unwrap().push(format!("{} on {}", info.signal(), send::thread() == send::process()));
}

#[test]
fn a_callback_may_lock_and_allocate() {
    alone("a_callback_may_lock_and_allocate", || {
        let subscription = Subscription::new(USR1, lock_and_allocate).unwrap();
        let held = SHARED.lock().unwrap();
        send::tgkill(Signal::USR1);
        drop(held);
        spin_until(|| SHARED.lock().unwrap().len() == 1);
        assert_eq!(*SHARED.lock().unwrap(), ["SIGUSR1 on false"]);
        drop(subscription);
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

#[test]
fn the_descriptor_is_readable_while_something_is_queued() {
    alone("the_descriptor_is_readable_while_something_is_queued", || {
        let receiver = receiver(RT.into());
        let poll = |milliseconds| {
            let mut entry = libc::pollfd { fd: receiver.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live entry.
            spin_until(|| unsafe { libc::poll(&raw mut entry, 1, milliseconds) } != -1);
            entry.revents == libc::POLLIN
        };
        // SAFETY: the call takes no pointer.
        assert_eq!(unsafe { libc::fcntl(receiver.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert!(!poll(0));
        send::sigqueue(RT, 1);
        send::sigqueue(RT, 2);
        assert!(poll(-1));
        assert_eq!(value(&next(&receiver)), 1);
        assert!(poll(-1));
        assert_eq!(value(&next(&receiver)), 2);
        assert!(!poll(0));
    });
}

fn queued(receiver: &Receiver) -> usize {
    let mut bytes = 0i32;
    // SAFETY: the call writes one int.
    assert_eq!(unsafe { libc::ioctl(receiver.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes as usize / size_of::<libc::siginfo_t>()
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_them() {
    alone("a_full_queue_drops_the_newest_and_counts_them", || {
        for capacity in [1, 3, 31, 33, 1000] {
            let small = Receiver::new(RT.into(), capacity).unwrap();
            for round in 0..3 {
                for value in 0..capacity as i32 + 2 {
                    send::sigqueue(RT, value);
                    // One at a time, or the notifier's pipe may be full before the queue is.
                    spin_until(|| queued(&small) as u64 + small.lost() == value as u64 + 1 + 2 * round);
                }
                let values: Vec<_> = std::iter::from_fn(|| small.try_recv()).map(|info| value(&info)).collect();
                assert!(values.iter().copied().eq(0..capacity as i32), "{values:?} of {capacity}");
            }
        }
        // A pipe frees a page when all of it has been read: one that is always half read holds no less.
        let full = Receiver::new(RT.into(), 32).unwrap();
        (0..32).for_each(|value| send::sigqueue(RT, value));
        for round in 0..100 {
            assert_eq!(value(&next(&full)), round);
            send::sigqueue(RT, round + 32);
        }
        assert_eq!(full.lost(), 0);
    });
}

#[test]
fn a_queue_without_room_and_one_beyond_the_system_s_are_refused() {
    alone("a_queue_without_room_and_one_beyond_the_system_s_are_refused", || {
        let before = Disposition::of(Signal::WINCH);
        assert_eq!(Receiver::new(Signal::WINCH.into(), 0).unwrap_err(), NotifyError::ZeroCapacity);
        for capacity in [usize::MAX, usize::MAX / size_of::<libc::siginfo_t>(), i32::MAX as usize] {
            assert!(matches!(Receiver::new(Signal::WINCH.into(), capacity), Err(NotifyError::System(_))), "{capacity}");
        }
        assert_eq!((Disposition::of(Signal::WINCH), subscribed()), (before, SigSet::EMPTY));
    });
}

#[test]
fn a_limited_wait_ends() {
    alone("a_limited_wait_ends", || {
        let receiver = receiver(USR1);
        assert!(receiver.recv_timeout(Duration::ZERO).is_none());
        let start = std::time::Instant::now();
        assert!(receiver.recv_timeout(Duration::from_millis(30)).is_none());
        assert!(start.elapsed() >= Duration::from_millis(30));
        send::kill(Signal::USR1);
        assert_eq!(receiver.recv_timeout(Duration::MAX).unwrap().signal(), Signal::USR1);
    });
}

#[test]
fn each_of_several_subscribers_is_notified() {
    alone("each_of_several_subscribers_is_notified", || {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let (first, second) = (receiver(USR1), receiver(USR1 | USR2));
        let subscription = Subscription::new(USR1, |_| _ = CALLS.fetch_add(1, Ordering::Relaxed)).unwrap();
        send::kill(Signal::USR1);
        send::kill(Signal::USR2);
        assert_eq!(next(&first).signal(), Signal::USR1);
        assert_eq!((next(&second).signal(), next(&second).signal()), (Signal::USR1, Signal::USR2));
        spin_until(|| CALLS.load(Ordering::Relaxed) == 1);
        drop(first);
        drop(subscription);
        assert_eq!(subscribed(), USR1 | USR2);
        send::kill(Signal::USR1);
        assert_eq!(next(&second).signal(), Signal::USR1);
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    });
}

/// All that the kernel keeps of a disposition.
fn kernel_disposition(signal: Signal) -> [u64; 4] {
    let mut old = [0u64; 4];
    // SAFETY: the kernel writes its 32 bytes.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.number(), std::ptr::null::<u64>(), old.as_mut_ptr(), 8usize) };
    assert_eq!(result, 0);
    old
}

#[test]
fn the_last_subscriber_s_end_restores_the_disposition() {
    alone("the_last_subscriber_s_end_restores_the_disposition", || {
        let foreign = Disposition { flags: libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK, mask: USR2, ..Disposition::plain() };
        for signal in [Signal::USR1, Signal::CHLD, Signal::PIPE, Signal::TSTP, RT] {
            for before in [Disposition::DEFAULT, Disposition::IGNORE, foreign] {
                before.install(signal);
                let exact = kernel_disposition(signal);
                let (first, second) = (receiver(signal.into()), receiver(signal.into()));
                let subscription = Subscription::new(signal.into(), |_| ()).unwrap();
                let ours = kernel_disposition(signal);
                assert_ne!(ours, exact);
                drop(first);
                second.disable(SigSet::FULL);
                assert_eq!(kernel_disposition(signal), ours, "one is left");
                drop(subscription);
                assert_eq!(kernel_disposition(signal), exact, "{signal} {before:?}");
            }
            send::kill(signal);
            assert_eq!(log::take().len(), 1, "{signal}: the foreign handler again");
        }
    });
}

#[test]
fn a_managed_handler_is_back_after_the_subscription() {
    alone("a_managed_handler_is_back_after_the_subscription", || {
        log_runs(Signal::USR1);
        let subscribed = receiver(USR1);
        send::kill(Signal::USR1);
        assert_eq!((next(&subscribed).signal(), log::count()), (Signal::USR1, 0));
        drop(subscribed);
        critical(|_| {
            send::kill(Signal::USR1);
            assert_eq!(log::count(), 0);
        });
        assert_eq!(log::count(), 1);
    });
}

#[test]
fn a_handler_installed_over_the_subscription_stays() {
    alone("a_handler_installed_over_the_subscription_stays", || {
        let receiver = receiver(USR1);
        let over = manage(Handler::new(log::record), Signal::USR1);
        receiver.disable(USR1);
        send::kill(Signal::USR1);
        assert_eq!(log::take().len(), 1);
        expect_nothing(&receiver);
        receiver.enable(USR1).unwrap();
        send::kill(Signal::USR1);
        assert_eq!((next(&receiver).signal(), log::count()), (Signal::USR1, 0));
        receiver.disable(USR1);
        over.remove().unwrap();
    });
}

#[test]
fn a_closure_is_called_and_dropped_with_its_subscription() {
    alone("a_closure_is_called_and_dropped_with_its_subscription", || {
        let calls = Arc::new(Mutex::new(0));
        let count = calls.clone();
        let subscription = Subscription::closure(USR1, move |_| *count.lock().unwrap() += 1).unwrap();
        send::kill(Signal::USR1);
        spin_until(|| *calls.lock().unwrap() == 1);
        drop(subscription);
        assert_eq!(Arc::strong_count(&calls), 1);

        // One that ends its own subscription goes on, with what it owns, until it returns.
        let own = Arc::new(Mutex::new(None));
        let (count, slot) = (calls.clone(), own.clone());
        let end_itself = move |_: &SigInfo| {
            drop(slot.lock().unwrap().take());
            *count.lock().unwrap() += 1;
        };
        let held = own.lock().unwrap();
        let subscription = Subscription::closure(USR1, end_itself).unwrap();
        send::kill(Signal::USR1);
        { held }.replace(subscription);
        spin_until(|| Arc::strong_count(&calls) == 1 && Arc::strong_count(&own) == 1);
        assert_eq!((*calls.lock().unwrap(), subscribed()), (2, SigSet::EMPTY));

        let refused = calls.clone();
        Subscription::closure(Signal::KILL.into(), move |_| drop(refused.lock())).unwrap_err();
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}

#[test]
fn a_callback_that_panics_aborts_the_process() {
    alone_until_death("a_callback_that_panics_aborts_the_process", Signal::ABRT, "as it should", || {
        let _subscription = Subscription::new(USR1, |_| panic!("as it should")).unwrap();
        send::kill(Signal::USR1);
        loop {
            std::thread::park();
        }
    });
}
