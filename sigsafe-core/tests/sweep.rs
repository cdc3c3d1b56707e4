//! A signal, and in a second round two, at every instruction of entering, leaving and flushing regions, of the trampoline and of the
//! handlers, which use regions themselves. After each run: no deferrable handler began in a region, every signal was handled, a
//! handler left the depth as it found it, the mask is what it was, and the engine holds nothing back any more.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the second signal at every Nth boundary: 2003 without it, a sample of seconds; 101 takes a quarter
//! of an hour, 1 half a day.

#![cfg(target_arch = "x86_64")]

mod step;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sigsafe_core::handler::Handler;
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, mask, region_depth};
use sigsafe_test_harness::isolate::isolated_within;
use step::watch::{self, HANDLED, Tally, WRONG, kernel_mask, on_any_time, on_deferrable, set_kernel_mask};
use step::{SENT, STUCK};

const MASK_CHANGED: u32 = 4;
const HELD_BACK: u32 = 8;
const DEPTH_LEFT: u32 = 16;
const STUCK_RUN: u32 = 32;
const COUNT: u32 = 128;

/// Each step costs two switches to the kernel, which a virtual machine makes dear. A stride of one's own may take its time.
fn limit() -> Duration {
    Duration::from_secs(if std::env::var_os("SIGSAFE_SWEEP_STRIDE").is_some() { 24 * 3600 } else { 600 })
}

struct Cast {
    signal: Signal,
    handler: Handler,
}

fn cast() -> Vec<Cast> {
    let real_time = Signal::real_time(2).unwrap();
    let deferrable = Handler::new(on_deferrable);
    let immediate = Handler::new(on_any_time).immediate(true);
    let cast = [
        (Signal::USR1, deferrable),
        (Signal::USR2, immediate),
        (Signal::PROF, deferrable.mask(SigSet::EMPTY.with(Signal::TERM).with(Signal::USR2))),
        (Signal::ALRM, immediate.mask(SigSet::EMPTY.with(Signal::USR1).with(Signal::TERM))),
        (real_time, deferrable),
        (Signal::SEGV, deferrable),
        (Signal::TSTP, deferrable),
    ];
    cast.map(|(signal, handler)| Cast { signal, handler }).into()
}

/// What is wrong after a run, as bits.
fn judge(before: u64) -> u32 {
    let mut wrong = WRONG.swap(0, SeqCst);
    if kernel_mask() != before || mask::current().bits() != before {
        wrong |= MASK_CHANGED;
        set_kernel_mask(before);
    }
    if region_depth() != 0 {
        wrong |= DEPTH_LEFT;
    }
    if watch::holds_back() {
        wrong |= HELD_BACK;
    }
    if STUCK.load(SeqCst) {
        wrong |= STUCK_RUN;
    }
    for number in 1..65 {
        let (sent, handled) = (SENT[number].load(SeqCst), HANDLED[number].swap(0, SeqCst));
        // Two of a legacy signal may have merged into one.
        let exact = number >= 34 || sent < 2;
        // A stop discards a SIGCONT that waits (POSIX, 2.4.1).
        if number == libc::SIGCONT as usize && SENT[libc::SIGTSTP as usize].load(SeqCst) > 0 {
            continue;
        }
        if (exact && handled != sent) || handled > sent || (handled == 0) != (sent == 0) {
            wrong |= COUNT;
        }
    }
    wrong
}

