//! Exclusion between threads, and no lost wake-ups: plain counters behind every lock, with enough contention to park.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use sigsafe_core::{Backend, DefaultBackend, FullSyscall};
use sigsafe_mutex::{Mutex, RawMutex, SpinMutex, TryLockError, lock_api};
use support::{gettid, is_parked, until, watchdog};

const THREADS: u32 = 4;
const ROUNDS: u32 = 5_000;

/// Runs `round` on each of the threads, `ROUNDS` times, with its number.
fn contend(round: impl Fn(u32) + Sync) {
    watchdog();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..ROUNDS).for_each(&round));
        }
    });
}

/// Adds one in two steps, so that two threads in the section at once lose a count; now and then the owner gives up the
/// processor in between, so that the others park.
fn add_slowly(count: &mut u32, round: u32) {
    let seen = *count;
    if round.is_multiple_of(16) {
        std::thread::yield_now();
    }
    *std::hint::black_box(count) = seen + 1;
}

fn mutex_excludes<B: Backend>() {
    let mutex = Mutex::<u32, B>::with_backend(0);
    contend(|round| add_slowly(&mut mutex.lock(), round));
    assert_eq!(mutex.into_inner(), THREADS * ROUNDS);
}

#[test]
fn mutex_excludes_with_the_deferred_backend() {
    mutex_excludes::<DefaultBackend>();
}

#[test]
fn mutex_excludes_with_the_full_backend() {
    mutex_excludes::<FullSyscall>();
}

#[test]
fn try_lock_excludes_and_never_claims_another_threads_lock() {
    let mutex = Mutex::new(0);
    contend(|round| {
        loop {
            match mutex.try_lock() {
                Ok(mut count) => break add_slowly(&mut count, round),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(mutex.into_inner(), THREADS * ROUNDS);
}

#[test]
fn spin_mutex_excludes_with_both_backends() {
    fn check<B: Backend>() {
        let mutex = SpinMutex::<u32, B>::with_backend(0);
        contend(|round| add_slowly(&mut mutex.lock(), round));
        assert_eq!(mutex.into_inner(), THREADS * ROUNDS);
    }
    check::<DefaultBackend>();
    check::<FullSyscall>();
}

#[test]
fn raw_mutex_works_under_lock_api() {
    static SHARED: lock_api::Mutex<RawMutex, u32> = lock_api::Mutex::new(0);
    contend(|round| add_slowly(&mut SHARED.lock(), round));
    assert_eq!(*SHARED.lock(), THREADS * ROUNDS);

    let guard = SHARED.lock();
    assert!(SHARED.is_locked());
    assert!(SHARED.try_lock().is_none(), "lock_api's bool says no, whoever the owner is");
    drop(guard);
    assert!(!SHARED.is_locked());
}

#[test]
fn every_parked_thread_is_woken_in_its_turn() {
    watchdog();
    // All of them are parked before the lock is released once: a release that wakes nobody, or an owner that forgets that
    // others wait, leaves the rest asleep for good.
    for _ in 0..50 {
        let mutex = Mutex::new(0);
        let tids: [AtomicU32; 3] = Default::default();
        std::thread::scope(|scope| {
            let guard = mutex.lock();
            for tid in &tids {
                let mutex = &mutex;
                scope.spawn(move || {
                    tid.store(gettid() as u32, SeqCst);
                    *mutex.lock() += 1;
                });
            }
            for tid in &tids {
                until("a waiter parks", || {
                    let tid = tid.load(SeqCst);
                    tid != 0 && is_parked(tid as i32)
                });
            }
            drop(guard);
        });
        assert_eq!(mutex.into_inner(), 3);
    }
}

#[test]
fn a_lock_goes_back_and_forth_without_a_lost_wake_up() {
    watchdog();
    // Two threads pass a turn to each other through the lock, parking on it whenever the other is in the section.
    let turn = Mutex::new(0_u32);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                drop(turn.lock());
            }
        });
        for _ in 0..50_000 {
            *turn.lock() += 1;
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(turn.into_inner(), 50_000);
}

#[test]
fn a_panic_in_the_section_releases_the_lock_and_leaves_the_region() {
    let mutex = Mutex::new(1);
    let spin = SpinMutex::new(1);
    let section = || {
        let _guards = (mutex.lock(), spin.lock());
        std::panic::resume_unwind(Box::new(()));
    };
    let result: Result<(), _> = std::panic::catch_unwind(std::panic::AssertUnwindSafe(section));
    assert!(result.is_err());
    assert!(!mutex.is_locked() && !spin.is_locked());
    assert!(!sigsafe_core::in_region());
}

#[test]
fn formatting_and_inspection_never_wait() {
    let mut mutex = Mutex::new(5);
    let mut spin = SpinMutex::new(6);
    assert!(format!("{mutex:?}").contains('5'));
    assert!(format!("{spin:?}").contains('6'));
    {
        let (m, s) = (mutex.lock(), spin.lock());
        assert!(format!("{mutex:?}").contains("<locked>"));
        assert!(format!("{spin:?}").contains("<locked>"));
        assert_eq!(format!("{m} {m:?} {s} {s:?}"), "5 5 6 6");
    }
    *mutex.get_mut() += 1;
    *spin.get_mut() += 1;
    assert_eq!((mutex.into_inner(), spin.into_inner()), (6, 7));
    assert_eq!(*Mutex::<u8>::default().lock() + *SpinMutex::<u8>::from(3).lock(), 3);
}

#[test]
fn locks_hold_unsized_data() {
    let boxed: Box<Mutex<[u8]>> = Box::new(Mutex::new([1, 2, 3]));
    boxed.lock()[0] = 9;
    assert_eq!(*boxed.lock(), [9, 2, 3]);
    let boxed: Box<SpinMutex<[u8]>> = Box::new(SpinMutex::new([1, 2, 3]));
    boxed.lock()[0] = 9;
    assert_eq!(*boxed.lock(), [9, 2, 3]);
}
