//! A test body that runs alone, in a process of its own, under a watchdog.
//!
//! A test about signals may hang, die of a signal, or leave handlers and masks behind. Here it runs in a fresh process: the
//! test binary executes itself again with the test's own name as the filter, and only there is the body called. The parent is
//! the watchdog: it waits on a pidfd with a limit, kills the child's whole process group at the end whatever happened, and
//! fails the test with the child's output unless the child's last line is the success token.
//!
//! Everything here runs in ordinary thread context of a test; nothing may be called from a signal handler.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::process::{die_with_parent, end_group, end_of, memory_file, pidfd_of, wait_end};

/// The limit of [`isolated`].
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Marks the child, and holds the name of the test whose body it is to run.
const CHILD_MARK: &str = "SIGSAFE_ISOLATED_TEST";

/// The words to put before the test binary to run it: an emulator and its options, for a target that is not the machine's own.
/// Cargo's runner starts the binary with them once; a child that the binary starts of itself needs them again.
const RUNNER: &str = "SIGSAFE_TEST_RUNNER";

/// The last line of a child whose body returned.
const SUCCESS_TOKEN: &str = "sigsafe-isolated: the body returned";

/// How the child of [`outcome`] ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; `None` when the watchdog had to kill it.
    pub status: Option<ExitStatus>,
    /// The end of what the child wrote to stdout and stderr, in the order of writing.
    pub output: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Outcome {
    /// Whether the body returned: the success token is the last line, and the child exited with 0.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.status.is_some_and(|status| status.success()) && self.output.lines().next_back() == Some(SUCCESS_TOKEN)
    }

    /// The signal that ended the child, if one did (and it was not the watchdog's).
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            None => write!(f, "no end after {:.1?}, killed", self.elapsed)?,
            Some(status) => write!(f, "{status} after {:.1?}", self.elapsed)?,
        }
        write!(f, "\n--- output of the child ---\n{}\n--- end of output ---", self.output.trim_end())
    }
}

/// Runs `body` alone in a process of its own and fails this test unless it returns there within [`DEFAULT_LIMIT`].
///
/// `test_name` is the path of the calling test in its binary: `foo` for a test at the root of its file, `module::foo` inside a
/// module.
///
/// ```no_run
/// use sigsafe_test_harness::isolate::isolated;
///
/// // With #[test] in front:
/// fn survives() {
///     isolated("survives", || assert_eq!(1 + 1, 2));
/// }
/// ```
///
/// # Panics
///
/// Panics, with the child's output in the message, when the body panics, dies, calls `exit`, or exceeds the limit.
#[track_caller]
pub fn isolated(test_name: &str, body: impl FnOnce()) {
    isolated_within(test_name, DEFAULT_LIMIT, body);
}

/// As [`isolated`], with another limit.
///
/// # Panics
///
/// As [`isolated`].
#[track_caller]
pub fn isolated_within(test_name: &str, limit: Duration, body: impl FnOnce()) {
    let outcome = outcome(test_name, limit, body);
    assert!(outcome.passed(), "{test_name}: {outcome}");
}

/// Runs `body` alone and fails this test unless the process dies there of `signal`, having written `message`.
///
/// # Panics
///
/// Panics when the body returns, panics, hangs, dies of another signal, or dies without the message.
#[track_caller]
pub fn isolated_death(test_name: &str, signal: i32, message: &str, body: impl FnOnce()) {
    let outcome = outcome(test_name, DEFAULT_LIMIT, body);
    assert!(outcome.signal() == Some(signal), "{test_name}: did not die of signal {signal}: {outcome}");
    assert!(outcome.output.contains(message), "{test_name}: died without saying {message:?}: {outcome}");
}

/// Runs `body` alone and says how its process ended; in that process it does not return.
///
/// # Panics
///
/// Panics when the child cannot be started or watched.
#[track_caller]
pub fn outcome(test_name: &str, limit: Duration, body: impl FnOnce()) -> Outcome {
    if std::env::var_os(CHILD_MARK).is_some_and(|marked| marked == test_name) {
        run_body_and_exit(body);
    }
    watch(test_name, limit).unwrap_or_else(|error| panic!("{test_name}: cannot run a child process: {error}"))
}

/// The child's side. A panic of the body unwinds into the test runner, which reports it and never prints the token.
fn run_body_and_exit(body: impl FnOnce()) -> ! {
    body();
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    // The line break ends whatever line the body left open.
    let line = format!("\n{SUCCESS_TOKEN}\n");
    // SAFETY: the buffer is live for the call, and its length is its own. A short write loses the token, which fails the test.
    unsafe { libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), line.len()) };
    // SAFETY: `_exit` has no precondition. It skips exit handlers, which may not run well after what the body did, and the
    // runner's summary, which would follow the token.
    unsafe { libc::_exit(0) }
}

/// The command that starts this test binary again, by the emulator that `SIGSAFE_TEST_RUNNER` names if it is set.
///
/// # Errors
///
/// The failure to find this binary's path.
pub fn this_binary() -> io::Result<Command> {
    let path = std::env::current_exe()?;
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(program) = words.next() else { return Ok(Command::new(path)) };
    let mut command = Command::new(program);
    command.args(words).arg(path);
    Ok(command)
}

/// The parent's side.
fn watch(test_name: &str, limit: Duration) -> io::Result<Outcome> {
    let output = memory_file()?;
    let mut command = this_binary()?;
    command
        .args([test_name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"])
        .env(CHILD_MARK, test_name)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0);
    let parent = std::process::id();
    // SAFETY: `die_with_parent` only makes system calls; it is safe to run between fork and exec.
    unsafe { command.pre_exec(move || die_with_parent(parent)) };

    let started = Instant::now();
    let mut child = command.spawn()?;
    let ended = pidfd_of(&child).and_then(|pidfd| wait_end(&pidfd, limit));
    let elapsed = started.elapsed();
    // Whatever the child left behind ends here.
    let status = end_group(&mut child)?;
    Ok(Outcome { status: ended?.then_some(status), output: end_of(&output)?, elapsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "isolate::tests::";

    #[test]
    fn a_body_that_returns_passes() {
        isolated(&format!("{NAME}a_body_that_returns_passes"), || print!("an open line"));
    }

    #[test]
    fn a_panic_fails_and_shows_the_output() {
        let ended = outcome(&format!("{NAME}a_panic_fails_and_shows_the_output"), DEFAULT_LIMIT, || panic!("as it should"));
        assert!(!ended.passed() && ended.output.contains("as it should"), "{ended}");
    }

    #[test]
    fn an_early_exit_is_no_success() {
        let ended = outcome(&format!("{NAME}an_early_exit_is_no_success"), DEFAULT_LIMIT, || std::process::exit(0));
        assert!(!ended.passed() && ended.status.is_some_and(|status| status.success()), "{ended}");
    }

    #[test]
    fn a_hang_is_killed() {
        let limit = Duration::from_millis(300);
        let ended = outcome(&format!("{NAME}a_hang_is_killed"), limit, || {
            loop {
                std::thread::park();
            }
        });
        assert!(!ended.passed() && ended.status.is_none(), "{ended}");
    }

    #[test]
    fn a_death_is_told_by_its_signal_and_message() {
        isolated_death(&format!("{NAME}a_death_is_told_by_its_signal_and_message"), libc::SIGABRT, "last words", || {
            eprintln!("last words");
            std::process::abort();
        });
    }

    #[test]
    fn a_name_that_matches_no_test_fails() {
        let ended = outcome("no_such_test", DEFAULT_LIMIT, || {});
        assert!(!ended.passed(), "{ended}");
    }
}