type Operation = (&'static str, fn());

const OPERATIONS: &[Operation] = &[
    ("closure", || critical(|_| ())),
    ("guard", || drop::<MaskGuard>(MaskGuard::new())),
    ("closure in guard", || {
        let guard: MaskGuard = MaskGuard::new();
        critical(|_| ());
        drop(guard);
    }),
    ("guard out of a closure", || drop::<MaskGuard>(critical(|_| MaskGuard::new()))),
    ("full mask", || critical_with::<FullSyscall, _>(|_| ())),
    ("full mask in guard, guard ends first", || {
        let outer: MaskGuard = MaskGuard::new();
        let inner = MaskGuard::<FullSyscall>::new();
        drop(outer);
        drop(inner);
    }),
    ("guard in full mask, full mask ends first", || {
        let outer = MaskGuard::<FullSyscall>::new();
        let inner: MaskGuard = MaskGuard::new();
        drop(outer);
        drop(inner);
    }),
];

/// Each has an exit with something to flush: what is sent in it lands before, in and after the flush.
const FLUSHES: &[Operation] = &[
    ("closure that defers", || critical(|_| step::send(libc::SIGHUP))),
    ("guard that defers", || {
        let guard: MaskGuard = MaskGuard::new();
        step::send(libc::SIGHUP);
        drop(guard);
    }),
    ("full mask that defers", || critical_with::<FullSyscall, _>(|_| step::send(libc::SIGHUP))),
    ("closure that keeps", || {
        critical(|_| {
            step::send(libc::SIGCONT);
            step::send(libc::SIGRTMIN() + 3);
        });
    }),
];

fn install(cast: &[Cast]) {
    step::prepare();
    for Cast { signal, handler } in cast {
        // SAFETY: the handlers touch atomics and regions.
        unsafe { handler.install(*signal).unwrap() };
    }
    // What operations send themselves.
    for number in [libc::SIGHUP, libc::SIGCONT, libc::SIGRTMIN() + 3] {
        // SAFETY: as above.
        unsafe { Handler::new(on_deferrable).install(Signal::new(number).unwrap()).unwrap() };
    }
}

fn one(signal: Signal, at: u64) -> [(u64, i32); 2] {
    [(at, signal.number()), (0, signal.number())]
}

fn boundaries_of(operation: &fn()) -> u64 {
    // The first run of a page of code may take a different path than all others.
    step::run(one(Signal::USR1, 0), operation);
    step::run(one(Signal::USR1, 0), operation)
}

fn sweep(operations: &[Operation]) {
    let cast = cast();
    install(&cast);
    let before = kernel_mask();
    let mut tally = Tally::new();
    let numbers: Vec<i32> = cast.iter().map(|member| member.signal.number()).chain([libc::SIGSEGV | step::AS_FAULT]).collect();
    for (name, operation) in operations {
        let boundaries = boundaries_of(operation);
        judge(before);
        println!("{name}: {boundaries} boundaries");
        assert!(boundaries > 10);
        for &number in &numbers {
            // In a long flush, which goes through the slots, what is deferrable is blocked.
            if boundaries > 500 && number != libc::SIGUSR2 && number & step::AS_FAULT == 0 {
                continue;
            }
            for at in 1..=boundaries {
                step::run_until_sent([(at, number), (0, number)], operation);
                let sent = SENT[(number & !step::AS_FAULT) as usize].load(SeqCst);
                assert_eq!(sent, 1, "{name}, {number:#x} at {at} was not sent");
                let wrong = judge(before);
                tally.add(wrong != 0, || format!("{wrong:#b}: {name}, {number:#x} at {at} of {boundaries}"));
            }
        }
    }
    tally.conclude();
}

#[test]
fn one_signal_at_every_instruction() {
    isolated_within("one_signal_at_every_instruction", limit(), || sweep(OPERATIONS));
}

#[test]
fn one_signal_at_every_instruction_of_a_flush() {
    isolated_within("one_signal_at_every_instruction_of_a_flush", limit(), || sweep(FLUSHES));
}

#[test]
fn a_second_signal_in_the_handling_of_the_first() {
    isolated_within("a_second_signal_in_the_handling_of_the_first", limit(), || {
        let stride = watch::stride(2003);
        let cast = cast();
        install(&cast);
        for member in &cast {
            step::wrap(member.signal.number());
        }
        let before = kernel_mask();
        let mut tally = Tally::new();
        // Successive runs start the sample one boundary later, so that all residues come up.
        let mut offset = 0;
        for (name, operation) in OPERATIONS {
            let boundaries = boundaries_of(operation);
            for Cast { signal: first, .. } in &cast {
                for at in 1..=boundaries {
                    let length = step::run(one(*first, at), operation);
                    judge(before);
                    for Cast { signal: second, .. } in &cast {
                        offset = (offset + 1) % stride;
                        let mut then = at + offset;
                        while then <= length {
                            step::run_until_sent([(at, first.number()), (then, second.number())], operation);
                            let wrong = judge(before);
                            tally.add(wrong != 0, || format!("{wrong:#b}: {name}, {first} at {at}, {second} at {then}"));
                            then += stride;
                        }
                    }
                }
            }
        }
        tally.conclude();
    });
}
