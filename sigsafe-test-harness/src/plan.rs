//! What a case is to do, apart from how it is run: subject, driver, workload and numbers, with the rules for what fits.
//!
//! Plain data. A plan goes to the child as JSON, and into the report, so that every failure can be replayed from what was
//! printed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::driver::Driver;
use crate::subject::{Evidence, Subject};
use crate::workload::Workload;

/// The most threads of a case: what the block of shared counters has room for.
pub const MAX_THREADS: u32 = 64;
/// The longest storm, in seconds.
pub const MAX_SECONDS: u32 = 3600;
/// The highest rate that may be asked for, in signals a second. No driver reaches it: it means as fast as it goes.
pub const MAX_RATE_HZ: u32 = 1_000_000;
/// How long a thread may go without progress before it counts as hung, unless a plan says otherwise.
pub const DEFAULT_HANG_LIMIT_MS: u32 = 3000;

/// One case: everything that decides what it does, but for the instants at which signals land.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The allocator or lock under test.
    pub subject: Subject,
    /// What sends the signals.
    pub driver: Driver,
    /// What the threads do.
    pub workload: Workload,
    /// Signals a second: for each thread, or for each second of the process's CPU time with [`Driver::Itimer`]. 0: no signals.
    pub rate_hz: u32,
    /// Threads that work and are signalled.
    pub threads: u32,
    /// How long the storm lasts, or with `deferrals` may last at most.
    pub seconds: u32,
    /// Decides every choice of the workload and of the collector.
    pub seed: u64,
    /// The storm ends as soon as this many deferrals have been counted.
    pub deferrals: Option<u64>,
    /// The storm ends as soon as this many handler runs inside the allocator have been counted.
    pub inside: Option<u64>,
    /// How many seconds the storm lasts even if it has counted that many before.
    pub at_least: u32,
    /// Threads end and are replaced all through the storm.
    pub churn: bool,
    /// Threads fork at intervals.
    pub fork: bool,
    /// How long a thread may go without progress before it counts as hung.
    pub hang_limit_ms: u32,
}

impl Plan {
    /// The usual case of `subject`: 2 threads, its own workload, per-thread timers at 4000 Hz, 5 seconds.
    #[must_use]
    pub fn of(subject: Subject, seed: u64) -> Plan {
        Plan {
            subject,
            driver: Driver::Timer,
            workload: subject.default_workload(),
            rate_hz: 4000,
            threads: 2,
            seconds: 5,
            seed,
            deferrals: None,
            inside: None,
            at_least: 0,
            churn: false,
            fork: false,
            hang_limit_ms: DEFAULT_HANG_LIMIT_MS,
        }
    }

    /// Checks that the numbers are possible and that the subject can do the workload.
    ///
    /// # Errors
    ///
    /// The first rule that the plan breaks, with what is allowed.
    pub fn validate(&self) -> Result<(), PlanError> {
        let ranges = [
            ("threads", self.threads, 1, MAX_THREADS),
            ("seconds", self.seconds, 1, MAX_SECONDS),
            ("at least (seconds)", self.at_least, 0, self.seconds),
            ("rate", self.rate_hz, 0, MAX_RATE_HZ),
            ("hang limit (ms)", self.hang_limit_ms, 100, 600_000),
        ];
        for (what, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(PlanError::OutOfRange { what, value: value.into(), low, high });
            }
        }
        if !self.subject.workloads().contains(&self.workload) {
            return Err(PlanError::ImpossiblePair { subject: self.subject, workload: self.workload });
        }
        if (self.churn || self.fork) && !self.subject.is_apart_from_libc() {
            return Err(PlanError::NotApartFromLibc);
        }
        let evidence = self.subject.evidence();
        match (self.deferrals, self.inside) {
            (Some(0), _) | (_, Some(0)) => Err(PlanError::NothingAsked),
            (Some(_), _) if self.rate_hz == 0 || evidence != Evidence::Deferrals => Err(PlanError::DeferralsCannotHappen),
            (_, Some(_)) if self.rate_hz == 0 || evidence != Evidence::Inside => Err(PlanError::RunsInsideCannotHappen),
            _ => Ok(()),
        }
    }

    /// The command that runs this case again.
    #[must_use]
    pub fn replay_command(&self) -> String {
        let mut command = format!(
            "sigsafe-stress storm --subject {} --driver {} --rate {} --threads {} --seconds {} --workload {} --seed {}",
            self.subject, self.driver, self.rate_hz, self.threads, self.seconds, self.workload, self.seed
        );
        if let Some(deferrals) = self.deferrals {
            command += &format!(" --deferrals {deferrals}");
        }
        if let Some(inside) = self.inside {
            command += &format!(" --inside {inside}");
        }
        if self.at_least != 0 {
            command += &format!(" --at-least {}", self.at_least);
        }
        for (asked, option) in [(self.churn, " --churn"), (self.fork, " --fork")] {
            command += if asked { option } else { "" };
        }
        if self.hang_limit_ms != DEFAULT_HANG_LIMIT_MS {
            command += &format!(" --hang-limit-ms {}", self.hang_limit_ms);
        }
        command
    }

    /// The gap between a handler's end and the next signal that the rate asks for; 0 when there are no signals.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000_u64.checked_div(self.rate_hz.into()).unwrap_or(0)
    }
}

