//! The watchdog of a case: the parent's side.
//!
//! It starts the case in a process of its own, looks at its counters some fifty times a second, ends the storm when it has
//! lasted long enough, and judges. It waits in `poll`, on the child's pidfd and on whatever may interrupt the whole run. The
//! child never outlives it: the kernel kills the child when the thread that started it ends, and every way out of here kills
//! the child's process group.
//!
//! Ordinary thread context.

mod child;
mod stall;
mod tasks;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::process::{now_ns, wait_readable};
use crate::shared::{FaultReport, Phase, Shared, ThreadCounters};
use crate::verdict::{Ending, Totals, Verdict, judge};
use child::CaseProcess;
use stall::{Sample, Stall, StallClock};

/// Between two looks at the counters.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What came out of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// What was asked.
    pub plan: Plan,
    /// What it showed.
    pub verdict: Verdict,
    /// Why, unless it passed. The first line says it in short.
    pub detail: Vec<String>,
    /// From the start of the storm to the end of the child, or to the moment when it was found stuck.
    pub seconds: f64,
    /// The sums over all threads.
    pub totals: Totals,
    /// What each thread counted.
    pub threads: Vec<Totals>,
    /// The command that runs the case again.
    pub replay: String,
}

impl CaseResult {
    /// The verdict's word. A peer that passes has survived: it was promised nothing, and promises nothing.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed if self.plan.subject.is_peer() => "survived",
            verdict => verdict.name(),
        }
    }

    /// Handler runs a second: of each thread on average with drivers that serve each thread, else of the process.
    #[must_use]
    pub fn delivered_hz(&self) -> f64 {
        let streams = if self.plan.driver.is_per_thread() { f64::from(self.plan.threads) } else { 1.0 };
        if self.seconds > 0.0 { self.totals.handler_runs as f64 / self.seconds / streams } else { 0.0 }
    }
}

/// What a running case looks like at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the storm began; zero before.
    pub elapsed: Duration,
    /// What has been counted so far.
    pub totals: Totals,
}

/// Runs the case of `plan` in a child process that executes `program`, and judges it.
///
/// `program` must be the command `sigsafe-stress`, or another one that hands its arguments to [`crate::cli::main`].
/// `None` means that `interrupt` became readable before the case had ended; the child has been killed then. `progress` is
/// called at each look.
///
/// # Errors
///
/// When the plan is impossible, or the child cannot be started or watched. What the child does is never an error here.
pub fn run(
    plan: &Plan,
    program: &Path,
    interrupt: Option<BorrowedFd<'_>>,
    progress: &mut dyn FnMut(&Progress),
) -> io::Result<Option<CaseResult>> {
    plan.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut child = CaseProcess::start(plan, program)?;
    let stuck = match watch(plan, &child, interrupt, progress)? {
        Watched::Interrupted => return Ok(None),
        Watched::Ended => None,
        Watched::Stuck(stall) => Some((stall, tasks::describe(child.pid()))),
    };
    let elapsed = elapsed(&child.shared);
    let status = child.end()?;
    let threads: Vec<Totals> = counters(plan, &child.shared).map(totals_of).collect();
    let ending = match &stuck {
        Some((stall, _)) => Ending::Stuck { how: how_stuck(stall, plan, &child.shared) },
        None => child::ending_of(status, child.shared.has_succeeded()),
    };
    let fault = child.shared.fault().map(|report| words_for(&report));
    let (verdict, why) = judge(plan, fault, &ending, &threads);
    let mut detail = Vec::new();
    if verdict != Verdict::Passed {
        detail.push(why);
        detail.extend(stuck.into_iter().flat_map(|(_, tasks)| tasks));
        detail.extend(child.output()?.lines().map(|line| format!("child: {line}")));
    }
    Ok(Some(CaseResult {
        verdict,
        detail,
        seconds: elapsed.as_secs_f64(),
        totals: threads.iter().copied().sum(),
        threads,
        replay: plan.replay_command(),
        plan: plan.clone(),
    }))
}

/// How the watching ended.
enum Watched {
    Ended,
    Interrupted,
    Stuck(Stall),
}

