//! What the kernel says about one signal, as a value. Data only, usable in any context.

use core::fmt;

use crate::signal::Signal;

/// The kernel's account of a signal: who sent it, why, and with what value.
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
#[doc(alias = "siginfo_t")]
#[derive(Copy, Clone)]
pub struct SigInfo {
    signal: Signal,
    raw: libc::siginfo_t,
}

impl SigInfo {
    /// `None` when its number is no signal's.
    pub(crate) fn new(raw: libc::siginfo_t) -> Option<SigInfo> {
        let signal = Signal::new(raw.si_signo).ok()?;
        Some(SigInfo { signal, raw })
    }

    /// Which signal it is.
    #[doc(alias = "si_signo")]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Why it was sent: `SI_USER`, `SI_QUEUE`, `CLD_EXITED`... Positive when the kernel itself raised it.
    #[doc(alias = "si_code")]
    pub fn code(&self) -> i32 {
        self.raw.si_code
    }

    /// All of it.
    pub fn as_raw(&self) -> &libc::siginfo_t {
        &self.raw
    }
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigInfo").field("signal", &self.signal).field("code", &self.raw.si_code).finish_non_exhaustive()
    }
}
