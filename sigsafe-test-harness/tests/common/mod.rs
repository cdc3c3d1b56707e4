//! Running `sigsafe-stress` from a test, with a limit, and looking at the processes that it starts.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long any of these commands may take: far more than each does.
const LIMIT: Duration = Duration::from_secs(90);

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running `sigsafe-stress`; killed when dropped.
pub struct Stress {
    process: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
    read: String,
    stderr: Option<JoinHandle<String>>,
}

/// Runs the command with `arguments` to its end.
pub fn stress(arguments: &str) -> Ended {
    Stress::start(arguments).finish()
}

/// Runs the command on one processor. The calling test's thread stays on it: children inherit it.
pub fn stress_on_one_cpu(arguments: &str) -> Ended {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).expect("the allowed processors");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(first).expect("a processor of the set");
    sched_setaffinity(this_thread, &one).expect("to stay on an allowed processor");
    stress(arguments)
}

impl Stress {
    pub fn start(arguments: &str) -> Stress {
        let mut process = Command::new(env!("CARGO_BIN_EXE_sigsafe-stress"))
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command to start");
        let stdout = process.stdout.take().map(BufReader::new);
        let mut pipe = process.stderr.take().expect("a pipe");
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        });
        Stress { process, stdout, read: String::new(), stderr: Some(stderr) }
    }

    /// Reads stdout up to the first line that contains `wanted`.
    pub fn read_until(&mut self, wanted: &str) {
        let stdout = self.stdout.as_mut().expect("stdout to be open");
        loop {
            let from = self.read.len();
            assert_ne!(stdout.read_line(&mut self.read).expect("text"), 0, "no {wanted:?} in {}", self.read);
            if self.read[from..].contains(wanted) {
                return;
            }
        }
    }

    /// Closes the reading end of stdout.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).expect("the command to be there");
    }

    /// The process of the case that runs now, once its threads are at work.
    pub fn working_child(&self) -> i32 {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(pid) = children(self.process.id()).into_iter().find(|pid| has_worked(*pid)) {
                return pid;
            }
            thread::yield_now();
        }
        panic!("no working child of {}", self.process.id());
    }

    /// Waits for the end, within the limit.
    pub fn finish(mut self) -> Ended {
        let stdout = self.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut text = String::new();
                let _ = pipe.read_to_string(&mut text);
                text
            })
        });
        assert!(has_ended(self.process.id() as i32, LIMIT), "no end after {LIMIT:?}");
        let status = self.process.wait().expect("a status");
        let rest = stdout.map_or_else(String::new, |reader| reader.join().expect("a reader"));
        let stderr = self.stderr.take().map_or_else(String::new, |reader| reader.join().expect("a reader"));
        Ended { code: status.code(), stdout: std::mem::take(&mut self.read) + &rest, stderr }
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        // Refused when it has been reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether process `pid` has gone, or goes within `limit`.
pub fn has_ended(pid: i32, limit: Duration) -> bool {
    // SAFETY: `pidfd_open` takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return true;
    }
    // SAFETY: the call above has just made this descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let timeout = PollTimeout::try_from(limit).expect("a limit that fits");
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, timeout).expect("poll") > 0
}

/// The children of process `pid`, whichever of its threads started them.
fn children(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether a working thread of process `pid` has used some hundredths of a second: the storm is open then.
fn has_worked(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.into_iter().any(|stat| {
        let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
        // The state is the first field behind the name, the time in user mode the twelfth.
        let ticks = rest.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<u32>().ok());
        name.contains("(worker-") && ticks >= Some(3)
    })
}
