//! The measured process: one row, on the allocator that it was linked with.
//!
//! ```text
//! alloc-NAME measure ROW      prepares, warms up, times; prints a report
//! alloc-NAME idle             prints what the same program needs without a workload
//! alloc-NAME turns ROW N      does N turns and nothing else: for counts of instructions
//! ```

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::memory;
use crate::row::Row;
use crate::rows;
use crate::work::Work;

/// What the binary knows about its allocator beyond `GlobalAlloc`.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Gives back to the system what is not in use.
    pub purge: Option<fn()>,
    /// How many blocks have been asked for so far.
    pub allocations: Option<fn() -> u64>,
}

impl Subject {
    pub const PLAIN: Self = Self { purge: None, allocations: None };
}

/// What a measured process prints, as one line of JSON.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Operations of the timed part, of all threads together.
    pub operations: u64,
    /// From the first thread's start to the last one's end.
    pub wall_ns: u64,
    /// Processor time of all threads.
    pub cpu_ns: u64,
    /// Blocks that were asked for in the timed part, if the allocator counts.
    pub allocations: Option<u64>,
    /// Resident memory: before the workload was prepared, at its highest, after everything was freed, after a purge.
    pub start_kib: u64,
    pub peak_kib: u64,
    pub freed_kib: u64,
    pub purged_kib: Option<u64>,
    /// Whether a preloaded tcmalloc is mapped.
    pub tcmalloc: bool,
}

/// A part of the timed turns comes first, untimed.
const WARM_UP: u64 = 4;

/// The `main` of each measured binary. A wrong command line is the driver's mistake and ends in a panic.
pub fn main(subject: Subject) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments[..] {
        ["measure", name] => measure(row(name), subject),
        ["idle"] => idle(),
        ["turns", name, turns] => {
            (row(name).prepare)(1).run(turns.parse().expect("a number of turns"));
            return;
        }
        _ => panic!("arguments: measure ROW | idle | turns ROW N"),
    };
    println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
}

fn row(name: &str) -> &'static Row {
    rows::find(name).unwrap_or_else(|| panic!("no row {name}"))
}

fn idle() -> Report {
    let start_kib = memory::resident_kib();
    Report { start_kib, peak_kib: memory::peak_kib(), tcmalloc: memory::is_mapped("libtcmalloc"), ..Report::default() }
}

fn measure(row: &Row, subject: Subject) -> Report {
    let mut report = idle();
    report.operations = row.total();
    if row.threads == 1 {
        alone(row, subject, &mut report);
    } else {
        together(row, subject, &mut report);
    }
    report.peak_kib = memory::peak_kib();
    report.freed_kib = memory::resident_kib();
    report.purged_kib = subject.purge.map(|purge| {
        purge();
        memory::resident_kib()
    });
    report
}

/// On the main thread.
fn alone(row: &Row, subject: Subject, report: &mut Report) {
    let mut work = ready(row, 1);
    let counts = Counts::now(subject);
    let start = Instant::now();
    work.run(row.turns);
    report.wall_ns = start.elapsed().as_nanos() as u64;
    counts.record(subject, report);
}

/// On several threads. This one reads what counts for the process while they stand at a barrier.
fn together(row: &Row, subject: Subject, report: &mut Report) {
    let everybody = Barrier::new(row.threads as usize + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=row.threads)
            .map(|seed| {
                let everybody = &everybody;
                scope.spawn(move || {
                    let mut work = ready(row, seed.into());
                    everybody.wait();
                    everybody.wait();
                    let start = Instant::now();
                    work.run(row.turns);
                    let end = Instant::now();
                    everybody.wait();
                    everybody.wait();
                    (start, end)
                })
            })
            .collect();
        everybody.wait();
        let counts = Counts::now(subject);
        everybody.wait();
        everybody.wait();
        counts.record(subject, report);
        everybody.wait();
        let times: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let first = times.iter().map(|(start, _)| *start).min().expect("at least one thread");
        let last = times.iter().map(|(_, end)| *end).max().expect("at least one thread");
        report.wall_ns = (last - first).as_nanos() as u64;
    });
}

fn ready(row: &Row, seed: u64) -> Box<dyn Work> {
    let mut work = (row.prepare)(seed);
    work.run(row.turns.div_ceil(WARM_UP));
    work
}

/// What the whole process has used up to a moment.
struct Counts {
    cpu_ns: u64,
    allocations: Option<u64>,
}

impl Counts {
    fn now(subject: Subject) -> Self {
        Self { cpu_ns: memory::cpu_ns(), allocations: subject.allocations.map(|count| count()) }
    }

    /// What has been used since.
    fn record(self, subject: Subject, report: &mut Report) {
        let now = Self::now(subject);
        report.cpu_ns = now.cpu_ns - self.cpu_ns;
        report.allocations = now.allocations.zip(self.allocations).map(|(now, then)| now - then);
    }
}
