//! The examples as programs, for the tests that run them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command that runs the example.
pub fn command(name: &str) -> Command {
    by_runner(&path(name))
}

/// The command that runs a program of this test's own target, by the emulator that `SIGSAFE_TEST_RUNNER` names if it is set. The
/// harness does the same with the test itself; the allocator's tests do without it.
pub fn by_runner(program: &Path) -> Command {
    let runner = std::env::var("SIGSAFE_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("the program at least"));
    command.args(words);
    command
}

/// The example's program, which lies beside this test's. `cargo test` builds the examples before it runs the first test, but not if it is
/// told which test to run; then this builds it.
fn path(name: &str) -> PathBuf {
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
        let mut directory = profile.parent().expect("the target directory");
        // Where Cargo was told of a target, there is a directory of that name in between.
        let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.strip_prefix(std::env::consts::ARCH).is_some_and(|rest| rest.starts_with('-')) {
            build.args(["--target", name]);
            directory = directory.parent().expect("the target directory");
        }
        output(build.arg("--target-dir").arg(directory));
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
