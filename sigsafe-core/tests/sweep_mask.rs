//! A signal at every instruction of each mask operation: outside a region, in regions of both backends, with a deferral outstanding
//! already, and in handlers that run over a region or at its end.
//!
//! After each run: what the operation returned, the mask that it left in force, what waits, and how often the signal was handled are
//! what POSIX says of a thread for which a region is one more reason to have a deferrable signal blocked. After the last region the
//! kernel's mask is the logical one, and nothing is held back any more.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories, so that their offsets differ.
//! Without it, at all.

#![cfg(target_arch = "x86_64")]

mod step;
mod story;

use std::time::Duration;

use sigsafe_core::{SigSet, Signal};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{Closure, EARLIER, Earlier, Full, Guard, Later, Layer, Over, Same};
use step::watch::{self, Tally};
use step::{AS_FAULT, Stop};
use story::{KINDS, Operation, Story, install};

const LIMIT: Duration = Duration::from_secs(1800);

const CONTEXTS: [&[Layer]; 17] = [
    &[],
    &[Closure],
    &[Guard],
    &[Full],
    &[Closure, Earlier],
    &[Closure, Same],
    &[Full, Earlier],
    &[Closure, Earlier, Full],
    &[Full, Closure],
    &[Over],
    &[Closure, Over],
    &[Closure, Earlier, Over],
    &[Closure, Same, Over],
    &[Full, Over],
    &[Closure, Earlier, Over, Closure],
    &[Later],
    &[Later, Guard, Earlier],
];

/// Sends a signal of each kind at every boundary of the operations that `operations` makes of some sets.
fn sweep(operations: fn(SigSet) -> Vec<Operation>) {
    install();
    let stride = watch::stride(1);
    let mut tally = Tally::new();
    let mut turn = 0;
    let apart = SigSet::from(EARLIER) | Signal::TERM.into();
    for layers in CONTEXTS {
        let mut longest = 0;
        for number in KINDS {
            let own = SigSet::from(Signal::new(number & !AS_FAULT).unwrap());
            let sets = [own, apart, own | EARLIER.into()];
            for mask in [SigSet::EMPTY, own, apart] {
                for operation in distinct(sets.into_iter().flat_map(operations)) {
                    let story = Story { layers, mask, operation, number, at: 0, stop: Stop::default() };
                    if !story.happens() {
                        continue;
                    }
                    let stops = story.learn();
                    longest = longest.max(stops.len());
                    for (index, stop) in stops.iter().enumerate() {
                        turn += 1;
                        if turn % stride == 0 {
                            let story = Story { at: index + 1, stop: *stop, ..story };
                            let wrong = story.judge(story.run(), stops.len());
                            tally.add(!wrong.is_empty(), || format!("{wrong:?}: {story:?} of {}", stops.len()));
                        }
                    }
                }
            }
        }
        println!("{layers:?}: at most {longest} boundaries");
        assert!(longest > 10);
    }
    tally.conclude();
}

fn distinct(operations: impl Iterator<Item = Operation>) -> Vec<Operation> {
    operations.fold(Vec::new(), |mut found, operation| {
        if !found.contains(&operation) {
            found.push(operation);
        }
        found
    })
}

#[test]
fn current_and_pending_at_every_instruction() {
    isolated_within("current_and_pending_at_every_instruction", LIMIT, || sweep(|_| vec![Operation::Current, Operation::Pending]));
}

#[test]
fn block_at_every_instruction() {
    isolated_within("block_at_every_instruction", LIMIT, || sweep(|set| vec![Operation::Block(set)]));
}

#[test]
fn unblock_at_every_instruction() {
    isolated_within("unblock_at_every_instruction", LIMIT, || sweep(|set| vec![Operation::Unblock(set)]));
}

#[test]
fn set_at_every_instruction() {
    isolated_within("set_at_every_instruction", LIMIT, || sweep(|set| vec![Operation::Set(set)]));
}
