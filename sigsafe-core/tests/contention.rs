//! Installing and removing handlers from several threads at once, and while signals arrive.

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler, Registration};
use sigsafe_core::{SigSet, Signal, mask};
use support::{Disposition, Form, RT, alone, log, manage, mapped_pages, send, spin_until};

/// Each thread has a handler of its own, which nobody calls.
fn tagged<const TAG: i32>(_: &Delivery<'_>) {
    log::note(TAG);
}

fn remove_until_done(mut registration: Registration) {
    while let Err(replaced) = registration.remove() {
        registration = replaced.into_registration();
        std::thread::yield_now();
    }
}

/// In each round every thread installs a handler of its own and removes it again, as fast as it can. One of them then tells the number of
/// the round to `after_round`.
fn contend(signal: Signal, rounds: usize, after_round: fn(usize)) {
    let handlers = [tagged::<1>, tagged::<2>, tagged::<3>];
    let (before, after) = (Barrier::new(handlers.len()), Barrier::new(handlers.len()));
    let start = Disposition::of(signal);
    std::thread::scope(|scope| {
        for (index, handler) in handlers.into_iter().enumerate() {
            let (before, after) = (&before, &after);
            scope.spawn(move || {
                for round in 0..rounds {
                    before.wait();
                    for _ in 0..3 {
                        remove_until_done(manage(Handler::new(handler), signal));
                    }
                    after.wait();
                    assert_eq!(Disposition::of(signal), start, "{signal}, round {round}");
                    if index == 0 {
                        after_round(round);
                    }
                }
            });
        }
    });
}

#[test]
fn concurrent_installations_and_removals_end_with_the_first_disposition() {
    alone("concurrent_installations_and_removals_end_with_the_first_disposition", || {
        contend(Signal::USR1, 1500, |_| ());
        Disposition::IGNORE.install(RT);
        contend(RT, 1500, |_| ());
        Disposition::plain().install(Signal::USR2);
        contend(Signal::USR2, 1500, |_| ());
    });
}

#[test]
fn concurrent_installations_of_the_same_handlers_take_bounded_memory() {
    alone("concurrent_installations_of_the_same_handlers_take_bounded_memory", || {
        static BEFORE: AtomicUsize = AtomicUsize::new(0);
        contend(Signal::USR1, 2000, |round| match round {
            200 => BEFORE.store(mapped_pages(), Ordering::Relaxed),
            1999 => {
                // Which entries lie over which differs from round to round, so a few more may be needed than in the first rounds.
                let grown = mapped_pages().saturating_sub(BEFORE.load(Ordering::Relaxed));
                assert!(grown <= 16, "{grown} pages more");
            }
            _ => {}
        });
    });
}

#[test]
fn removal_while_signals_arrive_on_other_threads() {
    alone("removal_while_signals_arrive_on_other_threads", || {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        fn count(_: &Delivery<'_>) {
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        // By default this signal does nothing, so that it may arrive between two installations.
        let signal = Signal::URG;
        let done = AtomicBool::new(false);
        let target = AtomicI32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                target.store(send::thread(), Ordering::Release);
                while !done.load(Ordering::Relaxed) {
                    Form::ALL.into_iter().for_each(|form| form.run(|| ()));
                }
                assert_eq!(mask::current(), SigSet::EMPTY);
                target.store(0, Ordering::Release);
                // The sender stops before this thread's number is free.
                spin_until(|| target.load(Ordering::Acquire) == -1);
            });
            spin_until(|| target.load(Ordering::Acquire) > 0);
            scope.spawn(|| {
                while let thread @ 1.. = target.load(Ordering::Acquire) {
                    send::tgkill_to(thread, signal);
                }
                target.store(-1, Ordering::Release);
            });
            for round in 0..2000 {
                let runs = RUNS.load(Ordering::Relaxed);
                let registration = manage(Handler::new(count), signal);
                if round % 20 == 0 {
                    spin_until(|| RUNS.load(Ordering::Relaxed) > runs);
                }
                registration.remove().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
    });
}

/// A late call of another thread must not bring back what an earlier one has replaced: the default action would kill.
#[test]
fn a_handler_stays_in_force_while_others_come_and_go() {
    alone("a_handler_stays_in_force_while_others_come_and_go", || {
        std::thread::scope(|scope| {
            for sends in [0, 0, 6, 6] {
                scope.spawn(move || {
                    for _ in 0..4000 {
                        let registration = manage(Handler::new(|_| ()), Signal::USR1);
                        (0..sends).for_each(|_| send::tgkill(Signal::USR1));
                        remove_until_done(registration);
                    }
                });
            }
        });
    });
}
