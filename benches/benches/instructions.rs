//! A loop of one kind of pair, for `callgrind.sh` to count its instructions: `instructions KIND COUNT`.
//!
//! It measures nothing itself. The three loops `empty`, `closure` and `guard` differ in the pair alone, so that the difference of
//! two runs' counts, less that of the empty loop, is the pair's own. In a loop the compiler finds the thread record once, as it
//! does in any function with several regions. The kinds that end in `-apart` have each turn in a call of its own, which finds
//! the record anew and keeps a stack frame for the slow path: the dearest that a single region can be.

use std::hint::black_box;
use std::process::ExitCode;

use sigsafe_core::{DeferredCounter, MaskGuard, critical_with};

const KINDS: [&str; 6] = ["empty", "closure", "guard", "empty-apart", "closure-apart", "guard-apart"];

#[inline(always)]
fn empty_turn(i: u64) {
    black_box(i);
}

#[inline(always)]
fn closure_turn(i: u64) {
    critical_with::<DeferredCounter, _>(|_| {
        black_box(i);
    });
}

#[inline(always)]
fn guard_turn(i: u64) {
    let _region = MaskGuard::<DeferredCounter>::new();
    black_box(i);
}

#[inline(never)]
fn empty(count: u64) {
    (0..count).for_each(empty_turn);
}

#[inline(never)]
fn closure(count: u64) {
    (0..count).for_each(closure_turn);
}

#[inline(never)]
fn guard(count: u64) {
    (0..count).for_each(guard_turn);
}

/// Calls `turn` by an address that the compiler cannot see through.
#[inline(never)]
fn apart(turn: fn(u64), count: u64) {
    let turn = black_box(turn);
    (0..count).for_each(turn);
}

fn main() -> ExitCode {
    // Cargo adds `--bench` when it runs the target itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [kind, count] = arguments.as_slice() else {
        eprintln!("usage: instructions {} COUNT (benches/callgrind.sh runs it)", KINDS.join("|"));
        // Alone, as part of `cargo bench`, there is nothing to do and nothing wrong.
        return if arguments.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    let Ok(count) = count.parse() else {
        eprintln!("{count}: not a number");
        return ExitCode::from(2);
    };
    match kind.as_str() {
        "empty" => empty(count),
        "closure" => closure(count),
        "guard" => guard(count),
        "empty-apart" => apart(empty_turn, count),
        "closure-apart" => apart(closure_turn, count),
        "guard-apart" => apart(guard_turn, count),
        other => {
            eprintln!("{other}: not one of {}", KINDS.join(", "));
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
