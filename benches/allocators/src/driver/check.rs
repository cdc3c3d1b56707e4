//! Each row on an allocator that counts: the compiler may leave out an allocation that nobody looks at, and then a row measures nothing.

use sigsafe_bench_allocators::{DEFAULT, GROWTH, PAIRS};

use crate::build;
use crate::campaign::measure;

/// Fails if a row asked for fewer or more blocks than it says.
pub(crate) fn run() -> Result<(), String> {
    let counting = build::counting()?;
    let mut wrong = 0;
    for row in DEFAULT.iter().chain(GROWTH).chain(PAIRS) {
        let report = measure(&counting, row)?;
        let allocations = report.allocations.ok_or("the counting allocator reports no count")?;
        let verdict = match row.check(allocations) {
            Ok(()) => "ok".to_owned(),
            Err(expected) => {
                wrong += 1;
                format!("WRONG: {expected}")
            }
        };
        println!("{:<20} {allocations:>12} blocks in {:>12} operations: {verdict}", row.name, report.operations);
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} rows do not ask for the blocks that they say")) }
}
