//! What both ways to create a thread share: the creator's side around the creation, and the new thread's first and last steps.
//!
//! ```text
//!  creator   block everything ── create ── mask as it was ── look at the error
//!  child          (born with everything blocked) alternate stack ── mask ── the caller's code ── block ── stack away, freed
//! ```

use super::altstack::{AltStack, InstalledAltStack};
use crate::defer::{leave_thread, policy};
use crate::fatal;
use crate::mask;
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// What a thread is born with, and what `leave_thread` has it die with: all but faults, whose blocking kills, and libc's own, whose
/// blocking stalls others.
const UNSTARTED: SigSet = policy::BLOCKABLE.difference(policy::FAULTS);

/// Runs `create` with everything blocked. The kernel's mask is then exactly as it was, before anybody looks at the result, and
/// also when `create` panics.
pub(super) fn with_signals_blocked<R>(create: impl FnOnce() -> R) -> R {
    struct Restore(SigSet);

    impl Drop for Restore {
        fn drop(&mut self) {
            // Not the logical mask: in a region the kernel's holds what the region holds back, and nothing has been captured since.
            sys::sigprocmask(How::Set, self.0);
        }
    }

    let blocked = if mutant!("spawn-unblocked") { SigSet::EMPTY } else { UNSTARTED };
    let restore = Restore(sys::sigprocmask(How::Block, blocked));
    let result = create();
    drop(restore);
    result
}

/// The new thread's side, from its first step to its last.
#[derive(Debug)]
pub(super) struct Life {
    stack: Option<InstalledAltStack>,
}

impl Life {
    /// In the new thread, before any code of the caller's: the alternate stack, and then the mask.
    pub(super) fn begin(stack: AltStack, mask: SigSet) -> Life {
        // Nobody to return an error to. The stack is large enough and the thread runs on no other, so only a filter can refuse.
        let stack = stack.install().unwrap_or_else(|_| fatal(&["a new thread's sigaltstack was refused"]));
        // SIGNAL: the first handler runs before this returns.
        mask::set(mask.difference(SigSet::ESSENTIAL));
        Life { stack: Some(stack) }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Blocks everything.
        leave_thread();
        drop(self.stack.take());
    }
}
