//! The implementation of the `critical-section` crate: exclusion between threads and of handlers, and nesting.

mod support;

use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use critical_section::Mutex;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{Signal, critical, in_region, region_depth};
use support::{alone, manage, send, spin_until};

/// Not atomic: what a section must not let in is seen as a lost addition.
static COUNT: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));
static INSIDE: AtomicBool = AtomicBool::new(false);

fn add_one() {
    critical_section::with(|section| {
        assert!(!INSIDE.swap(true, Ordering::Relaxed), "two at once");
        let count = COUNT.borrow(section);
        let value = count.get();
        for _ in 0..20 {
            std::hint::spin_loop();
        }
        count.set(value + 1);
        INSIDE.store(false, Ordering::Relaxed);
    });
}

fn count() -> u64 {
    critical_section::with(|section| COUNT.borrow(section).get())
}

#[test]
fn sections_of_threads_exclude_each_other() {
    alone("sections_of_threads_exclude_each_other", || {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 20_000;
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..ROUNDS).for_each(|_| add_one()));
            }
        });
        assert_eq!(count(), THREADS * ROUNDS);
    });
}

#[test]
fn sections_nest_and_only_the_outermost_opens() {
    alone("sections_nest_and_only_the_outermost_opens", || {
        static OTHER: AtomicU32 = AtomicU32::new(0);
        let inside = Barrier::new(2);
        std::thread::scope(|scope| {
            critical_section::with(|_| {
                critical_section::with(|_| assert_eq!(region_depth(), 2));
                scope.spawn(|| {
                    inside.wait();
                    critical_section::with(|_| OTHER.store(1, Ordering::Relaxed));
                });
                inside.wait();
                for _ in 0..1000 {
                    critical_section::with(|_| ());
                    std::thread::yield_now();
                    assert_eq!(OTHER.load(Ordering::Relaxed), 0, "an inner release has let it in");
                }
            });
            assert!(!in_region());
            spin_until(|| OTHER.load(Ordering::Relaxed) == 1);
        });
    });
}

#[test]
fn a_section_holds_handlers_back_until_the_outermost_release() {
    alone("a_section_holds_handlers_back_until_the_outermost_release", || {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        manage(
            Handler::new(|_: &Delivery<'_>| {
                add_one();
                RUNS.fetch_add(1, Ordering::Relaxed);
            }),
            Signal::USR1,
        );
        critical_section::with(|_| {
            critical_section::with(|_| send::tgkill(Signal::USR1));
            assert_eq!(RUNS.load(Ordering::Relaxed), 0);
        });
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        critical(|_| critical_section::with(|_| send::tgkill(Signal::USR1)));
        assert_eq!((RUNS.load(Ordering::Relaxed), count()), (2, 2));
    });
}

/// Several threads in sections, each with handlers that enter sections, as fast as signals can be sent.
#[test]
fn a_managed_handler_with_a_section_under_a_storm() {
    alone("a_managed_handler_with_a_section_under_a_storm", || {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        static TARGETS: [AtomicI32; 2] = [const { AtomicI32::new(0) }; 2];
        static DONE: AtomicU32 = AtomicU32::new(0);
        static SECTIONS: AtomicU64 = AtomicU64::new(0);
        /// At least, and until so many handlers have run: with one processor the sender may come to nothing before.
        const ROUNDS: u64 = 20_000;
        const HANDLERS: u32 = 100;
        manage(
            Handler::new(|_: &Delivery<'_>| {
                add_one();
                RUNS.fetch_add(1, Ordering::Relaxed);
            }),
            Signal::USR1,
        );
        std::thread::scope(|scope| {
            for target in &TARGETS {
                scope.spawn(|| {
                    target.store(send::thread(), Ordering::Release);
                    let mut sections = 0;
                    while sections < ROUNDS || RUNS.load(Ordering::Relaxed) < HANDLERS {
                        add_one();
                        sections += 1;
                    }
                    SECTIONS.fetch_add(sections, Ordering::Relaxed);
                    DONE.fetch_add(1, Ordering::AcqRel);
                    // Its number stays taken until the sender has stopped.
                    spin_until(|| target.load(Ordering::Acquire) == 0);
                });
            }
            scope.spawn(|| {
                spin_until(|| TARGETS.iter().all(|target| target.load(Ordering::Acquire) != 0));
                while DONE.load(Ordering::Acquire) < 2 {
                    for target in &TARGETS {
                        send::tgkill_to(target.load(Ordering::Acquire), Signal::USR1);
                    }
                }
                TARGETS.iter().for_each(|target| target.store(0, Ordering::Release));
            });
        });
        let runs = RUNS.load(Ordering::Relaxed);
        assert!(runs >= HANDLERS);
        assert_eq!(count(), SECTIONS.load(Ordering::Relaxed) + u64::from(runs));
    });
}
