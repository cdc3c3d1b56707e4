//! A thread's mask and alternate stack: made for the time of a guard, and put back exactly.
//!
//! Runs in the thread that it concerns, also in regions and in handlers. It needs nothing blocked: each step leaves the thread in
//! a state in which a handler may run.

use core::marker::PhantomData;

use super::ThreadError;
use super::altstack::{self, InstalledAltStack};
use crate::mask;
use crate::sigset::SigSet;

/// The mask that a thread made on behalf of this one is to have: what *this thread* has blocked, without what a region holds back.
///
/// Async-signal safety: may be called from a handler, and speaks of the handler's mask there. Cost: one system call.
#[doc(alias = "msigsave")]
pub fn capture() -> SigSet {
    mask::current()
}

/// Prepares the calling thread for signals: gives it an alternate stack, or adopts the one that it has, and then the mask, `captured`
/// without the [essential](SigSet::ESSENTIAL) signals. The drop of the result puts back the mask and the alternate stack that the
/// thread had, whatever has been done to the mask in between.
///
/// For runtimes that create threads by means of their own: block everything around the creation, call this first in the new
/// thread, and drop the result last. `spawn` and [`spawn_raw`](super::spawn_raw) do that.
///
/// An alternate stack that is there is adopted, and left alone, if it has at least [`AltStack::smallest_adopted`] bytes. A smaller
/// one (std's have 8 KiB) is replaced for the time.
///
/// ```
/// use sigsafe_core::{Signal, SigSet, mask, thread};
///
/// let before = mask::current();
/// let init = thread::init(SigSet::FULL)?;
/// assert!(mask::current().contains(Signal::TERM) && !mask::current().contains(Signal::SEGV));
/// drop(init);
/// assert_eq!(mask::current(), before);
/// # Ok::<(), thread::ThreadError>(())
/// ```
///
/// # Errors
///
/// [`ThreadError::Memory`]; [`ThreadError::OnAltStack`] in a handler that runs on an alternate stack which is too small. Nothing has been
/// changed then.
///
/// Async-signal safety: may be called from a handler, where it is to be undone before the handler returns. Cost: two system calls,
/// five with a stack of its own, and one more in a region.
///
/// [`AltStack::smallest_adopted`]: super::AltStack::smallest_adopted
#[doc(alias = "minit")]
pub fn init(captured: SigSet) -> Result<Init, ThreadError> {
    let setup = Setup::begin(|| mask::set(captured.difference(SigSet::ESSENTIAL)))?;
    Ok(Init { setup, thread: PhantomData })
}

/// A thread prepared for signals by [`init`]; the drop undoes that.
///
/// Async-signal safety: may be dropped in a handler if it was made in the same run of it. Cost: two system calls to drop it, four with
/// a stack of its own, and up to two more in a region; no other method makes any.
#[doc(alias = "unminit")]
#[derive(Debug)]
#[must_use = "the thread is as before as soon as this is dropped"]
pub struct Init {
    setup: Setup,
    /// Of one thread.
    thread: PhantomData<*const ()>,
}

impl Init {
    /// Whether the thread's own alternate stack is used, since it is large enough.
    pub fn adopted_alt_stack(&self) -> bool {
        self.setup.adopted()
    }
}

/// What was found, to be put back.
#[derive(Debug)]
pub(super) struct Setup {
    found: SigSet,
    /// `None` if the thread's own was adopted. Dropped after the mask has been put back, as the last thing.
    stack: Option<InstalledAltStack>,
}

impl Setup {
    /// The alternate stack first, then the mask, by `change`, which returns the one before.
    pub(super) fn begin(change: impl FnOnce() -> SigSet) -> Result<Setup, ThreadError> {
        let stack = altstack::ensure()?;
        // SIGNAL: a handler here finds the thread's mask, and an alternate stack that is large enough.
        Ok(Setup { found: change(), stack })
    }

    pub(super) fn adopted(&self) -> bool {
        self.stack.is_none()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // By what is to be blocked and what is not, and not by `mask::set`: a foreign thread may have signals blocked that no mask
        // operation of ours speaks of.
        mask::block(self.found);
        // SIGNAL: in between a handler finds more blocked than before and after.
        mask::unblock(self.found.complement());
    }
}
