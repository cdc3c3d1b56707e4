//! What a case has shown: a pure function from counters and the child's end to a verdict.
//!
//! Only evidence passes. A case in which too little happened to mean anything is inconclusive, whatever else was fine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::subject::Evidence;

/// The fewest handler runs that mean anything.
pub const MIN_HANDLER_RUNS: u64 = 100;
/// The fewest deferrals of a protected subject that mean anything.
pub const MIN_DEFERRALS: u64 = 20;
/// The fewest handler runs inside an allocator that mean anything, where they are what the storm is about.
pub const MIN_INSIDE: u64 = 20;
/// The fewest threads that are replaced, or forks, that mean anything where they were asked for.
pub const MIN_ENDINGS: u64 = 10;
/// A main flow that does fewer operations than one for this many handler runs was starved, and tells nothing.
pub const HANDLER_RUNS_PER_OPERATION: u64 = 10;

/// What a case has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check held, every thread came to its end, and enough happened to mean something.
    Passed,
    /// A thread stopped making progress, or stopped handling its signals.
    Hung,
    /// The process died of a signal, or ended without its success token.
    Crashed,
    /// A check found damaged data.
    Corrupted,
    /// Too few handler runs, deferrals or operations to mean anything. Never counts as passed.
    Inconclusive,
}

impl Verdict {
    /// Whether the subject was shown to be broken.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Verdict::Hung | Verdict::Crashed | Verdict::Corrupted)
    }

    /// The word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Hung => "hung",
            Verdict::Crashed => "crashed",
            Verdict::Corrupted => "corrupted",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was counted, in one thread or in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Signals that the driver sent.
    pub signals_sent: u64,
    /// Handler runs that came to their end.
    pub handler_runs: u64,
    /// Handler runs that a region had held back.
    pub deferrals: u64,
    /// Handler runs that began inside an operation of `SigSafeAlloc`; other allocators do not tell.
    pub inside: u64,
    /// Operations of the main flow.
    pub operations: u64,
    /// Threads that ended in the storm and were replaced.
    pub threads_ended: u64,
    /// Forks whose child went on with what it had inherited, found it in order and ended.
    pub forks: u64,
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Totals>>(totals: I) -> Totals {
        totals.fold(Totals::default(), |sum, one| Totals {
            signals_sent: sum.signals_sent + one.signals_sent,
            handler_runs: sum.handler_runs + one.handler_runs,
            deferrals: sum.deferrals + one.deferrals,
            inside: sum.inside + one.inside,
            operations: sum.operations + one.operations,
            threads_ended: sum.threads_ended + one.threads_ended,
            forks: sum.forks + one.forks,
        })
    }
}

/// How the child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It exited with this status, with or without the success token.
    Exited { status: i32, token: bool },
    /// It died of this signal.
    Died { signal: String },
    /// The watchdog found it stuck and killed it.
    Stuck { how: String },
}

/// Judges a case by what a check reported, how the child ended, and what each thread counted. The words say why.
pub(crate) fn judge(plan: &Plan, fault: Option<String>, ending: &Ending, threads: &[Totals]) -> (Verdict, String) {
    if let Some(fault) = fault {
        return (Verdict::Corrupted, fault);
    }
    match ending {
        Ending::Stuck { how } => (Verdict::Hung, how.clone()),
        Ending::Died { signal } => (Verdict::Crashed, format!("died of {signal}")),
        Ending::Exited { status: 0, token: true } => match lack_of_evidence(plan, threads) {
            Some(lack) => (Verdict::Inconclusive, lack),
            None => (Verdict::Passed, String::new()),
        },
        Ending::Exited { status, token: false } => (Verdict::Crashed, format!("exited with status {status}, without the success token")),
        Ending::Exited { status, token: true } => (Verdict::Crashed, format!("exited with status {status}")),
    }
}

