//! What the kernel says about one signal, as a value. Data only, usable in any context.

use core::fmt;

use crate::signal::Signal;
use crate::sigset::SigSet;

/// The kernel's account of a signal: who sent it, why, and with what value.
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
#[doc(alias = "siginfo_t")]
#[derive(Copy, Clone)]
pub struct SigInfo {
    signal: Signal,
    raw: libc::siginfo_t,
}

// SAFETY: numbers alone. Some systems declare one of them, an address of whoever sent the signal, as a pointer; it is only read as a value.
unsafe impl Send for SigInfo {}
// SAFETY: as above.
unsafe impl Sync for SigInfo {}

impl SigInfo {
    /// `None` when its number is no signal's.
    pub(crate) fn new(raw: libc::siginfo_t) -> Option<SigInfo> {
        let signal = Signal::new(raw.si_signo).ok()?;
        Some(SigInfo { signal, raw })
    }

    /// Of a delivery of `signal`.
    pub(crate) fn of(signal: Signal, raw: libc::siginfo_t) -> SigInfo {
        SigInfo { signal, raw }
    }

    /// Which signal it is.
    #[doc(alias = "si_signo")]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Why it was sent: `SI_USER`, `SI_QUEUE`, `CLD_EXITED`...
    #[doc(alias = "si_code")]
    pub fn code(&self) -> i32 {
        self.raw.si_code
    }

    /// Whether it is a fault that the running instruction raised, and not one of these signals that somebody has sent. Such an instruction
    /// raises it again when the handler returns, unless that has changed something.
    pub fn is_raised(&self) -> bool {
        is_raised(self.signal, self.raw.si_code)
    }

    /// The address that a fault is about: for SIGSEGV and SIGBUS what the instruction wanted to reach, for the others mostly the instruction
    /// itself. `None` for what is not a [raised](SigInfo::is_raised) fault. The kernel says 0 where it does not know.
    #[doc(alias = "si_addr")]
    pub fn address(&self) -> Option<usize> {
        // SAFETY: the siginfo of a fault carries an address.
        self.is_raised().then(|| unsafe { self.raw.si_addr() }.addr())
    }

    /// All of it, for what is not asked here: the sender, a child's status, the value of `sigqueue`. Which of these a siginfo carries
    /// depends on the signal and the code.
    pub fn as_raw(&self) -> &libc::siginfo_t {
        &self.raw
    }
}

/// The codes of faults are small numbers on every system. Those of signals that are sent are zero, negative, or from 2^16 (FreeBSD, macOS).
pub(crate) fn is_raised(signal: Signal, code: i32) -> bool {
    SigSet::SYNCHRONOUS.contains(signal) && 0 < code && code < 1 << 16
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigInfo").field("signal", &self.signal).field("code", &self.raw.si_code).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn crosses_threads<T: Send + Sync>() {}
    const _: () = crosses_threads::<SigInfo>();

    #[test]
    fn a_fault_is_told_from_a_signal_that_was_sent() {
        const SI_KERNEL_LINUX: i32 = 0x80;
        const SI_USER_FREEBSD: i32 = 0x1_0001;
        for signal in SigSet::FULL {
            for code in [1, 4, SI_KERNEL_LINUX] {
                assert_eq!(is_raised(signal, code), SigSet::SYNCHRONOUS.contains(signal), "{signal} {code}");
            }
            for code in [0, -1, -6, i32::MIN, SI_USER_FREEBSD, SI_USER_FREEBSD + 1] {
                assert!(!is_raised(signal, code), "{signal} {code}");
            }
        }
    }
}
