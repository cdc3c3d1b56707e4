//! What the main flow of each thread does, over and over, while signals land in it.

pub(crate) mod blocks;
pub(crate) mod ledger;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, Flow};
use crate::fault::Fault;
use crate::plan::Plan;
use crate::rng::Generator;
use crate::subject::Subject;
use crate::subject::parts::Parts;
use blocks::Table;
use ledger::Ledger;

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// allocate, resize, check and free blocks
    Alloc,
    /// update accounts under shared locks
    Lock,
    /// both in turn
    Mixed,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Workload; 3] = [Workload::Alloc, Workload::Lock, Workload::Mixed];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Workload::Alloc => "alloc",
            Workload::Lock => "lock",
            Workload::Mixed => "mixed",
        }
    }

    /// One line for the list.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Workload::Alloc => "replace, resize and check blocks of 16 bytes to 16 KiB",
            Workload::Lock => "update accounts under shared locks, one or two at a time; the handler takes the same locks",
            Workload::Mixed => "both in turn",
        }
    }

    /// Whether locks are taken.
    #[must_use]
    pub const fn locks(self) -> bool {
        matches!(self, Workload::Lock | Workload::Mixed)
    }

    /// Whether the main flow allocates.
    #[must_use]
    pub const fn allocates(self) -> bool {
        matches!(self, Workload::Alloc | Workload::Mixed)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of one thread's main flow. Made before the storm; handlers never see it.
pub(crate) struct MainFlow {
    table: Option<Table>,
    ledger: Option<Ledger>,
    exchange: Option<Exchange>,
    turn: u64,
}

impl MainFlow {
    /// The main flow of thread `index`.
    pub(crate) fn new(plan: &Plan, parts: Parts, index: u32) -> MainFlow {
        let stream = 2 * u64::from(index);
        // The damage comes early enough for the shortest storm, and is done by one thread.
        let damaged = plan.subject == Subject::TestFlip && index == 0;
        MainFlow {
            table: plan.workload.allocates().then(|| Table::new(parts.heap, Generator::new(plan.seed, stream), damaged.then_some(1000))),
            ledger: plan.workload.locks().then(|| Ledger::new(parts.locks, Generator::new(!plan.seed, stream))),
            exchange: parts.tables.filter(|_| plan.workload.allocates()).map(|tables| {
                Exchange::new(tables, parts.heap, Flow::Main, index, plan.threads, Generator::new(plan.seed.rotate_left(16), stream))
            }),
            turn: 0,
        }
    }

    /// One operation.
    pub(crate) fn step(&mut self) -> Result<(), Fault> {
        self.turn += 1;
        if self.turn.is_multiple_of(4)
            && let Some(exchange) = &mut self.exchange
        {
            return exchange.turn().map(drop);
        }
        match (&mut self.table, &mut self.ledger) {
            (Some(table), Some(_)) if self.turn & 1 == 0 => table.replace(),
            (_, Some(ledger)) => ledger.transact(),
            (Some(table), None) => table.replace(),
            (None, None) => Ok(()),
        }
    }

    /// Checks and frees every block that it holds. Signals may land in it.
    pub(crate) fn free_all(&mut self) -> Result<(), Fault> {
        self.table.as_mut().map_or(Ok(()), Table::drain)
    }

    /// What the child of a fork does with what it has inherited: no lock, which may be another thread's for good.
    pub(crate) fn go_on_in_child(&mut self) -> Result<(), Fault> {
        const STEPS: u32 = 300;
        for _ in 0..STEPS {
            if let Some(table) = &mut self.table {
                table.replace()?;
            }
            if let Some(exchange) = &mut self.exchange {
                exchange.turn()?;
            }
        }
        self.free_all()
    }

    /// Checks and frees all that it holds. Nothing may interrupt this thread any more.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        self.free_all()?;
        self.ledger.as_mut().map_or(Ok(()), Ledger::check_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_the_same() {
        for workload in Workload::ALL {
            assert_eq!(Workload::from_str(workload.name(), false), Ok(workload));
            assert_eq!(serde_json::to_value(workload).unwrap(), workload.name());
        }
    }

    #[test]
    fn every_subject_survives_every_workload_of_its_own_without_signals() {
        for &subject in Subject::ALL {
            for workload in subject.workloads() {
                let plan = Plan { workload: *workload, ..Plan::of(subject, 11) };
                let parts = Parts::of(subject);
                let mut flow = MainFlow::new(&plan, parts, 0);
                for _ in 0..3000 {
                    flow.step().unwrap();
                }
                flow.finish().unwrap();
                assert_eq!(parts.tables.is_some(), subject.is_apart_from_libc());
                parts.tables.map_or(Ok(()), |tables| tables.drain(parts.heap)).unwrap();
            }
        }
    }

    #[test]
    fn the_flipped_byte_is_noticed() {
        let plan = Plan::of(Subject::TestFlip, 11);
        let mut flow = MainFlow::new(&plan, Parts::of(plan.subject), 0);
        let noticed = (0..2000).any(|_| flow.step().is_err()) || flow.finish().is_err();
        assert!(noticed);
    }
}
