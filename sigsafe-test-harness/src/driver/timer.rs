//! The driver `timer`: one POSIX timer for each thread, on the monotonic clock, fired once and armed anew.
//!
//! The handler arms it as its last act. So there is always a full gap after a handler, however long it took, and the main flow
//! is never starved; and while a delivery is held back, no further one is made. Arming runs in signal context:
//! `timer_settime` is async-signal-safe, and the rest is arithmetic.

use std::cell::Cell;
use std::io;
use std::ptr;

use crate::rng::Generator;
use crate::shared::{Phase, Shared, ThreadCounters, count};

/// The gap when the rate asks for less. It begins inside the handler, and the way back to the main flow takes a part of it: with
/// a much shorter one the next signal would be there before the main flow is.
const SHORTEST_GAP_NS: u32 = 6_000;
const LONGEST_GAP_NS: u32 = 20_000;

/// One thread's timer. Used by that thread alone: by its main flow before the first signal, by its handler from then on.
pub(crate) struct Alarm {
    timer: libc::timer_t,
    period_ns: u64,
    generator: Cell<Generator>,
}

impl Alarm {
    /// Makes the calling thread's timer, disarmed. Thread context.
    ///
    /// # Errors
    ///
    /// The failure of `timer_create`.
    pub(crate) fn new(period_ns: u64, generator: Generator) -> io::Result<Alarm> {
        // SAFETY: the struct is made of integers, a pointer and a union of such; all zeros is a value of it.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        // SAFETY: `gettid` has no precondition.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: the event and the place for the timer are live for the call, and the thread named is this one.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Alarm { timer, period_ns, generator: Cell::new(generator) })
    }

    /// Arms the timer for half a period to one and a half, so that signals do not fall into step with the main flow, and never
    /// for less than the shortest gap; not when the storm is over. Async-signal-safe; one system call.
    pub(crate) fn arm(&self, shared: &Shared, counters: &ThreadCounters) {
        if shared.phase() > Phase::Running {
            return;
        }
        let mut generator = self.generator.replace(Generator::new(0, 0));
        let asked_ns = self.period_ns / 2 + generator.word() % self.period_ns.max(1);
        let gap_ns = asked_ns.max(generator.between(SHORTEST_GAP_NS, LONGEST_GAP_NS).into());
        self.generator.set(generator);
        count(&counters.sent);
        let gap = libc::timespec { tv_sec: (gap_ns / 1_000_000_000) as i64, tv_nsec: (gap_ns % 1_000_000_000) as libc::c_long };
        let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: gap };
        // SAFETY: the timer is this struct's own, the new value is live for the call, and a null pointer for the old one is
        // allowed.
        if unsafe { libc::timer_settime(self.timer, 0, &raw const once, ptr::null_mut()) } != 0 {
            sigsafe_core::fatal(&["timer_settime failed"]);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this struct's own, and not used any more. A failure would leave it to the end of the process.
        unsafe { libc::timer_delete(self.timer) };
    }
}
