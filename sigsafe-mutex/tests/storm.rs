//! Signals and contention together: threads fight for one lock, a sender interrupts them all over, and the handler takes the same
//! lock. A wake-up that is lost between a waiter and its handler, or a handler inside the section, does not get to the end.

mod support;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use sigsafe_core::handler::{Delivery, Handler, HandlerFn};
use sigsafe_core::{FullSyscall, Signal};
use sigsafe_mutex::{Mutex, SpinMutex};
use support::{gettid, tgkill, until, watchdog};

const THREADS: usize = 3;
/// What each thread does at least, and how many handler runs the storm has at least.
const ROUNDS: u64 = 5_000;
const RUNS_AT_LEAST: u64 = 200;

/// Two numbers that are equal whenever nobody is in the section.
type Pair = [u64; 2];

/// Adds one to both, and says that the section was torn if they differ: a second owner, or a handler in mid-section.
fn add_one(pair: &mut Pair) {
    pair[0] += 1;
    std::hint::black_box(&mut *pair);
    pair[1] += 1;
    if pair[0] != pair[1] {
        sigsafe_core::fatal(&["test: two frames were in one section"]);
    }
}

/// The storm: `add` takes the lock and adds one, in the main flow of each thread; so does the handler, which counts `runs`.
/// Returns how often the threads added, handlers not counted.
fn storm(signal: Signal, handler: HandlerFn, runs: &AtomicU64, add: fn()) -> u64 {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog();
    // SAFETY: the handlers of this file touch atomics and sigsafe locks.
    unsafe { Handler::new(handler).install(signal) }.expect("the signal can be handled");

    let stop = AtomicBool::new(false);
    let tids: [AtomicI32; THREADS] = Default::default();
    let (added, finished) = (AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for tid in &tids {
            scope.spawn(|| {
                tid.store(gettid(), SeqCst);
                let mut rounds = 0;
                while rounds < ROUNDS || runs.load(SeqCst) < RUNS_AT_LEAST {
                    add();
                    rounds += 1;
                }
                added.fetch_add(rounds, SeqCst);
                finished.fetch_add(1, SeqCst);
                // Signals are still on their way to this thread: it stays until the sender has stopped.
                until("the sender stops", || stop.load(SeqCst));
            });
        }
        for tid in tids.iter().cycle() {
            if finished.load(SeqCst) == THREADS {
                break;
            }
            until("the thread runs", || tid.load(SeqCst) != 0);
            tgkill(tid.load(SeqCst), signal.number());
            std::thread::yield_now();
        }
        stop.store(true, SeqCst);
    });
    added.into_inner()
}

macro_rules! storms {
    ($($test:ident, $signal:expr, $lock:ty, $new:expr;)+) => {
        $(#[test]
        fn $test() {
            static LOCK: $lock = $new;
            static RUNS: AtomicU64 = AtomicU64::new(0);
            fn on_signal(_: &Delivery<'_>) {
                add_one(&mut LOCK.lock());
                RUNS.fetch_add(1, SeqCst);
            }
            let added = storm($signal, on_signal, &RUNS, || add_one(&mut LOCK.lock()));
            // Every thread is gone, and with them every signal: each handler run has added one, too.
            assert_eq!(*LOCK.lock(), [added + RUNS.load(SeqCst); 2]);
        })+
    };
}

storms! {
    mutex_deferred, Signal::USR1, Mutex<Pair>, Mutex::new([0; 2]);
    mutex_full, Signal::USR2, Mutex<Pair, FullSyscall>, Mutex::with_backend([0; 2]);
    spin_deferred, Signal::URG, SpinMutex<Pair>, SpinMutex::new([0; 2]);
    spin_full, Signal::WINCH, SpinMutex<Pair, FullSyscall>, SpinMutex::with_backend([0; 2]);
}
