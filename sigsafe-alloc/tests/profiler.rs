//! The profiler example: the samples that a region held back lie where the ticks arrived, not where the region ended.

use std::path::PathBuf;
use std::process::Command;

/// The example's program, which lies beside this test's: `cargo test` builds examples before it runs tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let program = test.ancestors().nth(2).expect("the directory of the build profile").join("examples/profiler");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/profiler.rs");
    let modified = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified());
    let fresh = modified(&program).is_ok_and(|built| built >= modified(&source).expect("the example's source"));
    assert!(fresh, "{} is missing or older than its source: cargo build -p sigsafe-alloc --example profiler", program.display());
    program
}

#[test]
fn deferred_samples_lie_where_they_arrived() {
    let output = Command::new(program()).output().expect("the example runs");
    let table = String::from_utf8(output.stdout).expect("the output is text");
    assert!(output.status.success(), "{}: {table}", output.status);
    let row = table.lines().find_map(|line| line.strip_prefix("deferred ")).expect("a row of deferred samples");
    let counts: Vec<u32> = row.split_whitespace().map(|count| count.parse().expect("a count")).collect();
    let [hot, elsewhere, unknown] = counts[..] else { panic!("{table}") };
    assert!(hot > 100, "most ticks arrive in the loop:\n{table}");
    // The region's own few instructions, and the allocator's regions.
    assert!((elsewhere + unknown) * 10 < hot, "deferred samples lie elsewhere:\n{table}");
}
