//! Managed handlers and held locks, by a signal that the section raises itself: the handler runs after the release and before
//! the drop returns, whatever the backend, the kind of lock and the order of the drops.

mod support;

use std::mem;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use sigsafe_core::handler::{Delivery, Handler, HandlerFn};
use sigsafe_core::{Backend, DeferredCounter, FullSyscall, Signal};
use sigsafe_mutex::{Mutex, SpinMutex};
use support::{errno, raise, watchdog};

/// A signal number, with a handler of its own, installed once: the tests of this file run side by side in one process.
fn install(once: &Once, signal: Signal, handler: HandlerFn) {
    watchdog();
    once.call_once(|| {
        // SAFETY: the handlers of this file touch atomics, sigsafe locks and `errno`.
        unsafe { Handler::new(handler).install(signal) }.expect("the signal can be handled");
    });
}

/// One test: a section that raises a signal whose handler takes the same lock. A macro, because a handler has no arguments
/// but its signal, so that each lock and backend needs statics of its own.
macro_rules! deferred_until_release {
    ($test:ident, $signal:expr, $lock:ty, $new:expr) => {
        #[test]
        fn $test() {
            static LOCK: $lock = $new;
            static ONCE: Once = Once::new();
            static RUNS: AtomicU32 = AtomicU32::new(0);
            install(&ONCE, $signal, |_: &Delivery<'_>| {
                *LOCK.lock() += 1;
                RUNS.fetch_add(1, SeqCst);
            });
            for round in 0..100 {
                let guard = LOCK.lock();
                raise($signal.number());
                assert_eq!(RUNS.load(SeqCst), round, "the handler ran while the lock was held");
                assert_eq!(*guard, round);
                drop(guard);
                assert_eq!(RUNS.load(SeqCst), round + 1, "the handler had not run when the drop returned");
                assert_eq!(*LOCK.lock(), round + 1);
            }
            assert!(!sigsafe_core::in_region());
        }
    };
}

const RT0: Signal = match Signal::new(40) {
    Ok(signal) => signal,
    Err(_) => panic!("40 is a real-time signal"),
};

deferred_until_release!(mutex_defers, Signal::USR1, Mutex<u32>, Mutex::new(0));
deferred_until_release!(mutex_defers_with_the_full_backend, Signal::USR2, Mutex<u32, FullSyscall>, Mutex::with_backend(0));
deferred_until_release!(spin_mutex_defers, Signal::URG, SpinMutex<u32>, SpinMutex::new(0));
deferred_until_release!(
    spin_mutex_defers_with_the_full_backend,
    Signal::WINCH,
    SpinMutex<u32, FullSyscall>,
    SpinMutex::with_backend(0)
);
deferred_until_release!(mutex_defers_a_real_time_signal, RT0, Mutex<u32>, Mutex::new(0));

#[test]
fn guards_are_dropped_in_any_order() {
    static ONCE: Once = Once::new();
    static A: Mutex<u32> = Mutex::new(0);
    static B: Mutex<u32, FullSyscall> = Mutex::with_backend(0);
    static C: SpinMutex<u32> = SpinMutex::new(0);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::CHLD;
    install(&ONCE, SIGNAL, |_| {
        *A.lock() += 1;
        *B.lock() += 1;
        *C.lock() += 1;
        RUNS.fetch_add(1, SeqCst);
    });

    // Every order of dropping three guards, with a signal after each drop but the last.
    let mut runs = 0;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut a, mut b, mut c) = (Some(A.lock()), Some(B.lock()), Some(C.lock()));
        for (dropped, which) in order.into_iter().enumerate() {
            raise(SIGNAL.number());
            assert_eq!(RUNS.load(SeqCst), runs, "order {order:?}, {dropped} dropped: the handler ran under a lock");
            match which {
                0 => a = None,
                1 => b = None,
                _ => c = None,
            }
        }
        runs += 1; // Legacy signals do not queue: three sent, one handled.
        assert_eq!(RUNS.load(SeqCst), runs, "order {order:?}: all released, the handler has run");
        assert!(a.is_none() && b.is_none() && c.is_none());
        raise(SIGNAL.number());
        runs += 1;
        assert_eq!(RUNS.load(SeqCst), runs, "order {order:?}: the thread is not deaf");
        assert!(!sigsafe_core::in_region());
    }
}

#[test]
fn a_forgotten_guard_leaves_the_lock_held_and_the_thread_in_its_region() {
    static ONCE: Once = Once::new();
    static LOCK: Mutex<u32> = Mutex::new(0);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::IO;
    install(&ONCE, SIGNAL, |_| {
        RUNS.fetch_add(1, SeqCst);
    });
    // The test's thread does not come back from this: it gets one of its own, and nothing is sent to it that matters.
    std::thread::spawn(|| {
        mem::forget(LOCK.lock());
        raise(SIGNAL.number());
        assert_eq!(RUNS.load(SeqCst), 0);
        assert!(LOCK.is_locked() && LOCK.is_owned() && sigsafe_core::in_region());
    })
    .join()
    .expect("the thread's assertions hold");
    assert!(LOCK.is_locked() && !LOCK.is_owned() && !sigsafe_core::in_region());
}

#[test]
fn errno_survives_a_pair_that_ends_with_a_handler() {
    static ONCE: Once = Once::new();
    const SIGNAL: Signal = Signal::PROF;
    install(&ONCE, SIGNAL, |_| errno().store(99, SeqCst));
    fn check<B: Backend>() {
        let mutex = Mutex::<(), B>::with_backend(());
        errno().store(77, SeqCst);
        let guard = mutex.lock();
        raise(SIGNAL.number());
        drop(guard);
        assert_eq!(errno().load(SeqCst), 77, "{}", B::NAME);
    }
    check::<DeferredCounter>();
    check::<FullSyscall>();
}
