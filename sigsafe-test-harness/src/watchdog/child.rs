//! The process of a case, as its watchdog holds it.
//!
//! Ordinary thread context, but for the preparations between fork and exec, which only make system calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};

use crate::plan::Plan;
use crate::process::{die_with_parent, end_group, end_of, memory_file, pidfd_of};
use crate::shared::SharedMap;
use crate::verdict::Ending;

/// The most that a child may write: a child gone wild must not fill the machine's memory.
const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;

/// A child process that runs one case. Dropping it kills and reaps it.
pub(crate) struct CaseProcess {
    child: Child,
    pub(crate) pidfd: OwnedFd,
    pub(crate) shared: SharedMap,
    output: File,
    ended: Option<ExitStatus>,
}

impl CaseProcess {
    /// Starts `program` on the case of `plan`.
    pub(crate) fn start(plan: &Plan, program: &Path) -> io::Result<CaseProcess> {
        let block = memory_file()?;
        let shared = SharedMap::create(&block)?;
        let output = memory_file()?;
        let mut command = Command::new(program);
        command
            .arg0("sigsafe-stress")
            .args(["case", "--shared-fd", &block.as_raw_fd().to_string(), "--plan", &serde_json::to_string(plan)?])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            // A group of its own: what a terminal sends to the watchdog must reach the child only through it.
            .process_group(0);
        let parent = std::process::id();
        // SAFETY: the closure only makes system calls, which is safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                die_with_parent(parent)?;
                limit_output()?;
                // The watchdog has Ctrl-C and its kin blocked, and the child would inherit that.
                SigSet::empty().thread_set_mask()?;
                // The descriptor must survive this exec, and no other.
                fcntl(&block, FcntlArg::F_SETFD(FdFlag::empty()))?;
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        match pidfd_of(&child) {
            Ok(pidfd) => Ok(CaseProcess { child, pidfd, shared, output, ended: None }),
            Err(error) => {
                end_group(&mut child)?;
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills whatever still runs and reaps the child; the same status again when called again.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = end_group(&mut self.child)?;
        self.ended = Some(status);
        Ok(status)
    }

    /// The end of what the child wrote.
    pub(crate) fn output(&self) -> io::Result<String> {
        end_of(&self.output)
    }
}

impl Drop for CaseProcess {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the kernel kills the child when this process ends.
        let _ = self.end();
    }
}

/// Bounds what this process can write to a file, and its core dump to nothing. Runs between fork and exec.
fn limit_output() -> io::Result<()> {
    let set = |what, bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: the limit is live for the call.
        if unsafe { libc::setrlimit(what, &raw const limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    set(libc::RLIMIT_CORE, 0)?;
    set(libc::RLIMIT_FSIZE, OUTPUT_LIMIT_BYTES)?;
    // A write beyond the limit is to fail, not to kill.
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    Ok(())
}

/// What the exit status of a child that was not found stuck says.
pub(crate) fn ending_of(status: ExitStatus, token: bool) -> Ending {
    match (status.code(), status.signal()) {
        (Some(status), _) => Ending::Exited { status, token },
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned());
            Ending::Died { signal: name }
        }
        (None, None) => Ending::Exited { status: status.into_raw(), token },
    }
}