/// Why a plan is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// A number outside what is possible.
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What was asked.
        value: u64,
        /// The least that is allowed.
        low: u32,
        /// The most that is allowed.
        high: u32,
    },
    /// The subject is not something that the workload can exercise.
    ImpossiblePair {
        /// The subject asked for.
        subject: Subject,
        /// The workload asked for.
        workload: Workload,
    },
    /// A storm that is to end after no deferral or no handler run inside the allocator at all.
    NothingAsked,
    /// Deferrals are asked of a case in which none can happen.
    DeferralsCannotHappen,
    /// Handler runs inside the allocator are asked of a case in which none can happen, or none is counted.
    RunsInsideCannotHappen,
    /// Threads are to end, or to fork, where libc's allocator would have a part in it.
    NotApartFromLibc,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::OutOfRange { what, value, low, high } => {
                write!(f, "{what} cannot be {value}: it must be from {low} to {high}")
            }
            PlanError::ImpossiblePair { subject, workload } => {
                write!(f, "the subject {subject} cannot run the workload {workload}; it runs ")?;
                list(f, subject.workloads())?;
                write!(f, ", and {workload} is run by ")?;
                let able: Vec<Subject> = Subject::ALL.iter().copied().filter(|s| s.workloads().contains(workload)).collect();
                list(f, &able)
            }
            PlanError::NothingAsked => {
                f.write_str("the number of deferrals or of runs inside cannot be 0: leave it out or ask for at least 1")
            }
            PlanError::DeferralsCannotHappen => f.write_str(
                "no deferral can happen without signals (rate 0), without regions (system, std-mutex) or with an unmanaged handler",
            ),
            PlanError::RunsInsideCannotHappen => f.write_str(
                "handler runs inside the allocator are counted for sigsafe-alloc-unmanaged alone, and not without signals (rate 0)",
            ),
            PlanError::NotApartFromLibc => {
                f.write_str("--churn and --fork are for allocators apart from libc's: ")?;
                let able: Vec<Subject> = Subject::ALL.iter().copied().filter(|s| s.is_apart_from_libc()).collect();
                list(f, &able)
            }
        }
    }
}

impl std::error::Error for PlanError {}

