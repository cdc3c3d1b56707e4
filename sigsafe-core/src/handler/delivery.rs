//! One delivery of a signal, as its handler sees it. Runs in handlers.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::entry::Entry;
use crate::siginfo::SigInfo;
use crate::signal::Signal;
use crate::sys;

/// One delivery of a signal, as its handler sees it.
///
/// Async-signal safety: made for handlers. Cost: no system call.
#[derive(Debug)]
pub struct Delivery<'d> {
    pub(super) signal: Signal,
    /// Whose handler is called.
    pub(super) entry: &'static Entry,
    /// A whole one that is alive as long as `'d`.
    pub(super) info: NonNull<libc::siginfo_t>,
    pub(super) context: Option<NonNull<libc::ucontext_t>>,
    pub(super) deferred: bool,
    pub(super) captured_at: Option<usize>,
    pub(super) frame: PhantomData<&'d libc::siginfo_t>,
}

impl Delivery<'_> {
    /// # Safety
    ///
    /// `info` is a whole siginfo and `context`, if there is one, the kernel's of a live delivery; both stay so for as long as the result
    /// lives.
    pub(crate) unsafe fn new(
        signal: Signal,
        entry: &'static Entry,
        info: NonNull<libc::siginfo_t>,
        context: Option<NonNull<libc::ucontext_t>>,
        deferred: bool,
        captured_at: Option<usize>,
    ) -> Self {
        Delivery { signal, entry, info, context, deferred, captured_at, frame: PhantomData }
    }

    /// Which signal it is.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// The word that the handler was installed with ([`Handler::data`](super::Handler::data)).
    pub fn data(&self) -> usize {
        self.entry.data()
    }

    /// Who sent the signal, and why: a copy of the kernel's account.
    #[doc(alias = "si_code")]
    pub fn info(&self) -> SigInfo {
        // SAFETY: by the contract of `new`.
        SigInfo::of(self.signal, unsafe { self.info.read() })
    }

    /// The kernel's account itself, for code that takes the pointer that a `SA_SIGINFO` handler gets. Valid until the handler returns.
    #[doc(alias = "siginfo_t")]
    pub fn raw_info(&self) -> NonNull<libc::siginfo_t> {
        self.info
    }

    /// The machine context of the interrupted code, the kernel's own: what is written to it takes effect as the handler returns.
    ///
    /// A pointer and not a reference, because the kernel's is shorter than libc's type: of `uc_sigmask` it holds the first eight bytes, and
    /// what follows need not be there. Read and write single fields, and do not copy it.
    ///
    /// For a deferred delivery that is the end of the region, not the instruction at which the signal first arrived. `None` where
    /// there is no interrupted code: a SIGCONT that a region has held back, and signals that the kernel refused to queue again (a sandbox,
    /// `RLIMIT_SIGPENDING`), are dispatched by the region's exit.
    #[doc(alias = "uc_mcontext")]
    pub fn ucontext(&self) -> Option<NonNull<libc::ucontext_t>> {
        self.context
    }

    /// The instruction that the signal interrupted: for a delivery that a region had held back, the one at which it first arrived.
    ///
    /// `None` for a signal that came while the region was already holding others back, and so waited in the kernel; and for one that was
    /// followed by another capture in the same region. Also on NetBSD, OpenBSD, illumos and the less common architectures, whose machine
    /// contexts are not read.
    pub fn program_counter(&self) -> Option<usize> {
        if self.deferred && !mutant!("pc-of-exit") {
            return self.captured_at;
        }
        // SAFETY: by the contract of `new`.
        self.context.and_then(|context| unsafe { sys::program_counter(context.as_ptr()) })
    }

    /// Whether a region had held the signal back.
    pub fn was_deferred(&self) -> bool {
        self.deferred
    }
}
