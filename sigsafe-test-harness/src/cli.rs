//! The command line of `sigsafe-stress`: what may be asked, and what is refused before anything runs.
//!
//! Exit status: 0 when everything was as it should be, 1 when it was not, 2 for bad usage, 130 after an interruption.
//!
//! Ordinary thread context; `case` is the exception, which is the child's side of a case.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, value_parser};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::case;
use crate::compare::{self, Finish};
use crate::console::Console;
use crate::driver::Driver;
use crate::interrupt::Interrupt;
use crate::plan::{DEFAULT_HANG_LIMIT_MS, MAX_RATE_HZ, MAX_SECONDS, MAX_THREADS, Plan};
use crate::report::json::JsonFile;
use crate::report::{Report, table};
use crate::subject::Subject;
use crate::workload::Workload;

/// Exit status when something was not as it should be.
const EXIT_UNEXPECTED: u8 = 1;
/// Exit status for bad usage; clap's own as well.
const EXIT_USAGE: u8 = 2;
/// Exit status after an interruption: a shell's way to say SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Signal storms against allocators and locks.
///
/// Without a command: the comparison. Every subject in turn meets the same storm, whose handler is a small garbage collector
/// that allocates and locks. `system` and `std-mutex` are expected to fail, every sigsafe subject to pass, and peers (in a build with
/// that feature) may do either.
#[derive(Debug, Parser)]
#[command(name = "sigsafe-stress", version, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List subjects, drivers and workloads
    List,
    /// One case: exit status 0 only when it passed
    Storm(Storm),
    /// The child's side of a case
    #[command(hide = true)]
    Case {
        #[arg(long)]
        shared_fd: RawFd,
        #[arg(long)]
        plan: String,
    },
}

/// What the comparison and a single storm have in common.
#[derive(Clone, Debug, Args)]
struct Options {
    /// What sends the signals
    #[arg(long, global = true, value_enum, default_value_t = Driver::Timer)]
    driver: Driver,
    /// Signals a second, for each thread (itimer: for each second of CPU time); 0: none; more than a driver can reach: as fast
    /// as it goes
    #[arg(long, global = true, value_name = "HZ", default_value_t = 4000, allow_negative_numbers = true,
          value_parser = value_parser!(u32).range(0..=i64::from(MAX_RATE_HZ)))]
    rate: u32,
    /// Threads that work and are signalled
    #[arg(long, global = true, value_name = "N", default_value_t = 2, allow_negative_numbers = true,
          value_parser = value_parser!(u32).range(1..=i64::from(MAX_THREADS)))]
    threads: u32,
    /// How long each storm lasts
    #[arg(long, global = true, value_name = "S", default_value_t = 5, allow_negative_numbers = true,
          value_parser = value_parser!(u32).range(1..=i64::from(MAX_SECONDS)))]
    seconds: u32,
    /// Decides every choice of workload and collector [default: a random one, which is printed]
    #[arg(long, global = true, value_name = "N")]
    seed: Option<u64>,
    /// Write the results to this file, too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long a thread may go without progress before it counts as hung
    #[arg(long, global = true, hide = true, value_name = "MS", default_value_t = DEFAULT_HANG_LIMIT_MS)]
    hang_limit_ms: u32,
}

#[derive(Clone, Debug, Args)]
struct Storm {
    /// What is under test
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Subject::MaskedSystemDeferred)]
    subject: Subject,
    /// What the threads do [default: alloc for allocators, lock for locks]
    #[arg(long, value_enum)]
    workload: Option<Workload>,
    /// End the storm as soon as this many deferrals have been counted; fewer in the time are inconclusive
    #[arg(long, value_name = "N")]
    deferrals: Option<u64>,
    /// End the storm as soon as this many handler runs inside the allocator have been counted; fewer in the time are inconclusive
    #[arg(long, value_name = "N")]
    inside: Option<u64>,
    /// With one of these two: last so long even if the number is reached before
    #[arg(long, value_name = "S", default_value_t = 0)]
    at_least: u32,
    /// Threads end and are replaced all through the storm; for allocators apart from libc's
    #[arg(long)]
    churn: bool,
    /// Threads fork at intervals; the child uses, checks and frees what it inherited; for allocators apart from libc's
    #[arg(long)]
    fork: bool,
}

impl Options {
    /// The plan for `subject` under these options.
    fn plan(&self, subject: Subject, seed: u64) -> Plan {
        Plan {
            driver: self.driver,
            rate_hz: self.rate,
            threads: self.threads,
            seconds: self.seconds,
            hang_limit_ms: self.hang_limit_ms,
            ..Plan::of(subject, seed)
        }
    }
}

impl Storm {
    /// `plan` with what was asked of this storm alone.
    fn plan(&self, plan: Plan) -> Plan {
        let Storm { workload, deferrals, inside, at_least, churn, fork, .. } = *self;
        Plan { workload: workload.unwrap_or(plan.workload), deferrals, inside, at_least, churn, fork, ..plan }
    }
}