fn list(f: &mut fmt::Formatter<'_>, names: &[impl fmt::Display]) -> fmt::Result {
    for (place, name) in names.iter().enumerate() {
        write!(f, "{}{name}", if place == 0 { "" } else { ", " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::of(Subject::MaskedSystemDeferred, 1)
    }

    #[test]
    fn the_usual_case_of_every_subject_is_valid() {
        for &subject in Subject::ALL {
            assert_eq!(Plan::of(subject, 1).validate(), Ok(()));
        }
    }

    #[test]
    fn impossible_numbers_are_refused_with_the_possible_ones() {
        let refused = [
            Plan { threads: 0, ..plan() },
            Plan { threads: MAX_THREADS + 1, ..plan() },
            Plan { seconds: 0, ..plan() },
            Plan { at_least: plan().seconds + 1, ..plan() },
            Plan { seconds: MAX_SECONDS + 1, ..plan() },
            Plan { rate_hz: MAX_RATE_HZ + 1, ..plan() },
            Plan { hang_limit_ms: 1, ..plan() },
        ];
        for plan in refused {
            let error = plan.validate().expect_err("an impossible number");
            assert!(error.to_string().contains("must be from"), "{error}");
        }
        assert_eq!(Plan { rate_hz: 0, ..plan() }.validate(), Ok(()));
        assert_eq!(Plan { threads: MAX_THREADS, ..plan() }.validate(), Ok(()));
    }

    #[test]
    fn impossible_pairs_are_refused_with_the_valid_ones() {
        for &subject in Subject::ALL {
            for workload in Workload::ALL {
                let result = Plan { workload, ..Plan::of(subject, 1) }.validate();
                assert_eq!(result.is_ok(), subject.workloads().contains(&workload), "{subject} with {workload}");
            }
        }
        let error = Plan { workload: Workload::Alloc, ..Plan::of(Subject::StdMutex, 1) }.validate().unwrap_err().to_string();
        assert!(error.contains("it runs lock, mixed") && error.contains("run by system, masked-system-deferred"), "{error}");
    }

    #[test]
    fn deferrals_are_asked_only_where_they_can_happen() {
        let asked = Plan { deferrals: Some(1), ..plan() };
        assert_eq!(asked.validate(), Ok(()));
        assert_eq!(Plan { deferrals: Some(0), ..plan() }.validate(), Err(PlanError::NothingAsked));
        assert_eq!(Plan { rate_hz: 0, ..asked.clone() }.validate(), Err(PlanError::DeferralsCannotHappen));
        assert_eq!(Plan { subject: Subject::System, ..asked }.validate(), Err(PlanError::DeferralsCannotHappen));
    }

    #[test]
    fn runs_inside_and_churn_are_asked_only_where_they_can_happen() {
        let unmanaged = Plan::of(Subject::SigsafeAllocUnmanaged, 1);
        let asked = Plan { inside: Some(1), ..unmanaged.clone() };
        assert_eq!(asked.validate(), Ok(()));
        assert_eq!(Plan { inside: Some(0), ..asked.clone() }.validate(), Err(PlanError::NothingAsked));
        assert_eq!(Plan { rate_hz: 0, ..asked.clone() }.validate(), Err(PlanError::RunsInsideCannotHappen));
        assert_eq!(Plan { subject: Subject::SigsafeAlloc, ..asked }.validate(), Err(PlanError::RunsInsideCannotHappen));
        assert_eq!(Plan { deferrals: Some(1), ..unmanaged.clone() }.validate(), Err(PlanError::DeferralsCannotHappen));
        for (churn, fork) in [(true, false), (false, true), (true, true)] {
            assert_eq!(Plan { churn, fork, ..unmanaged.clone() }.validate(), Ok(()));
            assert_eq!(Plan { churn, fork, ..plan() }.validate(), Err(PlanError::NotApartFromLibc));
        }
    }

    #[test]
    fn a_plan_survives_its_way_through_json() {
        let plan = Plan { deferrals: Some(9), seed: u64::MAX, ..plan() };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn the_replay_command_names_everything() {
        let plan = Plan { deferrals: Some(9), ..plan() };
        assert_eq!(
            plan.replay_command(),
            "sigsafe-stress storm --subject masked-system-deferred --driver timer --rate 4000 --threads 2 --seconds 5 \
             --workload alloc --seed 1 --deferrals 9"
        );
        let plan = Plan { deferrals: None, inside: Some(5), at_least: 2, churn: true, fork: true, ..plan };
        assert!(plan.replay_command().ends_with(" --seed 1 --inside 5 --at-least 2 --churn --fork"));
    }
}
