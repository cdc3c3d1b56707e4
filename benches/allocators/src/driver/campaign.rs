//! Rounds of fresh processes: in each round every row is run once by every allocator, in an order drawn anew, so that what else the
//! machine does falls on all alike.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sigsafe_bench_allocators::{Report, Row, TREE, tree};

use crate::build::Contestant;
use crate::statistics::{Ratio, median, ratio};
use crate::{Clock, Options};

/// All that was measured, and what follows from it.
#[derive(Debug, Serialize)]
pub(crate) struct Campaign {
    pub(crate) seed: u64,
    pub(crate) rounds: u32,
    pub(crate) clock: &'static str,
    /// The first is what the others are compared with.
    pub(crate) allocators: Vec<String>,
    /// The peak of the same program without a workload, in KiB: what the allocator and the program take at the start.
    pub(crate) idle_kib: Vec<f64>,
    pub(crate) rows: Vec<Measured>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) row: &'static str,
    pub(crate) operation: &'static str,
    /// In the order of `Campaign::allocators`.
    pub(crate) results: Vec<Figures>,
}

/// One allocator on one row.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// The median of an operation's time.
    pub(crate) ns: f64,
    /// This allocator's time over the reference's: above 1, the reference is faster.
    pub(crate) ratio: Ratio,
    /// Medians in KiB: the peak, and what stays resident when everything has been freed and after a purge, each less what the same program
    /// has without a workload.
    pub(crate) peak_kib: f64,
    pub(crate) freed_kib: f64,
    pub(crate) purged_kib: Option<f64>,
    samples: Vec<Report>,
}

pub(crate) fn run(rows: &[&'static Row], contestants: &[Contestant], options: &Options) -> Result<Campaign, String> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {} rounds, {} rows, {} allocators", options.rounds, rows.len(), contestants.len());
    let mut rng = Rng::with_seed(seed);
    let mut idle: Vec<Vec<Report>> = vec![Vec::new(); contestants.len()];
    let mut samples: HashMap<(usize, usize), Vec<Report>> = HashMap::new();
    let progress = ProgressBar::new(u64::from(options.rounds) * (rows.len() * contestants.len()) as u64)
        .with_style(ProgressStyle::with_template("{pos}/{len} {elapsed} (left {eta}) {msg}").expect("the template is valid"));
    for _ in 0..options.rounds {
        for (index, contestant) in contestants.iter().enumerate() {
            idle[index].push(ask(contestant, &["idle"])?);
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        rng.shuffle(&mut order);
        for row in order {
            let mut turn: Vec<usize> = (0..contestants.len()).collect();
            rng.shuffle(&mut turn);
            for index in turn {
                progress.set_message(format!("{} {}", rows[row].name, contestants[index].name));
                samples.entry((row, index)).or_default().push(measure(&contestants[index], rows[row])?);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();

    let rows = rows
        .iter()
        .enumerate()
        .map(|(row, about)| {
            let reference: Vec<f64> = samples[&(row, 0)].iter().map(|report| time_ns(report, options.clock)).collect();
            let results = (0..contestants.len())
                .map(|index| {
                    let samples = samples.remove(&(row, index)).expect("every row was run");
                    figures(samples, &idle[index], &reference, options.clock, &mut rng)
                })
                .collect();
            Measured { row: about.name, operation: about.operation, results }
        })
        .collect();
    Ok(Campaign {
        seed,
        rounds: options.rounds,
        clock: if options.clock == Clock::Wall { "wall" } else { "cpu" },
        allocators: contestants.iter().map(|contestant| contestant.name.clone()).collect(),
        idle_kib: idle.iter().map(|reports| median(reports.iter().map(|report| report.peak_kib as f64))).collect(),
        rows,
    })
}

/// Runs one row once, in a process of its own.
pub(crate) fn measure(contestant: &Contestant, row: &Row) -> Result<Report, String> {
    ask(contestant, &["measure", row.name])
}

fn ask(contestant: &Contestant, arguments: &[&str]) -> Result<Report, String> {
    let what = || format!("{} {}", contestant.name, arguments.join(" "));
    // One tree for all, wherever a binary lies that was built before.
    let tree = tree().map_err(|error| format!("the tree to search: {error}"))?;
    let output = contestant.command().env(TREE, tree).args(arguments).output().map_err(|error| format!("{}: {error}", what()))?;
    if !output.status.success() {
        return Err(format!("{}: {}\n{}", what(), output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let report: Report = serde_json::from_slice(&output.stdout).map_err(|error| format!("{}: {error}", what()))?;
    if report.tcmalloc != contestant.expects_tcmalloc() {
        return Err(format!("{}: tcmalloc is {}mapped", what(), if report.tcmalloc { "" } else { "not " }));
    }
    Ok(report)
}

fn time_ns(report: &Report, clock: Clock) -> f64 {
    let ns = match clock {
        Clock::Wall => report.wall_ns,
        Clock::Cpu => report.cpu_ns,
    };
    ns as f64 / report.operations as f64
}

fn figures(samples: Vec<Report>, idle: &[Report], reference: &[f64], clock: Clock, rng: &mut Rng) -> Figures {
    let times: Vec<f64> = samples.iter().map(|report| time_ns(report, clock)).collect();
    let of = |field: fn(&Report) -> u64, reports: &[Report]| median(reports.iter().map(|report| field(report) as f64));
    Figures {
        ns: median(times.iter().copied()),
        ratio: ratio(&times, reference, rng),
        peak_kib: of(|report| report.peak_kib, &samples) - of(|report| report.peak_kib, idle),
        freed_kib: of(|report| report.freed_kib, &samples) - of(|report| report.start_kib, idle),
        purged_kib: samples[0]
            .purged_kib
            .map(|_| of(|report| report.purged_kib.unwrap_or_default(), &samples) - of(|report| report.start_kib, idle)),
        samples,
    }
}

impl Campaign {
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).expect("figures are plain data");
        fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }
}
