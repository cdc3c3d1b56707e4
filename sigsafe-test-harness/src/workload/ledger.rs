//! The locking half of the workload: transactions on accounts under the subject's locks.
//!
//! The main flow has one ledger and the handler of the same thread another; both stand for the same locks. A step waits for
//! one lock, or for two in the order of their numbers, so that no two threads can wait for each other.

use crate::fault::{Fault, FaultKind};
use crate::rng::Generator;
use crate::subject::account::{Imbalance, SharedLock};
use crate::subject::parts::LOCKS;

/// One context's way to the locks of the case.
pub(crate) struct Ledger {
    locks: [&'static dyn SharedLock; LOCKS],
    generator: Generator,
}

impl Ledger {
    /// A ledger over `locks`.
    pub(crate) fn new(locks: [&'static dyn SharedLock; LOCKS], generator: Generator) -> Ledger {
        Ledger { locks, generator }
    }

    /// One transaction, on two accounts one time in four. Whatever context it is called in, it waits for the locks.
    pub(crate) fn transact(&mut self) -> Result<(), Fault> {
        let (locks, generator) = (&self.locks, &mut self.generator);
        let first = generator.below(LOCKS as u32) as usize;
        let second = first + 1 + generator.below(LOCKS as u32) as usize;
        let second = (second < LOCKS && generator.one_in(2)).then_some(second);
        let mut result = Ok(());
        locks[first].with(&mut |account| {
            result = account.transact(generator).map_err(|imbalance| fault_of(first, imbalance));
            if let Some(second) = second
                && result.is_ok()
            {
                locks[second].with(&mut |account| {
                    result = account.transact(generator).map_err(|imbalance| fault_of(second, imbalance));
                });
            }
        });
        result
    }

    /// Checks every account.
    pub(crate) fn check_all(&mut self) -> Result<(), Fault> {
        let mut result = Ok(());
        for (number, lock) in self.locks.iter().enumerate() {
            lock.with(&mut |account| {
                if let Err(imbalance) = account.check() {
                    result = Err(fault_of(number, imbalance));
                }
            });
        }
        result
    }
}

fn fault_of(lock: usize, imbalance: Imbalance) -> Fault {
    let kind = if imbalance.counters { FaultKind::Counters } else { FaultKind::Sum };
    let Imbalance { expected, found, .. } = imbalance;
    Fault { kind, block: lock as u64, size: 0, offset: 0, expected, found }
}
