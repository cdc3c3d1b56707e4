//! What a run has to tell: the cases, the words for each, and what all of them mean together.

pub(crate) mod json;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use crate::compare::Expectation;
use crate::plan::Plan;
use crate::subject::Subject;
use crate::verdict::Verdict;
use crate::watchdog::CaseResult;

/// One case of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// What the comparison expects of it; a single storm expects nothing.
    pub(crate) expected: Option<Expectation>,
    pub(crate) result: CaseResult,
}

/// A run: what was to be done, and what was done.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) comparison: bool,
    pub(crate) plans: Vec<Plan>,
    pub(crate) cases: Vec<Case>,
    /// Whether every plan was run.
    pub(crate) complete: bool,
}

impl Case {
    /// Whether the case is as it should be: as expected, or passed where nothing else was said.
    pub(crate) fn is_good(&self) -> bool {
        self.expected.unwrap_or(Expectation::Pass).is_met_by(self.result.verdict)
    }

    /// The lines that tell of the case as it ends. The detail is shortened where the verdict was expected.
    pub(crate) fn lines(&self) -> Vec<String> {
        let CaseResult { plan, verdict, detail, seconds, totals, .. } = &self.result;
        let judged = match (self.expected, self.is_good()) {
            (None, _) => "",
            (Some(_), true) => " as expected",
            (Some(_), false) => ", NOT as expected",
        };
        let mut more = String::new();
        for (asked, count, what) in [(plan.churn, totals.threads_ended, "threads replaced"), (plan.fork, totals.forks, "forks")] {
            if asked {
                more += &format!("{} {what}, ", table::grouped(count));
            }
        }
        let mut lines = vec![format!(
            "{}: {}{judged} after {seconds:.1} s: {} signals sent, {} handler runs, {} deferrals, {} inside, {more}{} operations; \
             asked {} Hz, delivered {:.0} Hz",
            plan.subject,
            self.result.word(),
            table::grouped(totals.signals_sent),
            table::grouped(totals.handler_runs),
            table::grouped(totals.deferrals),
            table::grouped(totals.inside),
            table::grouped(totals.operations),
            plan.rate_hz,
            self.result.delivered_hz(),
        )];
        if *verdict != Verdict::Passed {
            let shown = if self.expected.is_some() && self.is_good() { 1 } else { detail.len() };
            lines.extend(detail.iter().take(shown).map(|line| format!("    {line}")));
            lines.push(format!("    again: {}", self.result.replay));
        }
        lines
    }
}

impl Report {
    pub(crate) fn new(comparison: bool, plans: Vec<Plan>) -> Report {
        Report { comparison, plans, cases: Vec::new(), complete: false }
    }

    /// What is about to be done, with the seed.
    pub(crate) fn heading(&self) -> String {
        let Some(plan) = self.plans.first() else { return String::new() };
        let what = if self.comparison {
            format!("{} subjects", self.plans.len())
        } else {
            format!("{}, workload {}", plan.subject, plan.workload)
        };
        let signals =
            if plan.rate_hz == 0 { "no signals".to_owned() } else { format!("SIGPROF by {} at {} Hz", plan.driver, plan.rate_hz) };
        format!("{what}: {signals}, {} threads, {} s each, seed {}", plan.threads, plan.seconds, plan.seed)
    }

    pub(crate) fn is_good(&self) -> bool {
        self.complete && self.cases.iter().all(Case::is_good)
    }

    /// What the results mean, in one line.
    pub(crate) fn conclusion(&self) -> String {
        if !self.comparison {
            return self.cases.first().map_or_else(String::new, |case| {
                let passed = "passed: every check held, every thread came to its end, and enough happened to mean something";
                match case.result.verdict {
                    Verdict::Passed if case.result.plan.subject.is_peer() => {
                        "survived: every check held in this storm, which says nothing about the next".to_owned()
                    }
                    Verdict::Passed => passed.to_owned(),
                    Verdict::Inconclusive => "inconclusive: too little happened to mean anything".to_owned(),
                    verdict => format!("{verdict}: {} does not survive this storm", case.result.plan.subject),
                }
            });
        }
        let odd: Vec<String> = self.cases.iter().filter(|case| !case.is_good()).map(odd_one).collect();
        if !odd.is_empty() {
            return format!("NOT as expected: {}", odd.join("; "));
        }
        if self.plans.iter().all(|plan| plan.rate_hz == 0) {
            return "without signals every subject passed, as expected: what fails in a storm fails by its signals".to_owned();
        }
        let sigsafe = Subject::ALL.iter().filter(|subject| subject.is_protected()).count();
        format!(
            "system and std-mutex failed as expected: a signal handler must not allocate or lock with them; \
             all {sigsafe} sigsafe subjects passed the same storm"
        )
    }
}

fn odd_one(case: &Case) -> String {
    let expected = case.expected.map_or("pass", Expectation::name);
    format!("{} was to {expected} and is {}", case.result.plan.subject, case.result.verdict)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verdict::Totals;

    /// A report in which every subject does what is expected, but for `odd`.
    pub(crate) fn report(odd: &[(Subject, Verdict)]) -> Report {
        let plans: Vec<Plan> = Subject::ALL.iter().map(|subject| Plan::of(*subject, 1)).collect();
        let mut report = Report::new(true, plans.clone());
        report.complete = true;
        report.cases = plans.into_iter().map(|plan| case(plan, odd)).collect();
        report
    }

    fn case(plan: Plan, odd: &[(Subject, Verdict)]) -> Case {
        let expected = Expectation::of(&plan);
        let usual = if expected == Expectation::Pass { Verdict::Passed } else { Verdict::Hung };
        let verdict = odd.iter().find(|(subject, _)| *subject == plan.subject).map_or(usual, |(_, verdict)| *verdict);
        let totals = Totals {
            signals_sent: 12_345,
            handler_runs: 12_344,
            deferrals: 77,
            inside: 88,
            operations: 1_234_567,
            threads_ended: 0,
            forks: 0,
        };
        let detail = if verdict == Verdict::Passed { vec![] } else { vec!["the reason".into(), "the whole story".into()] };
        let replay = plan.replay_command();
        Case { expected: Some(expected), result: CaseResult { plan, verdict, detail, seconds: 5.0, totals, threads: vec![totals], replay } }
    }

    #[test]
    fn a_run_is_good_when_every_case_is_as_expected() {
        let good = report(&[]);
        assert!(good.is_good() && good.conclusion().starts_with("system and std-mutex failed as expected"));
        for odd in [(Subject::System, Verdict::Passed), (Subject::System, Verdict::Inconclusive), (Subject::SigsafeSpin, Verdict::Hung)] {
            let bad = report(&[odd]);
            assert!(!bad.is_good() && bad.conclusion().contains(odd.0.name()), "{}", bad.conclusion());
        }
        assert!(!Report { complete: false, ..report(&[]) }.is_good());
    }

    #[test]
    fn every_failing_verdict_says_how_to_run_it_again() {
        for case in report(&[(Subject::SigsafeSpin, Verdict::Corrupted)]).cases {
            let lines = case.lines();
            let passed = case.result.verdict == Verdict::Passed;
            assert_eq!(lines.iter().any(|line| line.contains("again: sigsafe-stress storm")), !passed);
            // The whole detail is for what nobody expected.
            let whole = lines.iter().any(|line| line.contains("the whole story"));
            assert_eq!(whole, case.result.plan.subject == Subject::SigsafeSpin);
        }
    }
}
