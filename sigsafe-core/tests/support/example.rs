//! The examples as programs, for the tests that run them.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The example's program, which lies beside this test's. `cargo test` builds the examples before it runs the first test, but not if it is
/// told which test to run; then this builds it.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("the directory of the build profile");
    let program = profile.join("examples").join(name);
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).with_extension("rs");
    let modified = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified());
    let fresh = || modified(&program).is_ok_and(|built| built >= modified(&source).expect("the example's source"));
    if !fresh() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", name, "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
        build.args(profile.ends_with("release").then_some("--release"));
        output(build.arg("--target-dir").arg(profile.parent().expect("the target directory")));
        assert!(fresh(), "{} is not what this test belongs to: cargo build --example {name}", program.display());
    }
    program
}

/// What a program prints; it must succeed.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    assert!(status.success(), "{command:?}: {status}\n{}\n{}", text(stdout), text(stderr));
    text(stdout)
}
