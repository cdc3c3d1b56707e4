//! The driver `tgkill`: a thread that sends the signal to one working thread after the other.
//!
//! It runs in a thread of its own, with the signal blocked. A thread is sent its next signal when the handler of the last one
//! has returned and a gap has passed: the period that the rate asks for, or a few random microseconds when that is shorter,
//! without which each signal would wait at the handler's return and the main flow would never run.
//!
//! In between it naps for some microseconds. Were it to spin, it would take a working thread's time slices where there is no
//! processor to spare, and be given one only every few milliseconds; a thread that wakes is let in promptly. The naps are its
//! pace, and nothing waits for them.

use std::sync::atomic::Ordering;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::process::now_ns;
use crate::rng::Generator;
use crate::shared::{Phase, Shared, ThreadCounters, ThreadState};

/// The gap when the rate asks for none: about as long as a handler of the collector.
const SHORTEST_GAP_NS: u32 = 2_000;
const LONGEST_GAP_NS: u32 = 20_000;
/// The longest nap while a handler has not returned.
const NAP_NS: u64 = 20_000;
/// The time slice that the driver asks for: the shortest that the kernel gives.
const SLICE_NS: u64 = 100_000;

/// Sends until the storm is over. When it returns, no signal will be sent any more.
pub(crate) fn run(shared: &Shared, threads: usize, period_ns: u64, mut generator: Generator) {
    let workers = &shared.threads[..threads];
    be_prompt();
    // When each thread is due; `None` while its handler has not been seen to return.
    let mut due = vec![Some(0_u64); threads];
    while shared.phase() == Phase::Running {
        let now = now_ns();
        let mut look_again = u64::MAX;
        for (counters, due) in workers.iter().zip(&mut due) {
            if counters.state() != ThreadState::Working || !counters.all_handled() {
                look_again = look_again.min(now + NAP_NS);
                continue;
            }
            let at = *due.get_or_insert_with(|| now + period_ns.max(shortest_gap(&mut generator)));
            if at <= now {
                send(counters);
                *due = None;
                look_again = look_again.min(now + NAP_NS);
            } else {
                look_again = look_again.min(at);
            }
        }
        nap_until(look_again);
    }
}

/// Asks for short naps and for short time slices, of which the kernel's scheduler lets a waking thread have the first at once.
/// A refusal makes the driver slower and nothing else.
fn be_prompt() {
    // The naps would otherwise be rounded up to the thread's slack, 50 us.
    let _ = nix::sys::prctl::set_timerslack(1);
    // A share of the processors above the working threads' is for the privileged; the short slice is for all.
    for niceness in [-10, 0] {
        // SAFETY: the struct is made of integers; all zeros is a value of it, and stands for the ordinary policy.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        attributes.size = size_of::<libc::sched_attr>() as u32;
        attributes.sched_nice = niceness;
        attributes.sched_runtime = SLICE_NS;
        // SAFETY: 0 is the calling thread; the attributes are live for the call and say their size.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } == 0 {
            return;
        }
    }
}

fn shortest_gap(generator: &mut Generator) -> u64 {
    generator.between(SHORTEST_GAP_NS, LONGEST_GAP_NS).into()
}

fn send(counters: &ThreadCounters) {
    counters.send_while_working(|| {
        let tid = counters.tid.load(Ordering::Relaxed) as libc::pid_t;
        // SAFETY: three integers. The number is that of a thread of this process, or of one that has just ended and whose successor
        // is not started while a signal is being sent to it.
        match unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGPROF) } {
            0 => true,
            _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) => false,
            _ => sigsafe_core::fatal(&["tgkill failed"]),
        }
    });
}

fn nap_until(deadline_ns: u64) {
    let deadline = TimeSpec::new((deadline_ns / 1_000_000_000) as i64, (deadline_ns % 1_000_000_000) as i64);
    // An early return costs one more look at the counters.
    let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &deadline);
}
