//! How many times cheaper a region is than the two system calls that it replaces: one run, one verdict.
//!
//! Rounds are interleaved and the order of the contestants rotates, so that what else the machine does falls on all alike;
//! medians over the rounds are compared. The exit status is 1 when a ratio is below what the project promises, so that a
//! script can hold the code to it. No statistics library: the numbers differ by two orders of magnitude.

mod support;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use sigsafe_core::{DeferredCounter, MaskGuard, critical_with};
use support::sigprocmask_pair;

/// Odd, so that the median is a round that happened.
const ROUNDS: usize = 31;
/// Pairs in a round: a few milliseconds of each kind.
const SYSCALL_PAIRS: u32 = 10_000;
const REGION_PAIRS: u32 = 2_000_000;

/// What a pair of system calls must cost at least, in pairs of each form.
const CLOSURE_RATIO: f64 = 150.0;
const GUARD_RATIO: f64 = 75.0;

/// One kind of pair: what it is called, and how to time a round of it in nanoseconds per pair.
struct Contestant {
    name: &'static str,
    round: fn() -> f64,
    times_ns: Vec<f64>,
}

impl Contestant {
    const fn new(name: &'static str, round: fn() -> f64) -> Self {
        Self { name, round, times_ns: Vec::new() }
    }

    fn median_ns(&mut self) -> f64 {
        self.times_ns.sort_by(f64::total_cmp);
        self.times_ns[self.times_ns.len() / 2]
    }
}

fn time(pairs: u32, mut pair: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for i in 0..pairs {
        pair(i);
    }
    start.elapsed().as_nanos() as f64 / f64::from(pairs)
}

/// `black_box` in every body, the loop's own included: a pair is executed in each turn, and its neighbours cannot merge with
/// it. What the loop and the box cost is in every number, so that the ratios are, if anything, too small.
fn syscall_round() -> f64 {
    time(SYSCALL_PAIRS, |i| {
        sigprocmask_pair(|| black_box(i));
    })
}

fn closure_round() -> f64 {
    time(REGION_PAIRS, |i| {
        critical_with::<DeferredCounter, _>(|_| black_box(i));
    })
}

fn guard_round() -> f64 {
    time(REGION_PAIRS, |i| {
        let _region = MaskGuard::<DeferredCounter>::new();
        black_box(i);
    })
}

fn main() -> ExitCode {
    let mut contestants = [
        Contestant::new("two rt_sigprocmask", syscall_round),
        Contestant::new("closure pair", closure_round),
        Contestant::new("guard pair", guard_round),
    ];
    for round in 0..ROUNDS {
        for turn in 0..contestants.len() {
            let contestant = &mut contestants[(round + turn) % 3];
            let ns = (contestant.round)();
            contestant.times_ns.push(ns);
        }
    }

    let [syscalls, closure, guard] = &mut contestants;
    let syscalls_ns = syscalls.median_ns();
    println!("medians of {ROUNDS} interleaved rounds");
    println!("{:<20} {syscalls_ns:>9.2} ns", syscalls.name);
    let mut kept = true;
    for (contestant, promised) in [(closure, CLOSURE_RATIO), (guard, GUARD_RATIO)] {
        let ns = contestant.median_ns();
        let ratio = syscalls_ns / ns;
        let verdict = if ratio >= promised { "ok" } else { "TOO SLOW" };
        println!("{:<20} {ns:>9.2} ns   {ratio:>6.0} times cheaper (at least {promised:.0}: {verdict})", contestant.name);
        kept &= ratio >= promised;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
