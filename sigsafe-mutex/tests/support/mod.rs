//! What the tests of the locks share: a bound on their time, a look at other threads from outside, and child processes.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Ends the process by SIGALRM if it is still there after two minutes: a lost wake-up is a failure, not a wait.
pub(crate) fn watchdog() {
    // SAFETY: `alarm` has no preconditions, and SIGALRM has its default action in these tests.
    unsafe { libc::alarm(120) };
}

/// The kernel's number of the calling thread.
pub(crate) fn gettid() -> i32 {
    // SAFETY: `gettid` has no preconditions.
    unsafe { libc::gettid() }
}

/// Sends `signal` to one thread of this process.
pub(crate) fn tgkill(tid: i32, signal: i32) {
    // SAFETY: the call reads no memory. Callers join the thread after the call, so that the number is still its own.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) };
    assert_eq!(result, 0, "tgkill({tid}, {signal})");
}

/// Sends `signal` to the calling thread.
pub(crate) fn raise(signal: i32) {
    // SAFETY: `raise` has no preconditions; callers have installed a handler for the signal.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// Yields until `condition` holds; panics when a minute has gone by without.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting after a minute: {what}");
        std::thread::yield_now();
    }
}

/// Whether thread `tid` of this process sleeps in a system call, by the third field of its `stat`.
pub(crate) fn is_parked(tid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/self/task/{tid}/stat")) else { return false };
    // The second field is the thread's name in parentheses, which may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Whether `signal` waits in the kernel for thread `tid`, which has it blocked.
pub(crate) fn is_held_back(tid: i32, signal: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/self/task/{tid}/status")) else { return false };
    let has = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0");
        u64::from_str_radix(line.trim(), 16).is_ok_and(|set| set & (1 << (signal - 1)) != 0)
    };
    has("SigPnd:") && has("SigBlk:")
}

/// Set in the environment of a child that [`in_child`] started, to the name of the test that it shall play the victim of.
const VICTIM: &str = "SIGSAFE_MUTEX_TEST_VICTIM";

/// Runs `act` in a process of its own and returns how that ended; in that process, does not return.
///
/// The child is this test binary again, asked for the one test `name`, which arrives here and finds itself named.
pub(crate) fn in_child(name: &str, act: impl FnOnce()) -> Output {
    if std::env::var_os(VICTIM).is_some_and(|victim| victim == name) {
        watchdog();
        act();
        std::process::exit(0);
    }
    // On a target that is not the machine's own, the emulator and its options (scripts/targets.sh).
    let runner = std::env::var("SIGSAFE_TEST_RUNNER").unwrap_or_default();
    let path = std::env::current_exe().expect("the test binary has a path");
    let mut words = runner.split_whitespace().map(OsStr::new).chain([path.as_os_str()]);
    Command::new(words.next().expect("the path at least"))
        .args(words)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(VICTIM, name)
        .stdin(Stdio::null())
        .output()
        .expect("the test binary can be run again")
}

/// Asserts that a child died of SIGABRT, with `message` on standard error.
pub(crate) fn assert_aborted(output: &Output, message: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{:?}: {text}", output.status);
    assert!(text.contains(message), "{message:?} is not in {text:?}");
}

/// This thread's `errno`, as a place.
pub(crate) fn errno() -> &'static AtomicU32 {
    // SAFETY: the location is this thread's `errno`, an aligned `int` that lives as long as the thread; callers use the
    // reference within the expression that asks for it.
    unsafe { AtomicU32::from_ptr(libc::__errno_location().cast()) }
}
