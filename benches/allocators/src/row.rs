//! One row of the comparison: a workload, how much of it is timed, and how many blocks it asks for.

use crate::work::Work;

/// Everything about a row is data but `prepare`, which builds the workload from a seed: before the clock starts, once for each thread.
#[derive(Debug)]
pub struct Row {
    /// As in `--rows`, where the beginning of a name is enough.
    pub name: &'static str,
    pub what: &'static str,
    /// What one operation is, of which the time is reported.
    pub operation: &'static str,
    /// How many threads run the workload, each on its own. Some workloads start more.
    pub threads: u32,
    /// Turns of each thread in the timed part.
    pub turns: u64,
    /// Operations in a turn.
    pub operations: u64,
    /// Blocks that a turn asks for.
    pub allocations: Allocations,
    pub(crate) prepare: fn(seed: u64) -> Box<dyn Work>,
}

/// What a counting allocator must see in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocations {
    Exactly(u64),
    /// Where a library's buffers or a thread's start come on top.
    AtLeast(u64),
}

impl Row {
    /// Operations of the timed part, of all threads together.
    pub fn total(&self) -> u64 {
        u64::from(self.threads) * self.turns * self.operations
    }

    /// The error is what was expected, in words.
    pub fn check(&self, allocations: u64) -> Result<(), String> {
        let turns = u64::from(self.threads) * self.turns;
        match self.allocations {
            Allocations::Exactly(each) if allocations != each * turns => Err(format!("exactly {}", each * turns)),
            Allocations::AtLeast(each) if allocations < each * turns => Err(format!("at least {}", each * turns)),
            _ => Ok(()),
        }
    }
}