/// Looks at the child until it ends, is found stuck, or the run is interrupted.
fn watch(plan: &Plan, child: &CaseProcess, interrupt: Option<BorrowedFd<'_>>, progress: &mut dyn FnMut(&Progress)) -> io::Result<Watched> {
    let limit = Duration::from_millis(plan.hang_limit_ms.into());
    let mut clock = StallClock::new(plan.threads as usize, limit, Duration::from_nanos(plan.period_ns()));
    let mut descriptors = vec![child.pidfd.as_fd()];
    descriptors.extend(interrupt);
    let mut last_look = Instant::now();
    loop {
        match wait_readable(&descriptors, LOOK_INTERVAL)? {
            Some(0) => return Ok(Watched::Ended),
            Some(_) => return Ok(Watched::Interrupted),
            None => {}
        }
        let phase = child.shared.phase();
        let elapsed = elapsed(&child.shared);
        let totals: Totals = counters(plan, &child.shared).map(totals_of).sum();
        progress(&Progress { elapsed, totals });
        let enough = [(plan.deferrals, totals.deferrals), (plan.inside, totals.inside)];
        let enough = enough.iter().any(|(wanted, count)| wanted.is_some_and(|wanted| *count >= wanted))
            && elapsed >= Duration::from_secs(plan.at_least.into());
        if phase == Phase::Running && (enough || elapsed >= Duration::from_secs(plan.seconds.into())) {
            child.shared.advance(Phase::Running, Phase::Stopping);
        }
        let samples: Vec<Sample> = counters(plan, &child.shared).map(sample_of).collect();
        let now = Instant::now();
        if let Some(stall) = clock.look(now - last_look, phase, &samples) {
            return Ok(Watched::Stuck(stall));
        }
        last_look = now;
    }
}

fn counters<'s>(plan: &Plan, shared: &'s Shared) -> impl Iterator<Item = &'s ThreadCounters> {
    shared.threads.iter().take(plan.threads as usize)
}

fn totals_of(counters: &ThreadCounters) -> Totals {
    Totals {
        signals_sent: counters.sent.load(Ordering::Relaxed),
        handler_runs: counters.completions.load(Ordering::Relaxed),
        deferrals: counters.deferrals.load(Ordering::Relaxed),
        inside: counters.inside.load(Ordering::Relaxed),
        operations: counters.operations.load(Ordering::Relaxed),
        threads_ended: counters.ended.load(Ordering::Relaxed),
        forks: counters.forks.load(Ordering::Relaxed),
    }
}

fn sample_of(counters: &ThreadCounters) -> Sample {
    Sample {
        state: counters.state(),
        operations: counters.operations.load(Ordering::Relaxed),
        completions: counters.completions.load(Ordering::Relaxed),
        sent: counters.sent.load(Ordering::Relaxed).saturating_sub(counters.lost.load(Ordering::Relaxed)),
    }
}

/// Since the storm began; zero before.
fn elapsed(shared: &Shared) -> Duration {
    match shared.started_ns.load(Ordering::Relaxed) {
        0 => Duration::ZERO,
        started => Duration::from_nanos(now_ns().saturating_sub(started)),
    }
}

/// The stall in words, with the place of the thread that it names.
fn how_stuck(stall: &Stall, plan: &Plan, shared: &Shared) -> String {
    let (Stall::NoProgress { thread, .. } | Stall::Deaf { thread, .. }) = *stall else { return stall.to_string() };
    let counters = &shared.threads[thread];
    let (entries, completions) = (counters.entries.load(Ordering::Relaxed), counters.completions.load(Ordering::Relaxed));
    let place = match (plan.rate_hz, entries == completions) {
        (0, _) => "in its main flow, without signals".to_owned(),
        (_, true) => format!("in its main flow, after {completions} handler runs"),
        (_, false) => format!("inside handler run {entries}"),
    };
    let operations = counters.operations.load(Ordering::Relaxed);
    format!("{stall}: {place}, after {operations} operations")
}

/// A fault in words.
fn words_for(report: &FaultReport) -> String {
    let FaultReport { thread, .. } = *report;
    let context = if report.in_handler { "the handler" } else { "the main flow" };
    match report.fault {
        Some(fault) if !report.text.is_empty() => format!("{fault}: {}", report.text),
        Some(fault) => format!("{fault} (seen by {context} of worker-{thread})"),
        None => "damaged data; the child died while it was reporting what and where".to_owned(),
    }
}
