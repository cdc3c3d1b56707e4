//! Managed handlers: registered here, a handler is deferred while its thread is in a critical region.
//!
//! ```
//! use core::sync::atomic::{AtomicU32, Ordering};
//! use sigsafe_core::handler::{Delivery, Handler};
//! use sigsafe_core::{Signal, critical};
//!
//! static SEEN: AtomicU32 = AtomicU32::new(0);
//!
//! fn on_usr1(_: &Delivery<'_>) {
//!     SEEN.fetch_add(1, Ordering::Relaxed);
//! }
//!
//! // SAFETY: the handler touches one atomic.
//! let registration = unsafe { Handler::new(on_usr1).restart(true).install(Signal::USR1)? };
//! critical(|_| {
//!     unsafe { libc::raise(libc::SIGUSR1) };
//!     assert_eq!(SEEN.load(Ordering::Relaxed), 0); // held back...
//! });
//! assert_eq!(SEEN.load(Ordering::Relaxed), 1); // ...until the region has ended
//! registration.remove().unwrap();
//! # Ok::<(), sigsafe_core::handler::InstallError>(())
//! ```

mod adopt;
mod delivery;
pub(crate) mod entry;
mod error;
pub(crate) mod forward;
mod lock;
pub(crate) mod table;

pub use adopt::adopt;
pub use delivery::Delivery;
pub use error::{AdoptError, InstallError, RemoveError, RemoveErrorKind};

use crate::defer::policy;
use crate::signal::Signal;
use crate::sigset::SigSet;
use entry::Entry;

