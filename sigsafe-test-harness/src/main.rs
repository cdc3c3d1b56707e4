//! The command `sigsafe-stress`. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sigsafe_test_harness::cli::main()
}
