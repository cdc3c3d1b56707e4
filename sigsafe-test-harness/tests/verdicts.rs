//! Each verdict, from a case that has earned it: the real command, real children, real signals.

mod common;

use std::path::PathBuf;

use common::{Ended, Stress, stress, stress_on_one_cpu};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sigsafe_test_harness::verdict::MIN_ENDINGS;

#[test]
fn a_stopped_child_is_hung() {
    let stress = Stress::start("storm --seconds 60 --hang-limit-ms 1000");
    let child = stress.working_child();
    kill(Pid::from_raw(child), Signal::SIGSTOP).unwrap();
    let ended = stress.finish();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("masked-system-deferred: hung"), "{ended:?}");
    assert!(ended.stdout.contains("made no progress") && ended.stdout.contains("T (stopped)"), "{ended:?}");
    assert!(ended.stdout.contains("again: sigsafe-stress storm --subject masked-system-deferred"), "{ended:?}");
}

#[test]
fn a_flipped_byte_is_corruption() {
    let ended = stress("storm --subject test-flip --seconds 10 --deferrals 1000000");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("test-flip: corrupted"), "{ended:?}");
    let told = ["block at 0x", "at offset", "expected 0x", "found 0x", "by the main flow of worker-0"];
    assert!(told.iter().all(|words| ended.stdout.contains(words)), "{ended:?}");
}

#[test]
fn what_is_unprotected_fails() {
    for (subject, workload) in [("system", "alloc"), ("system", "mixed"), ("std-mutex", "lock"), ("std-mutex", "mixed")] {
        let case = format!("storm --subject {subject} --workload {workload}");
        let ended = stress(&format!("{case} --seconds 5 --rate 10000 --hang-limit-ms 1000"));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let failed = ["hung", "crashed", "corrupted"].iter().any(|word| ended.stdout.contains(&format!("{subject}: {word}")));
        assert!(failed, "{ended:?}");
    }
}

#[test]
fn what_is_protected_passes_with_deferrals_to_show() {
    for subject in ["masked-system-deferred", "masked-system-full", "sigsafe-mutex-deferred", "sigsafe-mutex-full", "sigsafe-spin"] {
        for (driver, threads, workload) in [("timer", 1, None), ("tgkill", 2, None), ("timer", 8, Some("mixed"))] {
            let workload = workload.map_or_else(String::new, |workload| format!("--workload {workload}"));
            let ended = stress(&format!(
                "storm --subject {subject} --driver {driver} --threads {threads} {workload} --rate 10000 --deferrals 300 --seconds 30"
            ));
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stdout.contains(&format!("{subject}: passed")), "{ended:?}");
        }
    }
}

/// A storm, with the sums that its report has.
fn counted(name: &str, arguments: &str) -> (Ended, serde_json::Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let ended = stress(&format!("storm {arguments} --json {}", path.display()));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    (ended, document["cases"][0]["result"]["totals"].clone())
}

#[test]
fn unmanaged_handlers_run_inside_the_own_allocator_and_managed_ones_never_do() {
    for (driver, threads) in [("timer", 1), ("tgkill", 2), ("timer", 8)] {
        let (ended, totals) = counted(
            &format!("inside-{driver}-{threads}"),
            &format!(
                "--subject sigsafe-alloc-unmanaged --driver {driver} --threads {threads} --rate 10000 --inside 300 --seconds 60 --seed 3"
            ),
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(totals["inside"].as_u64() >= Some(300) && totals["deferrals"] == 0, "{totals}");
        let (ended, totals) = counted(
            &format!("held-back-{driver}-{threads}"),
            &format!("--subject sigsafe-alloc --driver {driver} --threads {threads} --rate 10000 --deferrals 300 --seconds 60 --seed 3"),
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(totals["deferrals"].as_u64() >= Some(300) && totals["inside"] == 0, "{totals}");
    }
}

#[test]
fn threads_are_replaced_and_processes_fork_in_a_storm() {
    for (subject, goal) in [("sigsafe-alloc", "--deferrals 20"), ("sigsafe-alloc-unmanaged", "--inside 20")] {
        for (options, driver) in [("--churn", "timer"), ("--churn", "itimer"), ("--fork", "timer"), ("--churn --fork", "tgkill")] {
            let storm = format!("--subject {subject} {options} --driver {driver} --threads 3 --rate 10000");
            let (ended, totals) = counted("churn", &format!("{storm} {goal} --at-least 1 --seconds 60 --seed 4"));
            assert_eq!(ended.code, Some(0), "{ended:?}");
            for (option, counter) in [("--churn", "threads_ended"), ("--fork", "forks")] {
                let count = totals[counter].as_u64().unwrap();
                // What was not asked for does not happen once.
                assert!(if options.contains(option) { count >= MIN_ENDINGS } else { count == 0 }, "{options}: {totals}");
            }
        }
    }
}

#[test]
fn an_allocator_of_mixed_workload_and_without_signals_comes_to_its_end() {
    for options in ["--workload mixed --seconds 4", "--workload mixed --churn --fork --seconds 4", "--churn --fork --rate 0 --seconds 2"] {
        let ended = stress(&format!("storm --subject sigsafe-alloc {options} --threads 3"));
        assert_eq!(ended.code, Some(0), "{options}: {ended:?}");
    }
}

/// A peer may fail, or survive, and is told as what it did.
#[cfg(feature = "peers")]
#[test]
fn peers_are_judged_and_never_called_safe() {
    for subject in ["mimalloc", "jemalloc", "snmalloc", "rpmalloc"] {
        let ended = stress(&format!("storm --subject {subject} --rate 10000 --seconds 3 --hang-limit-ms 1000"));
        let told = |words: &[&str]| words.iter().any(|word| ended.stdout.contains(&format!("{subject}: {word}")));
        let survived = told(&["survived"]);
        assert_eq!(ended.code, Some(if survived { 0 } else { 1 }), "{ended:?}");
        assert!(survived || told(&["hung", "crashed", "corrupted"]), "{ended:?}");
    }
}

#[test]
fn the_profiling_timer_of_the_process_drives_a_storm() {
    let ended = stress("storm --subject sigsafe-mutex-deferred --driver itimer --deferrals 100 --seconds 30");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn too_little_evidence_is_inconclusive() {
    for (arguments, lack) in [
        ("--rate 1 --seconds 1", "handler runs, at least 100 are needed"),
        ("--rate 4000 --seconds 1 --deferrals 1000000000", "of 1000000000 deferrals in 1 s"),
    ] {
        let ended = stress(&format!("storm {arguments}"));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("inconclusive") && ended.stdout.contains(lack), "{ended:?}");
        assert!(!ended.stdout.contains("passed"), "{ended:?}");
    }
}

/// With more waiters than processors a lock's one wake often goes to a thread whose handler then waits for the other lock. Kept by
/// that thread, it was lost to the rest, and everybody slept.
#[test]
fn a_wake_is_not_lost_on_a_thread_whose_handler_waits() {
    for subject in ["sigsafe-mutex-deferred", "sigsafe-mutex-full"] {
        let ended = stress_on_one_cpu(&format!("storm --subject {subject} --workload lock --threads 8 --rate 10000 --seconds 3"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}
