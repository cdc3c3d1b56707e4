//! The example of a foreign thread runs, and prints what attaching changes.

mod support;

use std::process::Command;

use support::example;

#[test]
fn the_example_of_a_foreign_thread_prints_what_attaching_changes() {
    let printed = example::output(&mut Command::new(example::path("foreign_thread")));
    let expected = "before: SIGPROF,SIGIO\nattached: SIGIO, 1 tick\nafter: SIGPROF,SIGIO\n";
    assert_eq!(printed, expected);
}