/// What is missing for the case to mean something, although nothing failed in it.
fn lack_of_evidence(plan: &Plan, threads: &[Totals]) -> Option<String> {
    if let Some(idle) = threads.iter().position(|thread| thread.operations == 0) {
        return Some(format!("worker-{idle} did no operation"));
    }
    let totals: Totals = threads.iter().copied().sum();
    for (asked, what, count) in [(plan.churn, "threads were replaced", totals.threads_ended), (plan.fork, "forks", totals.forks)] {
        if asked && count < MIN_ENDINGS {
            return Some(format!("only {count} {what}, at least {MIN_ENDINGS} are needed"));
        }
    }
    if plan.rate_hz == 0 {
        return None;
    }
    if totals.handler_runs < MIN_HANDLER_RUNS {
        return Some(format!("only {} handler runs, at least {MIN_HANDLER_RUNS} are needed", totals.handler_runs));
    }
    if let Some(wanted) = plan.deferrals.filter(|wanted| totals.deferrals < *wanted) {
        return Some(format!("only {} of {wanted} deferrals in {} s", totals.deferrals, plan.seconds));
    }
    if let Some(wanted) = plan.inside.filter(|wanted| totals.inside < *wanted) {
        return Some(format!("only {} of {wanted} handler runs inside the allocator in {} s", totals.inside, plan.seconds));
    }
    let (what, count, least, asked) = match plan.subject.evidence() {
        Evidence::Deferrals => ("deferrals", totals.deferrals, MIN_DEFERRALS, plan.deferrals),
        Evidence::Inside => ("handler runs inside the allocator", totals.inside, MIN_INSIDE, plan.inside),
        Evidence::Runs => ("handler runs", totals.handler_runs, MIN_HANDLER_RUNS, None),
    };
    if count < least.min(asked.unwrap_or(least)) {
        return Some(format!("only {count} {what}, at least {least} are needed"));
    }
    let starved = |thread: &Totals| thread.operations < thread.handler_runs / HANDLER_RUNS_PER_OPERATION;
    threads.iter().position(starved).map(|thread| {
        let Totals { handler_runs, operations, .. } = threads[thread];
        format!("overloaded: worker-{thread} did {operations} operations beside {handler_runs} handler runs; ask for a lower rate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Subject;

    const FINE: Ending = Ending::Exited { status: 0, token: true };
    const BUSY: Totals =
        Totals { signals_sent: 1000, handler_runs: 1000, deferrals: 300, inside: 300, operations: 100_000, threads_ended: 0, forks: 0 };

    fn plan(subject: Subject) -> Plan {
        Plan::of(subject, 1)
    }

    fn verdict(plan: &Plan, ending: &Ending, threads: &[Totals]) -> Verdict {
        judge(plan, None, ending, threads).0
    }

    #[test]
    fn a_good_end_with_evidence_passes() {
        assert_eq!(verdict(&plan(Subject::SigsafeSpin), &FINE, &[BUSY, BUSY]), Verdict::Passed);
    }

    #[test]
    fn a_fault_comes_before_everything_else() {
        for ending in [FINE, Ending::Died { signal: "SIGSEGV".into() }, Ending::Stuck { how: "stuck".into() }] {
            let (verdict, why) = judge(&plan(Subject::System), Some("block".into()), &ending, &[BUSY]);
            assert_eq!((verdict, why.as_str()), (Verdict::Corrupted, "block"));
        }
    }

    #[test]
    fn every_bad_end_has_its_verdict() {
        let plan = plan(Subject::MaskedSystemDeferred);
        assert_eq!(verdict(&plan, &Ending::Stuck { how: String::new() }, &[BUSY]), Verdict::Hung);
        assert_eq!(verdict(&plan, &Ending::Died { signal: "SIGABRT".into() }, &[BUSY]), Verdict::Crashed);
        for (status, token) in [(0, false), (1, false), (1, true)] {
            assert_eq!(verdict(&plan, &Ending::Exited { status, token }, &[BUSY]), Verdict::Crashed);
        }
    }

    #[test]
    fn too_little_of_anything_is_inconclusive() {
        let protected = plan(Subject::MaskedSystemDeferred);
        for thread in [
            Totals { handler_runs: MIN_HANDLER_RUNS - 1, ..BUSY },
            Totals { deferrals: MIN_DEFERRALS - 1, ..BUSY },
            Totals { operations: 0, ..BUSY },
            Totals { operations: 99, ..BUSY },
        ] {
            assert_eq!(verdict(&protected, &FINE, &[thread]), Verdict::Inconclusive, "{thread:?}");
        }
        // One starved thread is enough.
        assert_eq!(verdict(&protected, &FINE, &[BUSY, Totals { operations: 9, ..BUSY }]), Verdict::Inconclusive);
        let wanted = Plan { deferrals: Some(301), ..protected };
        assert_eq!(verdict(&wanted, &FINE, &[BUSY]), Verdict::Inconclusive);
        assert_eq!(verdict(&Plan { deferrals: Some(300), ..wanted }, &FINE, &[BUSY]), Verdict::Passed);
    }

    #[test]
    fn unprotected_subjects_need_no_deferrals() {
        let thread = Totals { deferrals: 0, ..BUSY };
        assert_eq!(verdict(&plan(Subject::System), &FINE, &[thread]), Verdict::Passed);
        assert_eq!(verdict(&plan(Subject::TestFlip), &FINE, &[thread]), Verdict::Inconclusive);
    }

    #[test]
    fn a_storm_without_what_it_is_about_is_inconclusive() {
        let unmanaged = plan(Subject::SigsafeAllocUnmanaged);
        assert_eq!(verdict(&unmanaged, &FINE, &[Totals { deferrals: 0, ..BUSY }]), Verdict::Passed);
        assert_eq!(verdict(&unmanaged, &FINE, &[Totals { inside: MIN_INSIDE - 1, ..BUSY }]), Verdict::Inconclusive);
        assert_eq!(verdict(&Plan { inside: Some(301), ..unmanaged.clone() }, &FINE, &[BUSY]), Verdict::Inconclusive);
        let churn = Plan { churn: true, ..unmanaged.clone() };
        assert_eq!(verdict(&churn, &FINE, &[BUSY]), Verdict::Inconclusive);
        assert_eq!(verdict(&churn, &FINE, &[Totals { threads_ended: MIN_ENDINGS, ..BUSY }]), Verdict::Passed);
        let fork = Plan { fork: true, ..unmanaged };
        assert_eq!(verdict(&fork, &FINE, &[BUSY]), Verdict::Inconclusive);
        assert_eq!(verdict(&fork, &FINE, &[Totals { forks: MIN_ENDINGS, ..BUSY }]), Verdict::Passed);
    }

    #[test]
    fn without_signals_operations_are_enough() {
        let control = Plan { rate_hz: 0, ..plan(Subject::SigsafeSpin) };
        let thread = Totals { operations: 1, ..Totals::default() };
        assert_eq!(verdict(&control, &FINE, &[thread]), Verdict::Passed);
        assert_eq!(verdict(&control, &FINE, &[thread, Totals::default()]), Verdict::Inconclusive);
    }
}
