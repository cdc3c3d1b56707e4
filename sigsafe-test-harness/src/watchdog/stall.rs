//! When a case counts as hung: a pure clockwork over what the watchdog sees at each look.
//!
//! A thread that makes no progress at all is hung. So is one whose operations go on but which no longer handles the signals
//! that were sent to it: it has gone deaf, which is what a lost mask looks like. Handlers that cost more than the main flow
//! has time for are neither: that is overload, and the verdict's business.

use std::fmt;
use std::time::Duration;

use crate::shared::{Phase, ThreadState};

/// The most that one look can add to the clock: a watchdog that was itself kept from running must not blame the child.
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How long the child may take to prepare itself.
const START_LIMIT: Duration = Duration::from_secs(15);

/// What is read of one thread at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) state: ThreadState,
    pub(crate) operations: u64,
    pub(crate) completions: u64,
    pub(crate) sent: u64,
}

/// How a case is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// The child never opened the storm.
    NeverStarted(Duration),
    /// A thread made no progress, neither in its main flow nor in its handler.
    NoProgress { thread: usize, for_how_long: Duration },
    /// A thread works on, but has not handled a signal that was sent to it.
    Deaf { thread: usize, for_how_long: Duration },
    /// The storm was ended, but the child does not come to its end.
    NoEnd(Duration),
}

/// What the clock remembers of one thread.
#[derive(Clone, Copy)]
struct Track {
    last: Sample,
    progress_at: Duration,
    handled_at: Duration,
}

/// Finds stalls in a sequence of looks.
pub(crate) struct StallClock {
    limit: Duration,
    /// How long a signal may lawfully be under way.
    deaf_limit: Duration,
    now: Duration,
    stopping_since: Option<Duration>,
    threads: Vec<Track>,
}

impl StallClock {
    /// A clock for `threads` threads, of which each may go without progress for `limit`, and whose signals may be `period`
    /// under way.
    pub(crate) fn new(threads: usize, limit: Duration, period: Duration) -> StallClock {
        let nothing = Sample { state: ThreadState::Absent, operations: 0, completions: 0, sent: 0 };
        let track = Track { last: nothing, progress_at: Duration::ZERO, handled_at: Duration::ZERO };
        // Deafness is told later than a standstill, so that a thread that does nothing at all is told as that.
        let deaf_limit = limit + (2 * period).max(Duration::from_secs(1));
        StallClock { limit, deaf_limit, now: Duration::ZERO, stopping_since: None, threads: vec![track; threads] }
    }

    /// Takes one look, `since_last` after the one before.
    pub(crate) fn look(&mut self, since_last: Duration, phase: Phase, samples: &[Sample]) -> Option<Stall> {
        self.now += since_last.min(LONGEST_LOOK);
        let now = self.now;
        if phase == Phase::Starting {
            return (now >= START_LIMIT.max(self.limit)).then_some(Stall::NeverStarted(now));
        }
        for (thread, (track, sample)) in self.threads.iter_mut().zip(samples).enumerate() {
            let last = std::mem::replace(&mut track.last, *sample);
            let begins = last.state != sample.state;
            let handled = last.completions != sample.completions || sample.sent == sample.completions;
            if begins || handled {
                track.handled_at = now;
            }
            if begins || last.operations != sample.operations || last.completions != sample.completions {
                track.progress_at = now;
            }
            // A thread that has not yet woken to the start of the storm is late like any other.
            if sample.state == ThreadState::Done {
                continue;
            }
            let for_how_long = now - track.progress_at;
            if for_how_long >= self.limit {
                return Some(Stall::NoProgress { thread, for_how_long });
            }
            let for_how_long = now - track.handled_at;
            if for_how_long >= self.deaf_limit {
                return Some(Stall::Deaf { thread, for_how_long });
            }
        }
        if phase >= Phase::Stopping {
            let waited = now - *self.stopping_since.get_or_insert(now);
            return (waited >= 2 * self.deaf_limit).then_some(Stall::NoEnd(waited));
        }
        None
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::NeverStarted(waited) => write!(f, "the storm had not begun after {:.1} s", waited.as_secs_f64()),
            Stall::NoProgress { thread, for_how_long } => {
                write!(f, "worker-{thread} made no progress for {:.1} s", for_how_long.as_secs_f64())
            }
            Stall::Deaf { thread, for_how_long } => {
                write!(
                    f,
                    "worker-{thread} is deaf: it works, but has not handled a signal sent to it {:.1} s ago",
                    for_how_long.as_secs_f64()
                )
            }
            Stall::NoEnd(waited) => write!(f, "no end {:.1} s after the storm", waited.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);
    const LOOK: Duration = Duration::from_millis(100);

    fn sample(operations: u64, completions: u64, sent: u64) -> Sample {
        Sample { state: ThreadState::Working, operations, completions, sent }
    }

    fn clock() -> StallClock {
        StallClock::new(1, LIMIT, Duration::from_millis(1))
    }

    /// The first stall in ten seconds of looks at what `at` shows.
    fn first_stall(phase: Phase, at: impl Fn(u64) -> Sample) -> Option<Stall> {
        let mut clock = clock();
        (0..100).find_map(|n| clock.look(LOOK, phase, &[at(n)]))
    }

    #[test]
    fn progress_of_either_kind_is_no_stall() {
        assert_eq!(first_stall(Phase::Running, |n| sample(n, n, n)), None);
        assert_eq!(first_stall(Phase::Running, |n| sample(n, 0, 0)), None);
        // Overload: handlers alone.
        assert_eq!(first_stall(Phase::Running, |n| sample(0, n, n + 1)), None);
    }

    #[test]
    fn a_thread_without_progress_is_hung() {
        let stall = first_stall(Phase::Running, |n| sample(n.min(5), 2, 3));
        assert!(matches!(stall, Some(Stall::NoProgress { thread: 0, for_how_long }) if for_how_long >= LIMIT));
    }

    #[test]
    fn a_thread_that_handles_no_more_signals_is_deaf() {
        let stall = first_stall(Phase::Running, |n| sample(n, 7, 8));
        assert!(matches!(stall, Some(Stall::Deaf { thread: 0, .. })));
    }

    #[test]
    fn a_long_period_is_not_deafness() {
        let mut clock = StallClock::new(1, LIMIT, Duration::from_secs(10));
        assert_eq!((0..200).find_map(|n| clock.look(LOOK, Phase::Running, &[sample(n, 0, 1)])), None);
    }

    #[test]
    fn a_child_that_never_starts_or_ends_is_hung() {
        let idle = [sample(0, 0, 0)];
        let mut clock = clock();
        let stall = (0..200).find_map(|_| clock.look(LOOK, Phase::Starting, &idle));
        assert!(matches!(stall, Some(Stall::NeverStarted(_))));
        let done = |_| Sample { state: ThreadState::Done, ..sample(1, 1, 1) };
        assert!(matches!(first_stall(Phase::Draining, done), Some(Stall::NoEnd(_))));
        assert_eq!(first_stall(Phase::Running, done), None);
    }

    #[test]
    fn a_watchdog_that_was_away_does_not_blame_the_child() {
        let mut clock = clock();
        assert_eq!(clock.look(LOOK, Phase::Running, &[sample(1, 1, 1)]), None);
        assert_eq!(clock.look(Duration::from_secs(60), Phase::Running, &[sample(1, 1, 1)]), None);
    }
}
