//! Waiters and signals: a parked waiter takes them, one inside an outer region does not, and `errno` stays what it was.

mod support;

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};

use sigsafe_core::handler::{Delivery, Handler, HandlerFn};
use sigsafe_core::{Backend, DeferredCounter, FullSyscall, Signal, critical};
use sigsafe_mutex::{Mutex, MutexGuard, SpinMutex};
use support::{errno, gettid, is_held_back, is_parked, tgkill, until, watchdog};

fn install(once: &Once, signal: Signal, handler: HandlerFn) {
    watchdog();
    once.call_once(|| {
        // SAFETY: the handlers of this file touch atomics and sigsafe locks.
        unsafe { Handler::new(handler).install(signal) }.expect("the signal can be handled");
    });
}

/// Takes `mutex`, waits until a second thread is parked on it, and calls `meanwhile` with that thread's number and the guard; then
/// releases it. The second thread runs `wait`, which publishes its number just before it locks.
///
/// The thread is started before the lock is taken: one that is started inside a full-mask region inherits its mask and is deaf.
fn with_waiter<'m, B: Backend>(
    mutex: &'m Mutex<u32, B>,
    wait: impl Fn(&AtomicI32) + Sync,
    meanwhile: impl FnOnce(i32, MutexGuard<'m, u32, B>),
) {
    let taken = AtomicBool::new(false);
    let tid = AtomicI32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the lock is taken", || taken.load(SeqCst));
            wait(&tid);
        });
        let guard = mutex.lock();
        taken.store(true, SeqCst);
        until("the waiter parks", || tid.load(SeqCst) != 0 && is_parked(tid.load(SeqCst)));
        meanwhile(tid.load(SeqCst), guard);
    });
}

fn a_parked_waiter_takes_signals<B: Backend>(signal: Signal, once: &Once, runs: &AtomicU32, handler: HandlerFn) {
    install(once, signal, handler);
    let mutex = Mutex::<u32, B>::with_backend(0);
    let waited = AtomicBool::new(false);
    with_waiter(
        &mutex,
        |tid| {
            tid.store(gettid(), SeqCst);
            *mutex.lock() += 1;
            waited.store(true, SeqCst);
        },
        |tid, _guard| {
            for sent in 0..20 {
                tgkill(tid, signal.number());
                until("the handler runs on the waiter", || runs.load(SeqCst) == sent + 1);
                until("the waiter parks again", || is_parked(tid));
                assert!(!waited.load(SeqCst), "a signal ended the wait without the lock");
            }
        },
    );
    assert_eq!(*mutex.lock(), 1);
}

#[test]
fn a_parked_waiter_takes_signals_with_the_deferred_backend() {
    static ONCE: Once = Once::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    a_parked_waiter_takes_signals::<DeferredCounter>(Signal::USR1, &ONCE, &RUNS, |_| {
        // Outside every region, and not deferred: a run that was held back would say so.
        assert_unless_in_region();
        RUNS.fetch_add(1, SeqCst);
    });
}

#[test]
fn a_parked_waiter_takes_signals_with_the_full_backend() {
    static ONCE: Once = Once::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    a_parked_waiter_takes_signals::<FullSyscall>(Signal::USR2, &ONCE, &RUNS, |_| {
        assert_unless_in_region();
        RUNS.fetch_add(1, SeqCst);
    });
}

/// For handlers, where a panic has no place.
fn assert_unless_in_region() {
    if sigsafe_core::in_region() {
        sigsafe_core::fatal(&["test: the waiter's handler runs inside a region"]);
    }
}

