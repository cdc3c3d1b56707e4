//! What the locks of a case guard, and the one face that all of them show.
//!
//! Main flow and handlers both come here: a section is a few loads and stores on the account, never an allocation.

use std::sync::PoisonError;

use sigsafe_core::Backend;

use crate::rng::Generator;

/// The cells of an account.
const CELLS: usize = 8;
/// What each cell holds at first.
const START: u64 = 1 << 32;

/// Data with an invariant that only holds between sections: two counters are equal, and the cells have a constant sum.
#[derive(Debug)]
pub(crate) struct Account {
    left: u64,
    right: u64,
    cells: [u64; CELLS],
}

/// An account whose invariant was found broken: which figure, what it should have been, what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Imbalance {
    /// True for the two counters, false for the sum.
    pub(crate) counters: bool,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Account {
    pub(crate) const fn new() -> Account {
        Account { left: 0, right: 0, cells: [START; CELLS] }
    }

    /// Checks the invariant, breaks it, and restores it: one section's work.
    pub(crate) fn transact(&mut self, generator: &mut Generator) -> Result<(), Imbalance> {
        self.check()?;
        let before = self.left + 1;
        volatile_store(&mut self.left, before);
        // SIGNAL: a handler that ran here and entered this section would find the counters unequal. The lock's region holds
        // it back; with a lock that has none it waits for its own thread.
        for _ in 0..4 {
            let (from, to) = (generator.below(CELLS as u32) as usize, generator.below(CELLS as u32) as usize);
            let amount = u64::from(generator.below(1000)).min(self.cells[from]);
            let less = self.cells[from] - amount;
            volatile_store(&mut self.cells[from], less);
            // SIGNAL: here the sum is short of the amount; as above.
            let more = self.cells[to] + amount;
            volatile_store(&mut self.cells[to], more);
        }
        let after = self.right + 1;
        volatile_store(&mut self.right, after);
        Ok(())
    }

    /// Checks the invariant.
    pub(crate) fn check(&self) -> Result<(), Imbalance> {
        if self.left != self.right {
            return Err(Imbalance { counters: true, expected: self.left, found: self.right });
        }
        let (expected, found) = (START * CELLS as u64, self.cells.iter().sum());
        if expected != found {
            return Err(Imbalance { counters: false, expected, found });
        }
        Ok(())
    }
}

/// A store that stays where it is written, so that the sections do pass through broken states.
fn volatile_store(place: &mut u64, value: u64) {
    // SAFETY: the place is an exclusive reference, hence valid and aligned for a write.
    unsafe { std::ptr::from_mut(place).write_volatile(value) };
}

/// A lock around an account. Which contexts may call it is the very question of the storm: main flow and handlers both do.
pub(crate) trait SharedLock: Sync {
    /// Runs `section` while the lock is held, waiting for it first.
    fn with(&self, section: &mut dyn FnMut(&mut Account));
}

impl SharedLock for std::sync::Mutex<Account> {
    fn with(&self, section: &mut dyn FnMut(&mut Account)) {
        section(&mut self.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<B: Backend> SharedLock for sigsafe_mutex::Mutex<Account, B> {
    fn with(&self, section: &mut dyn FnMut(&mut Account)) {
        section(&mut self.lock());
    }
}

impl<B: Backend> SharedLock for sigsafe_mutex::SpinMutex<Account, B> {
    fn with(&self, section: &mut dyn FnMut(&mut Account)) {
        section(&mut self.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_keep_the_invariant() {
        let (mut account, mut generator) = (Account::new(), Generator::new(1, 0));
        for _ in 0..1000 {
            account.transact(&mut generator).unwrap();
        }
        assert_eq!(account.check(), Ok(()));
        assert_eq!(account.left, 1000);
    }

    #[test]
    fn each_broken_figure_is_seen() {
        let mut account = Account::new();
        account.left = 3;
        assert_eq!(account.check(), Err(Imbalance { counters: true, expected: 3, found: 0 }));
        let mut account = Account::new();
        account.cells[2] += 1;
        assert!(matches!(account.check(), Err(Imbalance { counters: false, .. })));
    }
}
