//! The program counter that a handler is told: that of the instruction at which its signal arrived.

mod support;

use std::arch::asm;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, mask};
use support::{Form, RT, alone, log, log_runs, manage, send, spin_until};

static PLACE: AtomicU64 = AtomicU64::new(0);

fn note_place(delivery: &Delivery<'_>) {
    PLACE.store(delivery.program_counter().map_or(0, |place| place as u64), Ordering::Relaxed);
    log::record(delivery);
}

/// Spins between two addresses, which it returns; `sender` sends only once the thread is there.
fn spin_at_one_place(arrived: &AtomicU64, until: &AtomicU64) -> RangeInclusive<u64> {
    let (first, last): (u64, u64);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: writes one word and reads another until it is not zero.
    unsafe {
        asm!(
            "adr {first}, 2f",
            "adr {last}, 3f",
            "mov {word}, #1",
            "str {word}, [{arrived}]",
            "2: ldr {word}, [{until}]",
            "3: cbz {word}, 2b",
            first = out(reg) first, last = out(reg) last, word = out(reg) _, arrived = in(reg) arrived.as_ptr(), until = in(reg) until.as_ptr(),
        );
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "lea {first}, [rip + 2f]",
            "lea {last}, [rip + 3f]",
            "mov qword ptr [{arrived}], 1",
            "2: cmp qword ptr [{until}], 0",
            "3: je 2b",
            first = out(reg) first, last = out(reg) last, arrived = in(reg) arrived.as_ptr(), until = in(reg) until.as_ptr(),
        );
    }
    first..=last
}

/// Whether the kernel shows anything as blocked on a thread of this process.
fn something_is_blocked_on(thread: libc::pid_t) -> bool {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    u64::from_str_radix(blocked, 16).unwrap() != 0
}

/// The handler of a signal that a region has held back learns where it arrived; one that came straight through, what it interrupted.
#[test]
fn the_program_counter_is_that_of_the_arrival() {
    alone("the_program_counter_is_that_of_the_arrival", || {
        for signal in [Signal::PROF, RT, Signal::CONT, Signal::TSTP] {
            let registration = manage(Handler::new(note_place), signal);
            for form in [None, Some(Form::Closure), Some(Form::Guard), Some(Form::NestedClosures)] {
                let (there, stop) = (AtomicU64::new(0), AtomicU64::new(0));
                let main = send::thread();
                let spin = || {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            spin_until(|| there.load(Ordering::Relaxed) != 0);
                            send::tgkill_to(main, signal);
                            // Until it has been taken, in either way.
                            spin_until(|| log::count() > 0 || something_is_blocked_on(main));
                            stop.store(1, Ordering::Relaxed);
                        });
                        spin_at_one_place(&there, &stop)
                    })
                };
                let place = form.map_or_else(spin, |form| form.run(spin));
                let rows = log::take();
                assert_eq!((rows.len(), rows[0].deferred), (1, form.is_some()), "{signal}");
                let seen = PLACE.swap(0, Ordering::Relaxed);
                assert!(place.contains(&seen), "{signal}, {form:?}: {seen:#x} is not in {place:#x?}");
            }
            registration.remove().unwrap();
        }
    });
}

/// The second one waited in the kernel, so there is no place at which it arrived.
#[test]
fn what_waited_in_the_kernel_has_no_program_counter() {
    alone("what_waited_in_the_kernel_has_no_program_counter", || {
        let _registrations = [manage(Handler::new(note_place), Signal::USR1), log_runs(Signal::USR2)];
        critical(|_| {
            send::tgkill(Signal::USR2);
            PLACE.store(1, Ordering::Relaxed);
            send::tgkill(Signal::USR1);
        });
        assert_eq!(log::take().len(), 2);
        assert_eq!(PLACE.load(Ordering::Relaxed), 0);
    });
}

/// The one that the region captured has been taken, by waiting or under a temporary mask. The next of its number waited in the kernel.
#[test]
fn what_came_after_one_that_was_taken_has_no_program_counter() {
    alone("what_came_after_one_that_was_taken_has_no_program_counter", || {
        for signal in [Signal::USR1, RT] {
            let registration = manage(Handler::new(note_place), signal);
            for by_waiting in [true, false] {
                critical(|_| {
                    send::tgkill(signal);
                    if by_waiting {
                        assert_eq!(mask::wait(signal.into()).signal(), signal);
                    } else {
                        mask::suspend(SigSet::EMPTY);
                        assert_eq!(log::take().len(), 1);
                    }
                    PLACE.store(1, Ordering::Relaxed);
                    send::tgkill(signal);
                    assert_eq!(log::count(), 0);
                });
                assert_eq!(log::take().len(), 1);
                assert_eq!(PLACE.load(Ordering::Relaxed), 0, "{signal}, by waiting: {by_waiting}");
            }
            registration.remove().unwrap();
        }
    });
}
