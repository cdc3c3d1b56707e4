//! Running the cases of a report in turn, and what each is expected to show.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::report::{Case, Report};
use crate::verdict::Verdict;
use crate::watchdog;

/// What a case of the comparison should show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// To pass.
    Pass,
    /// To hang, crash or corrupt. Anything else, inconclusive included, is not as expected.
    Fail,
    /// To hang, crash or corrupt; but to pass is no error: the subject has survived this storm, and promised nothing.
    Either,
}

impl Expectation {
    /// What `plan` should show: without signals everything passes; with signals, what is sigsafe's. Peers may do either.
    #[must_use]
    pub const fn of(plan: &Plan) -> Expectation {
        match plan.subject {
            subject if plan.rate_hz == 0 || subject.is_protected() => Expectation::Pass,
            subject if subject.is_peer() => Expectation::Either,
            _ => Expectation::Fail,
        }
    }

    /// Whether `verdict` is what was expected.
    #[must_use]
    pub const fn is_met_by(self, verdict: Verdict) -> bool {
        match self {
            Expectation::Pass => matches!(verdict, Verdict::Passed),
            Expectation::Fail => verdict.is_failure(),
            Expectation::Either => !matches!(verdict, Verdict::Inconclusive),
        }
    }

    /// The word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Expectation::Pass => "pass",
            Expectation::Fail => "fail",
            Expectation::Either => "either",
        }
    }
}

/// How a run over all cases ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Complete,
    Interrupted,
}

/// Runs the plans of `report` in their order and adds each result to it as it comes.
pub(crate) fn run(report: &mut Report, program: &Path, interrupt: &Interrupt, console: &Console) -> io::Result<Finish> {
    let plans = report.plans.clone();
    for (place, plan) in plans.iter().enumerate() {
        console.begin(place + 1, plans.len(), plan);
        let mut update = |progress: &watchdog::Progress| console.update(plan, progress);
        let Some(result) = watchdog::run(plan, program, Some(interrupt.descriptor()), &mut update)? else {
            return Ok(Finish::Interrupted);
        };
        let case = Case { expected: report.comparison.then(|| Expectation::of(plan)), result };
        for line in case.lines() {
            console.line(&line);
        }
        report.cases.push(case);
    }
    report.complete = true;
    Ok(Finish::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Subject;

    #[test]
    fn only_what_is_unprotected_is_expected_to_fail() {
        let failing: Vec<_> = Subject::ALL.iter().copied().filter(|s| Expectation::of(&Plan::of(*s, 1)) == Expectation::Fail).collect();
        assert_eq!(failing, [Subject::System, Subject::StdMutex]);
        let either = Subject::ALL.iter().filter(|s| Expectation::of(&Plan::of(**s, 1)) == Expectation::Either).count();
        assert_eq!(either, if cfg!(feature = "peers") { 4 } else { 0 });
        for &subject in Subject::ALL {
            assert_eq!(Expectation::of(&Plan { rate_hz: 0, ..Plan::of(subject, 1) }), Expectation::Pass);
        }
    }

    #[test]
    fn inconclusive_meets_no_expectation() {
        use Verdict::{Corrupted, Crashed, Hung, Inconclusive, Passed};
        for verdict in [Passed, Hung, Crashed, Corrupted, Inconclusive] {
            assert_eq!(Expectation::Pass.is_met_by(verdict), verdict == Passed);
            assert_eq!(Expectation::Either.is_met_by(verdict), verdict != Inconclusive);
            assert_eq!(Expectation::Fail.is_met_by(verdict), matches!(verdict, Hung | Crashed | Corrupted));
        }
    }
}
