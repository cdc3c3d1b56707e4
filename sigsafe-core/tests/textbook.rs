//! The textbook example prints what the C program beside it prints, which it follows line for line.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::example;

#[test]
fn the_textbook_example_prints_what_the_c_program_prints() {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/textbook.c");
    let compiled = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("textbook-in-c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    example::output(Command::new(compiler).args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&compiled).arg(source));
    let expected = example::output(&mut example::by_runner(&compiled));
    let printed = example::output(&mut example::command("textbook"));
    for (line, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(printed, expected, "line {}", line + 1);
    }
    assert_eq!(printed, expected);
    // Not two programs that fail alike.
    assert!(expected.lines().count() > 30 && expected.ends_with("done\n"), "{expected}");
    assert_eq!(expected.matches("  handler: ").count(), 5, "{expected}");
}