/// A handler's type. A panic in it aborts the process.
pub type HandlerFn = fn(&Delivery<'_>);

/// A managed handler and its options, POSIX's (`sigaction`), to be [installed](Handler::install) for one or more signals.
///
/// All options are off at first.
///
/// Async-signal safety: may be made and changed in a handler. Cost: no system call, but for installing.
#[derive(Copy, Clone, Debug)]
#[doc(alias = "sigaction")]
#[must_use = "a handler does nothing until it is installed"]
pub struct Handler {
    function: HandlerFn,
    data: usize,
    mask: SigSet,
    on_stack: bool,
    restart: bool,
    no_defer: bool,
    reset_hand: bool,
    no_cld_stop: bool,
    no_cld_wait: bool,
    immediate: bool,
    /// Stands for a foreign handler: see [`adopt`].
    adopted: bool,
}

impl Handler {
    /// A handler with no signals blocked but its own while it runs.
    pub const fn new(function: HandlerFn) -> Handler {
        Handler {
            function,
            data: 0,
            mask: SigSet::EMPTY,
            on_stack: false,
            restart: false,
            no_defer: false,
            reset_hand: false,
            no_cld_stop: false,
            no_cld_wait: false,
            immediate: false,
            adopted: false,
        }
    }

    /// A word for the function, which finds it as [`Delivery::data`]: one function may so serve several masters. It is a number, or the
    /// exposed address of something that outlives the last run of the handler (which may come after the
    /// [removal](Registration::remove), on another thread). 0 unless given. Registrations with different words have memory of their own,
    /// which is not given back.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use sigsafe_core::Signal;
    /// use sigsafe_core::handler::{Delivery, Handler};
    ///
    /// static SEEN: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
    ///
    /// fn count(delivery: &Delivery<'_>) {
    ///     SEEN[delivery.data()].fetch_add(1, Relaxed);
    /// }
    ///
    /// for (index, signal) in [Signal::USR1, Signal::USR2].into_iter().enumerate() {
    ///     // SAFETY: the handler touches one atomic, and its word is an index of the array.
    ///     unsafe { Handler::new(count).data(index).install(signal)? };
    /// }
    /// unsafe { libc::raise(libc::SIGUSR2) };
    /// assert_eq!((SEEN[0].load(Relaxed), SEEN[1].load(Relaxed)), (0, 1));
    /// # Ok::<(), sigsafe_core::handler::InstallError>(())
    /// ```
    pub const fn data(self, data: usize) -> Handler {
        Handler { data, ..self }
    }

    /// The signals that are blocked while the handler runs, besides its own.
    #[doc(alias = "sa_mask")]
    pub const fn mask(self, mask: SigSet) -> Handler {
        Handler { mask, ..self }
    }

    /// Whether it runs on the alternate stack, where the thread has one.
    #[doc(alias = "SA_ONSTACK")]
    pub const fn on_stack(self, on: bool) -> Handler {
        Handler { on_stack: on, ..self }
    }

    /// Whether interrupted system calls are restarted where they can be, instead of failing with `EINTR`.
    #[doc(alias = "SA_RESTART")]
    pub const fn restart(self, on: bool) -> Handler {
        Handler { restart: on, ..self }
    }

    /// Whether the handler may be interrupted by its own signal. Costs a system call per delivery, since it is emulated.
    #[doc(alias = "SA_NODEFER")]
    pub const fn no_defer(self, on: bool) -> Handler {
        Handler { no_defer: on, ..self }
    }

    /// Whether the disposition becomes the default as the handler is called for the first time. Costs a system call then, since
    /// it is emulated.
    #[doc(alias = "SA_RESETHAND")]
    pub const fn reset_hand(self, on: bool) -> Handler {
        Handler { reset_hand: on, ..self }
    }

    /// For SIGCHLD: whether children that stop or continue are passed over.
    #[doc(alias = "SA_NOCLDSTOP")]
    pub const fn no_cld_stop(self, on: bool) -> Handler {
        Handler { no_cld_stop: on, ..self }
    }

    /// For SIGCHLD: whether children leave no zombie.
    #[doc(alias = "SA_NOCLDWAIT")]
    pub const fn no_cld_wait(self, on: bool) -> Handler {
        Handler { no_cld_wait: on, ..self }
    }

    /// Whether the handler runs at once even in a critical region. Its author vouches that it touches nothing that a region
    /// protects; meant for profilers that want the interrupted registers (for the program counter alone,
    /// [`Delivery::program_counter`] does without). It may use regions of its own. Each run in a region costs two
    /// system calls: what it leaves behind waits, blocked, for the region's end.
    pub const fn immediate(self, on: bool) -> Handler {
        Handler { immediate: on, ..self }
    }

    /// Installs the handler for `signal`, over whatever was there. The [`Registration`] puts that back.
    ///
    /// Async-signal safety: may be called from a handler. Cost: five system calls, and a short wait for a thread that is changing the
    /// same signal's handler; now and then a page of memory. What an installation takes is found again when it has been removed and the same
    /// is installed over the same, and is otherwise never given back. A signal that has had handlers with different masks costs one
    /// system call more per delivery from then on.
    ///
    /// # Errors
    ///
    /// [`InstallError`] says which signals cannot have a handler. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// From now on the handler may run between any two instructions of any thread that does not block the signal and is not in a critical
    /// region (with [`immediate`](Handler::immediate), and for faults that are raised and SIGABRT of this process: also in one; see
    /// [`in_region`](crate::in_region)). So it may touch atomics, what is only touched in regions, sigsafe's locks and allocators, and
    /// nothing else that the interrupted code may be in the middle of. It must return (no `longjmp`). What ends with a guard (a region, an
    /// alternate stack, an attachment) it must not leave behind alive, and it must not end one that it has not begun.
    ///
    /// Code in a region that calls [`mask::suspend`](crate::mask::suspend) or [`mask::temporary`](crate::mask::temporary) has the
    /// handlers that these let in run at that call.
    pub unsafe fn install(self, signal: Signal) -> Result<Registration, InstallError> {
        catchable(signal)?;
        let entry = table::push(signal, self).map_err(|error| InstallError::from_change(error, signal))?;
        Ok(Registration { signal, entry })
    }

    pub(crate) fn same(&self, other: &Handler) -> bool {
        let at = |h: &Handler| (h.data, h.mask, h.on_stack, h.restart, h.no_defer, h.reset_hand);
        let also = |h: &Handler| (h.no_cld_stop, h.no_cld_wait, h.immediate, h.adopted);
        core::ptr::fn_addr_eq(self.function, other.function) && at(self) == at(other) && also(self) == also(other)
    }
}

/// Whether a handler can be installed for it at all.
fn catchable(signal: Signal) -> Result<(), InstallError> {
    match signal {
        signal if policy::UNBLOCKABLE.contains(signal) => Err(InstallError::Uncatchable(signal)),
        signal if policy::RESERVED.contains(signal) => Err(InstallError::Reserved(signal)),
        _ => Ok(()),
    }
}

/// For the trampoline.
impl Entry {
    pub(crate) fn handler(&self) -> HandlerFn {
        self.spec.function
    }
    fn data(&self) -> usize {
        self.spec.data
    }
    pub(crate) fn mask(&self) -> SigSet {
        self.spec.mask
    }
    pub(crate) fn immediate(&self) -> bool {
        self.spec.immediate
    }
    pub(crate) fn one_shot(&self) -> bool {
        self.spec.reset_hand
    }
    pub(crate) fn no_defer(&self) -> bool {
        self.spec.no_defer
    }
    pub(crate) fn adopted(&self) -> bool {
        self.spec.adopted
    }
}

/// An installed handler. Dropping it leaves the handler installed, for the life of the process.
#[derive(Debug)]
pub struct Registration {
    signal: Signal,
    entry: &'static Entry,
}

impl Registration {
    /// The signal.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Puts back the disposition that was there before: another managed handler, or what anybody else had installed, or the
    /// default. A one-shot handler that has run is removed already.
    ///
    /// The handler may still be running on another thread, or be about to, when this returns; that is so with `sigaction` too.
    ///
    /// Async-signal safety: may be called from a handler. Cost: five system calls.
    ///
    /// # Errors
    ///
    /// [`RemoveErrorKind::Replaced`] when another handler was installed over this one, here or by a plain `sigaction`: removing this
    /// one would remove that. Whatever the reason, nothing has changed, and the error gives the registration back.
    pub fn remove(self) -> Result<(), RemoveError> {
        table::remove(self.signal, self.entry).map_err(|error| RemoveError::new(self, error))
    }
}
