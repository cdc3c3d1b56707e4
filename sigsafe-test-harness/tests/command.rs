//! The command as a person or a script meets it: usage, reports, interruption, exit status.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::{Ended, Stress, has_ended, stress};
use nix::sys::signal::Signal;
use serde_json::Value;

const SUBJECTS: &[&str] = &[
    "system",
    "masked-system-deferred",
    "masked-system-full",
    "std-mutex",
    "sigsafe-mutex-deferred",
    "sigsafe-mutex-full",
    "sigsafe-spin",
    "sigsafe-alloc",
    "sigsafe-alloc-unmanaged",
    #[cfg(feature = "peers")]
    "mimalloc",
    #[cfg(feature = "peers")]
    "jemalloc",
    #[cfg(feature = "peers")]
    "snmalloc",
    #[cfg(feature = "peers")]
    "rpmalloc",
];

/// A file of this test run alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id())))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn refused(arguments: &str) -> Ended {
    let ended = stress(arguments);
    assert_eq!(ended.code, Some(2), "{arguments}: {ended:?}");
    assert_eq!(ended.stdout, "", "{arguments}: something ran");
    ended
}

#[test]
fn bad_usage_is_refused_with_the_valid_values() {
    for (arguments, hint) in [
        ("storm --threads 0", "1..=64"),
        ("storm --threads 65", "1..=64"),
        ("--seconds 0", "1..=3600"),
        ("--seconds 100000", "1..=3600"),
        ("--rate 99999999", "0..=1000000"),
        ("storm --subject dlmalloc", "sigsafe-spin"),
        ("storm --driver alarm", "tgkill"),
        ("storm --workload none", "mixed"),
        ("storm --subject std-mutex --workload alloc", "it runs lock, mixed"),
        ("storm --subject system --workload lock", "it runs alloc, mixed"),
        ("storm --subject sigsafe-alloc-unmanaged --workload mixed", "it runs alloc"),
        ("storm --deferrals 0", "at least 1"),
        ("storm --subject system --deferrals 5", "no deferral can happen"),
        ("storm --subject sigsafe-alloc --inside 5", "counted for sigsafe-alloc-unmanaged alone"),
        ("storm --subject sigsafe-alloc-unmanaged --inside 0", "at least 1"),
        ("storm --subject masked-system-full --churn", "apart from libc's: sigsafe-alloc, sigsafe-alloc-unmanaged"),
        ("storm --subject sigsafe-spin --fork", "apart from libc's"),
        ("storm --inside 5 --at-least 6 --subject sigsafe-alloc-unmanaged", "at least (seconds) cannot be 6: it must be from 0 to 5"),
        ("--churn", "unexpected argument"),
        ("--hang-limit-ms 1", "must be from 100"),
        ("hurricane", "subcommand"),
        ("--frobnicate", "unexpected argument"),
    ] {
        let ended = refused(arguments);
        assert!(ended.stderr.contains(hint), "{arguments}: {ended:?}");
    }
}

#[test]
fn an_unwritable_report_is_refused_before_anything_runs() {
    for arguments in ["--json /nonexistent/report.json", "storm --json /nonexistent/report.json", "--json /"] {
        let ended = refused(arguments);
        assert!(ended.stderr.contains("cannot write the report"), "{ended:?}");
    }
}

#[test]
fn without_signals_every_subject_passes() {
    let report = Scratch::new("control");
    let ended = stress(&format!("--rate 0 --seconds 1 --seed 5 --json {}", report.0.display()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for subject in SUBJECTS {
        assert!(ended.stdout.contains(&format!("{subject}: passed as expected")), "{ended:?}");
    }
    let json = report.json();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["complete"], true);
    assert!(json["host"]["kernel"].is_string() && json["host"]["cpus"].is_number());
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), SUBJECTS.len());
    for (case, subject) in cases.iter().zip(SUBJECTS) {
        let result = &case["result"];
        assert_eq!(result["plan"]["subject"], *subject);
        assert_eq!(result["plan"]["seed"], 5);
        assert_eq!(result["verdict"], "passed");
        assert_eq!(result["totals"]["handler_runs"], 0);
        assert!(result["totals"]["operations"].as_u64() > Some(0));
        assert_eq!(result["threads"].as_array().unwrap().len(), 2);
        assert!(result["replay"].as_str().unwrap().contains("--seed 5"));
    }
}

#[test]
fn a_short_comparison_ends_as_expected() {
    let ended = stress("--seconds 2 --hang-limit-ms 1000");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("system and std-mutex failed as expected"), "{ended:?}");
    // Elsewhere than on a terminal there are plain lines: nothing that moves the cursor.
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{ended:?}");
}

#[test]
fn an_interruption_ends_the_children_and_tells_what_was_done() {
    let report = Scratch::new("interrupted");
    let mut running = Stress::start(&format!("--seconds 30 --hang-limit-ms 1000 --json {}", report.0.display()));
    running.read_until("system: ");
    let child = running.working_child();
    running.signal(Signal::SIGINT);
    let ended = running.finish();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.contains(&format!("interrupted: 1 of {} cases were done", SUBJECTS.len())), "{ended:?}");
    assert!(ended.stdout.contains("│ system"), "no table: {ended:?}");
    // It was reaped before the command ended.
    assert!(has_ended(child, Duration::ZERO));
    let json = report.json();
    assert_eq!(json["complete"], false);
    assert_eq!(json["cases"].as_array().unwrap().len(), 1);
}

#[test]
fn a_termination_ends_a_storm() {
    let running = Stress::start("storm --seconds 60");
    let child = running.working_child();
    running.signal(Signal::SIGTERM);
    let ended = running.finish();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(has_ended(child, Duration::ZERO));
}

#[test]
fn a_child_does_not_outlive_a_killed_watchdog() {
    let running = Stress::start("storm --seconds 60");
    let child = running.working_child();
    running.signal(Signal::SIGKILL);
    assert!(has_ended(child, Duration::from_secs(20)));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    for arguments in ["list", "storm --seconds 1 --rate 0", "--help"] {
        let mut running = Stress::start(arguments);
        running.close_stdout();
        let ended = running.finish();
        assert!(!ended.stderr.contains("panicked"), "{arguments}: {ended:?}");
    }
}

#[test]
fn the_list_names_everything_that_can_be_asked_for() {
    let ended = stress("list");
    assert_eq!(ended.code, Some(0));
    let names = SUBJECTS.iter().chain(&["itimer", "timer", "tgkill", "alloc", "lock", "mixed"]);
    for name in names {
        assert!(ended.stdout.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}: {ended:?}");
    }
    assert!(!ended.stdout.contains("test-flip"));
}
