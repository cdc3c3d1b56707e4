//! The end of a process whose state is not to be trusted, from any context.

use crate::crash;
use crate::signal::Signal;
use crate::sys;

/// Writes `sigsafe: `, the parts and a newline to standard error, and ends the process by SIGABRT with the default action, whatever
/// the mask and the disposition of SIGABRT are. Parts beyond 500 bytes are cut.
///
/// Async-signal safety: may be called from a handler; allocates nothing and runs no handler. Cost: a handful of system calls.
#[cold]
pub fn fatal(parts: &[&str]) -> ! {
    let mut line = [0u8; 512];
    let mut length = 0;
    let pieces = ["sigsafe: "].into_iter().chain(parts.iter().copied());
    for byte in pieces.flat_map(str::bytes).take(line.len() - 1) {
        line[length] = byte;
        length += 1;
    }
    line[length] = b'\n';
    // One write, so that messages of two threads do not mix.
    sys::write_to_stderr(&line[..=length]);
    crash(Signal::ABRT)
}