#[test]
fn under_an_outer_region_the_waiter_waits_inside_it_and_signals_wait_with_it() {
    static ONCE: Once = Once::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::URG;
    install(&ONCE, SIGNAL, |_| {
        RUNS.fetch_add(1, SeqCst);
    });
    let mutex: Mutex<u32> = Mutex::new(0);
    with_waiter(
        &mutex,
        |tid| {
            critical(|_| {
                tid.store(gettid(), SeqCst);
                *mutex.lock() += 1;
                assert_eq!(RUNS.load(SeqCst), 0, "the lock's region ended, the outer one had not");
            });
            assert_eq!(RUNS.load(SeqCst), 1, "the outer region ended");
        },
        |tid, _guard| {
            tgkill(tid, SIGNAL.number());
            until("the signal is held back", || is_held_back(tid, SIGNAL.number()));
            assert_eq!(RUNS.load(SeqCst), 0);
        },
    );
    assert_eq!(*mutex.lock(), 1);
}

#[test]
fn a_spinning_waiter_takes_signals() {
    static ONCE: Once = Once::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::WINCH;
    install(&ONCE, SIGNAL, |_| {
        RUNS.fetch_add(1, SeqCst);
    });
    let mutex = SpinMutex::new(0);
    let (taken, tid) = (AtomicBool::new(false), AtomicI32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the lock is taken", || taken.load(SeqCst));
            tid.store(gettid(), SeqCst);
            *mutex.lock() += 1;
        });
        let guard = mutex.lock();
        taken.store(true, SeqCst);
        until("the waiter is about to spin", || tid.load(SeqCst) != 0);
        for sent in 0..20 {
            tgkill(tid.load(SeqCst), SIGNAL.number());
            until("the handler runs on the waiter", || RUNS.load(SeqCst) == sent + 1);
        }
        drop(guard);
    });
    assert_eq!(mutex.into_inner(), 1);
}

#[test]
fn a_handler_may_take_the_lock_that_the_main_flow_waits_for() {
    static ONCE: Once = Once::new();
    static LOCK: Mutex<u32> = Mutex::new(0);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::IO;
    fn on_signal(_: &Delivery<'_>) {
        *LOCK.lock() += 1;
        RUNS.fetch_add(1, SeqCst);
    }
    install(&ONCE, SIGNAL, on_signal);
    // The handler parks on the same word, above the frame that it interrupted; the release wakes it, and its own release
    // must wake the frame below or leave it a free lock.
    for round in 1..=50 {
        with_waiter(
            &LOCK,
            |tid| {
                tid.store(gettid(), SeqCst);
                *LOCK.lock() += 1;
            },
            |tid, _guard| {
                let before = sleeps(tid);
                tgkill(tid, SIGNAL.number());
                until("the handler parks in its turn", || sleeps(tid) > before && is_parked(tid));
            },
        );
        assert_eq!(RUNS.load(SeqCst), round);
        assert_eq!(*LOCK.lock(), 2 * round);
    }
}

/// How often thread `tid` has gone to sleep of its own will.
fn sleeps(tid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn errno_survives_an_interrupted_wait_and_a_release_that_wakes() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const SIGNAL: Signal = Signal::TERM;
    fn on_signal(_: &Delivery<'_>) {
        RUNS.fetch_add(1, SeqCst);
    }
    watchdog();
    // SAFETY: the handler touches an atomic. Without SA_RESTART the wait ends with EINTR, a value that must not show.
    unsafe { Handler::new(on_signal).restart(false).install(SIGNAL) }.expect("SIGTERM can be handled");

    fn check<B: Backend>() {
        let mutex = Mutex::<u32, B>::with_backend(0);
        with_waiter(
            &mutex,
            |tid| {
                errno().store(78, SeqCst);
                tid.store(gettid(), SeqCst);
                let guard = mutex.lock();
                assert_eq!(errno().load(SeqCst), 78, "{}: parked, interrupted, locked", B::NAME);
                drop(guard);
            },
            |tid, guard| {
                let before = RUNS.load(SeqCst);
                tgkill(tid, SIGNAL.number());
                until("the handler runs on the waiter", || RUNS.load(SeqCst) == before + 1 && is_parked(tid));
                errno().store(79, SeqCst);
                drop(guard);
                assert_eq!(errno().load(SeqCst), 79, "{}: released and woke", B::NAME);
            },
        );
    }
    check::<DeferredCounter>();
    check::<FullSyscall>();
}
