//! A signal at every instruction by ptrace, where the trap flag does not reach: over system calls that wait, and over the creation of
//! threads, whose C library blocks SIGTRAP.
//!
//! The tracee, a fork, runs *stories* on request and marks where the interesting part begins and ends. The tracer steps through a story
//! once and so learns the boundaries of each thread: program counters, and the how-manieth time each is reached. Then it runs the
//! story once for each boundary, at full speed up to a breakpoint there, and sends the signal to the stopped thread: it is delivered
//! before the next instruction. Where a thread stops without executing anything, as behind a system call that lets a signal in, or
//! within a string instruction, the last way there is stepped. A run may take another path than the one that was learnt (a lock that is
//! contended, another turn to read the clock that ticks); it is tried again, and a boundary that is never reached counts as missed and is
//! named. More than one in a hundred fail the sweep.
//!
//! x86_64 only. The tracee's own checks decide: it counts failures in memory that both share.

#![allow(dead_code, reason = "each sweep is a crate that uses its own part of this module")]

mod missed;
mod rounds;
mod tracer;

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

#[allow(unused_imports, reason = "a sweep uses one or the other")]
pub(crate) use rounds::{sweep, sweep_processes};

std::arch::global_asm!(".globl sigsafe_sweep_mark", "sigsafe_sweep_mark:", "int3", "ret");

unsafe extern "C" {
    fn sigsafe_sweep_mark(code: u64);
}

/// The tracee asks for the next story.
const NEXT: u64 = 1;
const BEGIN: u64 = 2;
const END: u64 = 3;
/// A new thread is in its caller's code.
const READY: u64 = 4;

/// What both sides share.
pub(crate) struct Script {
    story: AtomicU32,
    /// The signal that is sent in this run, 0 for none.
    signal: AtomicU32,
    /// The thread that it was sent to: 0 none, 1 the one that performs the operation, 2 the new one.
    pub(crate) sent_to: AtomicU32,
    pub(crate) failures: AtomicU32,
}

const NO_STORY: u32 = u32::MAX;

impl Script {
    /// In memory that is shared with every child.
    fn shared() -> &'static Script {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping touches no memory of anyone's.
        let page = unsafe { libc::mmap(null_mut::<c_void>(), 4096, access, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: the mapping is never given back; zero is a value of every field.
        unsafe { &*page.cast::<Script>() }
    }
}

/// The tracee's side.
impl Script {
    /// Waits for the next story and the signal that is sent in it, 0 for none.
    pub(crate) fn next(&self) -> Option<(usize, c_int)> {
        mark(NEXT);
        let story = self.story.load(SeqCst);
        (story != NO_STORY).then(|| (story as usize, self.signal.load(SeqCst) as c_int))
    }

    pub(crate) fn sent(&self) -> bool {
        self.sent_to.load(SeqCst) != 0
    }
}

/// Runs the part of a story whose every instruction is of interest.
pub(crate) fn swept<R>(operation: impl FnOnce() -> R) -> R {
    mark(BEGIN);
    let result = operation();
    mark(END);
    result
}

/// Called by a thread that is not the performer: from here on its instructions are of interest, until it is [`ready`].
pub(crate) fn begin() {
    mark(BEGIN);
}

/// Called by a new thread as the first of its caller's code.
pub(crate) fn ready() {
    mark(READY);
}

fn mark(code: u64) {
    // SAFETY: the tracer steps over the breakpoint, which changes nothing.
    unsafe { sigsafe_sweep_mark(code) };
}
