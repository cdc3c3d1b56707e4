//! The examples as programs, for the tests that run them. `cargo test` builds them before it runs the first test.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The example's program, which lies beside this test's.
///
/// # Panics
///
/// Panics when it is not there, or older than its source: `cargo test --test NAME` builds no examples.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let directory = test.ancestors().nth(2).expect("the directory of the build profile");
    let program = directory.join("examples").join(name);
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).with_extension("rs");
    let modified = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified());
    let fresh = modified(&program).is_ok_and(|built| built >= modified(&source).expect("the example's source"));
    assert!(fresh, "{} is missing or older than its source: cargo build --example {name}", program.display());
    program
}

/// What a program prints; it must succeed.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    assert!(status.success(), "{command:?}: {status}\n{}\n{}", text(stdout), text(stderr));
    text(stdout)
}