/// Runs the command with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    // A reader that goes away ends the command quietly, as it does with other commands; the kernel then ends the child.
    // SAFETY: the default action installs no code.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let cli = Cli::parse();
    match cli.command {
        Some(Command::List) => {
            print!("{}", table::list());
            ExitCode::SUCCESS
        }
        Some(Command::Case { shared_fd, plan }) => run_case(shared_fd, &plan),
        Some(Command::Storm(storm)) => {
            let seed = cli.options.seed.unwrap_or_else(random_seed);
            let plan = cli.options.plan(storm.subject, seed);
            run(&cli.options, vec![storm.plan(plan)], false)
        }
        None => {
            let seed = cli.options.seed.unwrap_or_else(random_seed);
            let plans = Subject::ALL.iter().map(|subject| cli.options.plan(*subject, seed)).collect();
            run(&cli.options, plans, true)
        }
    }
}

/// The child's side.
fn run_case(shared_fd: RawFd, plan: &str) -> ExitCode {
    let Err(error) = serde_json::from_str(plan).map_err(io::Error::from).and_then(|plan| case::run(&plan, shared_fd));
    eprintln!("cannot run the case: {error}");
    ExitCode::FAILURE
}

/// Runs the cases of `plans` in turn, as a comparison or as a single storm.
fn run(options: &Options, plans: Vec<Plan>, comparison: bool) -> ExitCode {
    for plan in &plans {
        if let Err(error) = plan.validate() {
            return refuse(error);
        }
    }
    let json = match options.json.as_deref().map(JsonFile::open).transpose() {
        Ok(json) => json,
        Err(error) => return refuse(error),
    };
    let (interrupt, program) = match (Interrupt::catch(), std::env::current_exe()) {
        (Ok(interrupt), Ok(program)) => (interrupt, program),
        (Err(error), _) | (_, Err(error)) => return fail(error),
    };
    let mut report = Report::new(comparison, plans);
    println!("{}", report.heading());
    let console = Console::new();
    let finish = compare::run(&mut report, &program, &interrupt, &console);
    console.clear();
    if comparison && !report.cases.is_empty() {
        println!("{}", table::cases(&report));
    }
    if let Err(error) = json.map_or(Ok(()), |json| json.write(&report)) {
        return fail(error);
    }
    match finish {
        Err(error) => fail(error),
        Ok(Finish::Interrupted) => {
            println!("interrupted: {} of {} cases were done", report.cases.len(), report.plans.len());
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Ok(Finish::Complete) => {
            println!("{}", report.conclusion());
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNEXPECTED) }
        }
    }
}

fn refuse(error: impl fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(EXIT_USAGE)
}

fn fail(error: impl fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(EXIT_UNEXPECTED)
}

/// A seed that is short enough to be typed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & 0xFFFF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["sigsafe-stress"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_behind_the_command() {
        for arguments in ["--rate 7 storm --subject system", "storm --subject system --rate 7"] {
            let cli = parse(arguments).unwrap();
            assert_eq!(cli.options.rate, 7, "{arguments}");
            assert!(matches!(cli.command, Some(Command::Storm(Storm { subject: Subject::System, .. }))));
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_plan() {
        let cli = parse("").unwrap();
        let plan = Plan::of(Subject::SigsafeSpin, 5);
        assert_eq!(cli.options.plan(Subject::SigsafeSpin, 5), plan);
    }

    #[test]
    fn a_replay_command_gives_the_plan_back() {
        let locks = Plan { rate_hz: 123, seed: 77, workload: Workload::Mixed, ..Plan::of(Subject::StdMutex, 77) };
        let allocator = Plan { inside: Some(8), at_least: 3, churn: true, fork: true, ..Plan::of(Subject::SigsafeAllocUnmanaged, 78) };
        for plan in [locks, allocator] {
            let command = plan.replay_command();
            let cli = parse(command.strip_prefix("sigsafe-stress").unwrap()).unwrap();
            let Some(Command::Storm(storm)) = cli.command else { panic!("{command}") };
            assert_eq!(storm.plan(cli.options.plan(storm.subject, cli.options.seed.unwrap())), plan);
        }
    }

    #[test]
    fn what_is_impossible_is_refused_with_what_is_possible() {
        for (arguments, hint) in [
            ("--threads 0", "1..=64"),
            ("--threads 65", "1..=64"),
            ("--seconds 0", "1..=3600"),
            ("--rate 1000001", "0..=1000000"),
            ("--rate -1", "0..=1000000"),
            ("--driver alarm", "itimer, timer, tgkill"),
            ("storm --subject malloc", "masked-system-deferred"),
            ("storm --workload walk", "alloc, lock, mixed"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains(hint) && !text.contains("test-flip"), "{arguments}: {text}");
        }
    }
}
