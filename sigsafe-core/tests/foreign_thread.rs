//! The example of a foreign thread runs, and prints what attaching changes.

mod support;

use support::example;

#[test]
fn the_example_of_a_foreign_thread_prints_what_attaching_changes() {
    let printed = example::output(&mut example::command("foreign_thread"));
    let expected = "before: SIGPROF,SIGIO\nattached: SIGIO, 1 tick\nafter: SIGPROF,SIGIO\n";
    assert_eq!(printed, expected);
}
