//! What is done with a signal: plain functions of numbers, without effects, tested for all 64 signals.

#[cfg(deferral)]
use core::ffi::c_int;
use core::sync::atomic::Ordering;

use crate::bits::AtomicBits;
#[cfg(deferral)]
use crate::siginfo::is_raised;
use crate::signal::Signal;
use crate::sigset::SigSet;

/// Raised by the instruction that is running. Blocked, a real one kills the process (signal(7)), so they are never blocked here.
pub(crate) const FAULTS: SigSet = SigSet::SYNCHRONOUS;

/// Nobody can catch or block these; POSIX has mask operations ignore them silently.
pub(crate) const UNBLOCKABLE: SigSet = SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP);

/// libc's own. Blocked, they stall `setuid` in other threads and cancellation.
pub(crate) const RESERVED: SigSet = SigSet::RESERVED;

/// What a mask may contain.
pub(crate) const BLOCKABLE: SigSet = UNBLOCKABLE.union(RESERVED).complement();

#[cfg(deferral)]
/// SIGCONT discards what waits of these (POSIX, 2.4.1). Given back to the kernel they are there to be discarded.
pub(crate) const STOPS: SigSet = SigSet::EMPTY.with(Signal::TSTP).with(Signal::TTIN).with(Signal::TTOU);

/// What may wait for the end of a region, before handlers that asked to run at once are taken out. SIGABRT is not among them: a
/// region that blocks it would have `abort()` die of something else.
const DEFERRABLE: SigSet = FAULTS.union(UNBLOCKABLE).union(RESERVED).with(Signal::ABRT).complement();

/// Signals whose top handler is registered as immediate. Written by the handler table, read everywhere.
pub(crate) static IMMEDIATE: AtomicBits = AtomicBits::new(0);

/// What a region holds back at this moment.
pub(crate) fn deferrable() -> SigSet {
    if mutant!("faults-blocked") {
        return DEFERRABLE.union(FAULTS);
    }
    if mutant!("reserved-blocked") {
        return DEFERRABLE.union(RESERVED);
    }
    DEFERRABLE.difference(SigSet::from_bits(IMMEDIATE.load(Ordering::Relaxed)))
}

#[cfg(deferral)]
/// What the trampoline does with a delivery.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Call the handler now.
    Run,
    /// Give the signal back to the kernel; it waits there, blocked.
    Requeue,
    /// Keep the siginfo in a slot of the thread record.
    Keep,
}

#[cfg(deferral)]
/// A delivery, as far as the decision needs it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) signal: Signal,
    /// `si_code`.
    pub(crate) code: c_int,
    /// Whether `si_pid` is this process.
    pub(crate) from_self: bool,
    /// The thread is in a critical region.
    pub(crate) in_region: bool,
    /// The handler was registered as immediate.
    pub(crate) immediate: bool,
    /// The mask that the kernel will restore has this signal blocked: a temporary mask (`sigsuspend`, `ppoll`) admitted it, and
    /// whoever set that mask waits for the handler.
    pub(crate) admitted: bool,
}

#[cfg(deferral)]
/// Decides what to do with a delivery.
pub(crate) fn decide(arrival: Arrival) -> Verdict {
    let Arrival { signal, code, from_self, in_region, immediate, admitted } = arrival;
    if !in_region || (immediate && !mutant!("immediate-waits")) || (admitted && !mutant!("temporary-mask-ignored")) {
        return Verdict::Run;
    }
    if FAULTS.contains(signal) {
        // Returning from a fault without its handler would run into it again; a sent one, requeued and unblocked, would come
        // back before the next instruction, without end.
        return if is_raised(signal, code) || mutant!("sent-fault-at-once") { Verdict::Run } else { Verdict::Keep };
    }
    if signal == Signal::ABRT {
        // abort() raises it and, if raise() returns, takes the process down by other means.
        return if code == libc::SI_TKILL && from_self && !mutant!("abort-deferred") { Verdict::Run } else { Verdict::Keep };
    }
    // Sending SIGCONT again would discard stops that were sent after it.
    if signal == Signal::CONT || signal.is_real_time() {
        let requeued = if signal == Signal::CONT { mutant!("continue-requeued") } else { mutant!("real-time-requeued") };
        return if requeued { Verdict::Requeue } else { Verdict::Keep };
    }
    Verdict::Requeue
}

#[cfg(deferral)]
/// Whether a region may have it blocked: everything deferrable may wait in the kernel, and faults and SIGABRT must not.
pub(crate) fn may_block(signal: Signal) -> bool {
    DEFERRABLE.contains(signal)
}

#[cfg(all(test, deferral))]
mod tests {
    use super::*;

    fn arrival(signal: Signal) -> Arrival {
        Arrival { signal, code: libc::SI_USER, from_self: false, in_region: true, immediate: false, admitted: false }
    }

    #[test]
    fn every_signal_is_of_exactly_one_kind() {
        for signal in SigSet::FULL {
            let kinds = [
                FAULTS.contains(signal),
                UNBLOCKABLE.contains(signal),
                RESERVED.contains(signal),
                signal == Signal::ABRT,
                DEFERRABLE.contains(signal),
            ];
            assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{signal}");
        }
        assert_eq!(RESERVED.len(), if cfg!(target_env = "musl") { 3 } else { 2 });
        assert!(RESERVED.contains(Signal::new(32).unwrap()) && !RESERVED.contains(Signal::SYS));
    }

    #[test]
    fn outside_a_region_and_for_who_asked_every_signal_runs() {
        for signal in SigSet::FULL {
            assert_eq!(decide(Arrival { in_region: false, ..arrival(signal) }), Verdict::Run);
            assert_eq!(decide(Arrival { immediate: true, ..arrival(signal) }), Verdict::Run);
            assert_eq!(decide(Arrival { admitted: true, ..arrival(signal) }), Verdict::Run);
        }
    }

    #[test]
    fn in_a_region_nothing_deferrable_runs_and_no_fault_waits() {
        for signal in SigSet::FULL {
            let sent = decide(arrival(signal));
            assert_ne!(sent, Verdict::Run, "{signal}");
            assert_eq!(
                sent == Verdict::Keep,
                FAULTS.contains(signal) || signal == Signal::CONT || signal.is_real_time() || signal == Signal::ABRT
            );
            let raised = decide(Arrival { code: 1, ..arrival(signal) });
            assert_eq!(raised == Verdict::Run, FAULTS.contains(signal));
            let own = decide(Arrival { code: libc::SI_TKILL, from_self: true, ..arrival(signal) });
            assert_eq!(own == Verdict::Run, signal == Signal::ABRT);
        }
    }
}
