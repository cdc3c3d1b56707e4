//! The rounds of a sweep: which signal is sent at which boundary of which story, and how it went.

use std::ffi::c_int;
use std::fmt::Debug;

use sigsafe_core::Signal;

use super::Script;
use super::missed::Missed;
use super::tracer::{Boundary, Role, Tracer};
use crate::step::watch::Tally;

/// The boundaries of a story: the fewest, if two lessons agree in them. While a step takes its time, the clock ticks, and reading it takes
/// another turn, which no later run has to take; and libc's memory is not at once in a state to which a story returns.
fn agreed(mut lesson: impl FnMut() -> Vec<Boundary>) -> Vec<Boundary> {
    // Of a machine with other things to do, two in a row that read the clock may have waited for the same tick.
    const READING_THE_CLOCK: (u32, u32) = (5, 20);
    const OTHERS: (u32, u32) = (2, 5);
    let (mut fewest, mut agree) = (lesson(), false);
    let (least, most) = if fewest.iter().any(Boundary::in_vdso) { READING_THE_CLOCK } else { OTHERS };
    for count in 1..most {
        if agree && count >= least {
            break;
        }
        let boundaries = lesson();
        if boundaries == fewest {
            agree = true;
        } else if boundaries.len() < fewest.len() {
            (fewest, agree) = (boundaries, false);
        }
    }
    fewest
}

/// How often a boundary is tried: the clock and the state of libc's memory have a part in the way that a run takes.
const TRIES: u32 = 200;

/// What a sweep counts.
struct Sweep<'a> {
    kinds: &'a [Signal],
    /// Of all boundaries of all stories, counted through, every one that is a multiple of it.
    stride: u64,
    tally: Tally,
    missed: Missed,
    turn: u64,
}

impl<'a> Sweep<'a> {
    fn new(kinds: &'a [Signal], stride: u64) -> Sweep<'a> {
        Sweep { kinds, stride, tally: Tally::new(), missed: Missed::default(), turn: 0 }
    }

    /// Sends a signal at every boundary; `run` does so once, and says whether the boundary was reached and whether the run was wrong.
    fn over(&mut self, story: &impl Debug, boundaries: &[Boundary], mut run: impl FnMut(Signal, Boundary) -> (bool, bool)) {
        println!("{story:?}: {} boundaries", boundaries.len());
        assert!(boundaries.len() > 50);
        for &signal in self.kinds {
            for (place, &at) in boundaries.iter().enumerate() {
                self.turn += 1;
                if !self.turn.is_multiple_of(self.stride) {
                    continue;
                }
                let (mut reached, mut failed) = (false, false);
                for _ in 0..TRIES {
                    let (is_there, is_wrong) = run(signal, at);
                    (reached, failed) = (is_there, failed | is_wrong);
                    if is_there {
                        break;
                    }
                }
                if !reached {
                    self.missed.add(at.role, at.pc);
                }
                self.tally.add(failed, || format!("{story:?}, {signal} at {place} of {}: {at:x?}", boundaries.len()));
            }
        }
    }

    fn conclude(self) {
        self.missed.print();
        let missed = self.missed.count;
        assert!(missed * 100 <= self.tally.conclude(), "{missed} were not met");
    }
}

/// Sends signals in stories that one tracee tells after another. It runs `tracee`. With `to_new` also to threads that are not the
/// performer.
pub(crate) fn sweep<S: Debug>(stories: &[S], kinds: &[Signal], stride: u64, to_new: bool, tracee: impl FnOnce(&Script)) {
    let mut tracer = Tracer::start(Script::shared(), tracee);
    let mut sweep = Sweep::new(kinds, stride);
    for (index, story) in stories.iter().enumerate() {
        // The first runs map memory and bind functions.
        tracer.run(index);
        tracer.run(index);
        let mut boundaries = agreed(|| tracer.learn(index));
        boundaries.retain(|boundary| to_new || boundary.role == Role::Performer);
        sweep.over(story, &boundaries, |signal, at| {
            let before = tracer.failures();
            let (reached, end) = tracer.run_with(index, signal.number(), at);
            assert_eq!(end, None, "the status of the tracee, which has ended in {story:?}, {signal} at {at:x?}");
            (reached, tracer.failures() != before)
        });
    }
    assert_eq!(tracer.finish(), 0);
    sweep.conclude();
}

/// Sends signals in stories for each of which there is a process of its own, because they begin or end what a process has once. With
/// `dies_of` the story ends with the death of its process, of that signal.
pub(crate) fn sweep_processes<S: Debug>(
    stories: &[S],
    kinds: &[Signal],
    stride: u64,
    dies_of: impl Fn(&S) -> Option<Signal>,
    tracee: impl Fn(&Script),
) {
    let script = Script::shared();
    let mut sweep = Sweep::new(kinds, stride);
    for (index, story) in stories.iter().enumerate() {
        let cause = dies_of(story);
        let is_right = |end: Option<c_int>| match (cause, end) {
            (Some(cause), Some(end)) => libc::WIFSIGNALED(end) && libc::WTERMSIG(end) == cause.number(),
            (cause, end) => cause.is_none() && end.is_none(),
        };
        let boundaries = agreed(|| {
            let mut tracer = Tracer::start(script, &tracee);
            let boundaries = tracer.learn(index);
            assert!(cause.is_some() || tracer.finish() == 0, "{story:?} without a signal");
            boundaries
        });
        sweep.over(story, &boundaries, |signal, at| {
            let mut tracer = Tracer::start(script, &tracee);
            let (reached, end) = tracer.run_with(index, signal.number(), at);
            let wrong = !is_right(end);
            if wrong {
                println!("the tracee's end: {end:x?}");
            }
            (reached, wrong || (end.is_none() && tracer.finish() != 0))
        });
    }
    sweep.conclude();
}
