//! The profiler example: the samples that a region held back lie where the ticks arrived, not where the region ended.

#[path = "../../sigsafe-core/tests/support/example.rs"]
#[allow(unreachable_pub, reason = "a module of another crate's tests")]
mod example;

#[test]
fn deferred_samples_lie_where_they_arrived() {
    let table = example::output(&mut example::command("profiler"));
    let row = table.lines().find_map(|line| line.strip_prefix("deferred ")).expect("a row of deferred samples");
    let counts: Vec<u32> = row.split_whitespace().map(|count| count.parse().expect("a count")).collect();
    let [hot, elsewhere, unknown] = counts[..] else { panic!("{table}") };
    assert!(hot > 100, "most ticks arrive in the loop:\n{table}");
    // The region's own few instructions, and the allocator's regions.
    assert!((elsewhere + unknown) * 10 < hot, "deferred samples lie elsewhere:\n{table}");
}
