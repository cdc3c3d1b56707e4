//! The driver: builds one binary for each allocator, runs each row in fresh processes, interleaved, and compares.
//!
//! It runs on the C library's allocator and measures nothing itself: times and memory are what the measured processes report.

mod build;
mod campaign;
mod check;
mod report;
mod statistics;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use campaign::Campaign;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use sigsafe_bench_allocators::{DEFAULT, GROWTH, Row};

/// What to keep in mind with every figure.
const UNEQUAL: &str = "Thin LTO can inline our allocator, which is Rust, and nothing of the peers: they are C and C++ behind their crates' \
functions, tcmalloc and system in shared libraries. `callgrind-alloc.sh` counts the calls that are left in a pair.";

#[derive(Debug, Parser)]
#[command(about = "Compares allocators, each as the real global allocator of a process", args_conflicts_with_subcommands = true)]
#[command(after_help = UNEQUAL)]
struct Command {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the rows.
    List,
    /// Count the blocks that each row asks for: none may have been left out by the compiler.
    Check,
    /// Build the binaries and print where they are, and what is to be preloaded: for `perf`, `callgrind-alloc.sh`, or to keep one for a
    /// later comparison.
    Build {
        #[arg(long, value_delimiter = ',', default_values = build::ALL)]
        allocators: Vec<String>,
    },
    /// Time per operation with more live blocks and more threads.
    Growth(Options),
}

#[derive(Debug, Clone, Args)]
struct Options {
    /// Rows to run, separated by commas: a name, or a beginning for all that begin so.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// sigsafe, mimalloc, jemalloc, snmalloc, rpmalloc, tcmalloc (Debian's library, preloaded), system; or NAME=BINARY for one that was
    /// built before, such as an older version of ours. The first is the one that the others are compared with.
    #[arg(long, value_delimiter = ',', default_values = build::ALL)]
    allocators: Vec<String>,
    /// At least 1; at least 6 for intervals and verdicts.
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which time is compared. Processor time suits a machine that does other work, but counts no waiting.
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// For the order of the processes; a random one if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Write every sample and every figure to a file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clock {
    Wall,
    Cpu,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = match command.action {
        None => compare(DEFAULT, &command.options).map(drop),
        Some(Action::Growth(options)) => compare(GROWTH, &options).map(|campaign| report::print_growth(&campaign)),
        Some(Action::Check) => check::run(),
        Some(Action::Build { allocators }) => build::contestants(&allocators).map(|contestants| {
            for contestant in contestants {
                println!("{contestant}");
            }
        }),
        Some(Action::List) => {
            list();
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(table: &'static [Row], options: &Options) -> Result<Campaign, String> {
    let rows = select(table, &options.rows)?;
    let contestants = build::contestants(&options.allocators)?;
    let campaign = campaign::run(&rows, &contestants, options)?;
    report::print(&campaign);
    if let Some(path) = &options.json {
        campaign.write(path)?;
    }
    Ok(campaign)
}

/// All rows if none is named; in the table's order.
fn select(table: &'static [Row], names: &[String]) -> Result<Vec<&'static Row>, String> {
    let named = |row: &Row, name: &String| {
        let exact = table.iter().any(|row| row.name == name);
        if exact { row.name == name } else { row.name.starts_with(name) }
    };
    if let Some(unknown) = names.iter().find(|name| !table.iter().any(|row| named(row, name))) {
        return Err(format!("no row begins with {unknown}; `list` prints them"));
    }
    Ok(table.iter().filter(|row| names.is_empty() || names.iter().any(|name| named(row, name))).collect())
}

fn list() {
    for (title, table) in [("comparison", DEFAULT), ("growth", GROWTH)] {
        println!("{title}:");
        for row in table {
            println!("  {:<20} {} (an operation is a {})", row.name, row.what, row.operation);
        }
    }
}
