//! A signal, and in a second round two, at every instruction of entering, leaving and flushing regions, of the trampoline and of the
//! handlers, which use regions themselves. After each run: no deferrable handler began in a region, every signal was handled, a
//! handler left the depth as it found it, the mask is what it was, and the engine holds nothing back any more.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` takes every Nth pair of boundaries: 201 without it, a sample of seconds; 1, all of them, is a matter of
//! minutes.

#![cfg(target_arch = "x86_64")]

mod step;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sigsafe_core::handler::Handler;
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, mask, region_depth};
use sigsafe_test_harness::isolate::isolated_within;
use step::watch::{self, HANDLED, Tally, WRONG, kernel_mask, on_any_time, on_deferrable, set_kernel_mask};
use step::{Path, SENT, STUCK};

const MASK_CHANGED: u32 = 4;
const HELD_BACK: u32 = 8;
const DEPTH_LEFT: u32 = 16;
const STUCK_RUN: u32 = 32;
const COUNT: u32 = 128;
const NOT_MET: u32 = 256;

/// A stride of one's own may take its time.
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
    let (mut discarded, mut handled_of_both) = (false, 0);
    for number in 1..65 {
        let (sent, handled) = (SENT[number].load(SeqCst), HANDLED[number].swap(0, SeqCst));
        // Two of a legacy signal may have merged into one.
        let exact = number >= 34 || sent < 2;
        // Each of the two discards the other one that waits (POSIX, 2.4.1): of both, at least one is handled.
        let other = [(libc::SIGCONT, libc::SIGTSTP), (libc::SIGTSTP, libc::SIGCONT)].into_iter().find(|(one, _)| *one as usize == number);
        if let Some((_, other)) = other
            && SENT[other as usize].load(SeqCst) > 0
        {
            discarded |= handled < sent;
            handled_of_both += handled;
            if handled > sent {
                wrong |= COUNT;
            }
            continue;
        }
        if (exact && handled != sent) || handled > sent || (handled == 0) != (sent == 0) {
            wrong |= COUNT;
        }
    }
    if discarded && handled_of_both == 0 {
        wrong |= COUNT;
    }
    wrong
}

/// Of the sample without a stride of one's own.
const STRIDE: u64 = 201;

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

fn way_of(operation: &mut dyn FnMut()) -> Path {
    // The first run of a page of code may take a different path than all others.
    step::learn(None, operation);
    step::learn(None, operation)
}

fn sweep(operations: &[Operation]) {
    let cast = cast();
    install(&cast);
    let before = kernel_mask();
    let mut tally = Tally::new();
    let numbers: Vec<i32> = cast.iter().map(|member| member.signal.number()).chain([libc::SIGSEGV | step::AS_FAULT]).collect();
    for &(name, mut operation) in operations {
        let operation: &mut dyn FnMut() = &mut operation;
        let stops = way_of(operation).stops();
        judge(before);
        println!("{name}: {} boundaries", stops.len());
        assert!(stops.len() > 10);
        for &number in &numbers {
            for (at, stop) in stops.iter().enumerate() {
                let met = step::run(&[(*stop, number)], operation);
                let wrong = judge(before) | if met { 0 } else { NOT_MET };
                tally.add(wrong != 0, || format!("{wrong:#b}: {name}, {number:#x} at {at} of {}", stops.len()));
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
        let stride = watch::stride(STRIDE) as usize;
        // To learn a way costs more than a hundred runs.
        let ways = stride.min(8);
        let stride = stride.div_ceil(ways);
        let cast = cast();
        install(&cast);
        let before = kernel_mask();
        let mut tally = Tally::new();
        // Successive runs start the sample one boundary later, so that all residues come up.
        let (mut offset, mut turn) = (0, 0_usize);
        for &(name, mut operation) in OPERATIONS {
            let operation: &mut dyn FnMut() = &mut operation;
            let way = way_of(operation);
            let mut longest = 0;
            for Cast { signal: first, .. } in &cast {
                for (at, stop) in way.stops().iter().enumerate() {
                    turn += 1;
                    if !turn.is_multiple_of(ways) {
                        continue;
                    }
                    let stops = step::learn(Some((at, first.number())), operation).stops_after_sending();
                    judge(before);
                    longest = longest.max(stops.len());
                    for Cast { signal: second, .. } in &cast {
                        offset = (offset + 1) % stride;
                        for (then, second_stop) in stops.iter().enumerate().skip(offset).step_by(stride) {
                            let met = step::run(&[(*stop, first.number()), (*second_stop, second.number())], operation);
                            let wrong = judge(before) | if met { 0 } else { NOT_MET };
                            tally.add(wrong != 0, || format!("{wrong:#b}: {name}, {first} at {at}, {second} {then} boundaries later"));
                        }
                    }
                }
            }
            println!("{name}: {} boundaries, with a signal at most {longest}", way.len());
        }
        tally.conclude();
    });
}
