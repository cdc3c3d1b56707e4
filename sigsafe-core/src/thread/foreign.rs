//! Attaching a thread that somebody else made: a callback of a C library that calls in.
//!
//! Runs in that thread, also in regions and in handlers.

use core::marker::PhantomData;

use super::ThreadError;
use super::setup::Setup;
use crate::defer::policy;
use crate::mask;
use crate::query::in_handler;
use crate::record::{get, put, record};
use crate::sigset::SigSet;

/// Prepares a thread that somebody else made, for as long as the result lives: the [essential](SigSet::ESSENTIAL) signals are
/// unblocked, and there is an alternate stack, its own if that is large enough. All else that it has blocked stays blocked. The
/// drop gives it back its mask and its alternate stack as they were, whatever has been done to the mask in between.
///
/// Attachments may be nested: only the outermost changes anything and puts anything back. If that one is dropped first, the thread is
/// as before from then on, and those inside it do nothing.
///
/// In a [managed handler](crate::in_handler) the mask is the handler's, and so only the faults among the essential signals are
/// unblocked: with SIGPROF or SIGCHLD the handler would be interrupted by what it has asked not to be. There each attachment
/// undoes what it did itself, and must do so before the handler returns.
///
/// ```
/// use sigsafe_core::thread;
///
/// extern "C" fn callback() {
///     // On a thread of the C library's.
///     let Ok(_attached) = thread::attach() else { return };
///     // ... faults, profilers and handlers on the alternate stack work here as on the threads of this program.
/// }
/// # callback();
/// ```
///
/// # Errors
///
/// [`ThreadError::Memory`]; [`ThreadError::OnAltStack`] in a handler that runs on an alternate stack which is too small. Nothing has been
/// changed then.
///
/// Async-signal safety: may be called from a handler. Cost: two system calls, five with a stack of its own, and one more in a region;
/// inside another attachment none.
#[doc(alias = "needm")]
pub fn attach() -> Result<Attached, ThreadError> {
    let r = record();
    let handler = in_handler();
    if get(&r.attached) != 0 {
        return Ok(Attached { setup: None, counted: false, thread: PhantomData });
    }
    let wanted = if handler { SigSet::ESSENTIAL.intersection(policy::FAULTS) } else { SigSet::ESSENTIAL };
    let setup = Setup::begin(|| mask::unblock(wanted))?;
    if !handler {
        // SIGNAL: a handler that attaches before this line undoes it before it returns. One after it finds the thread attached.
        put(&r.attached, 1);
    }
    Ok(Attached { setup: Some(setup), counted: !handler, thread: PhantomData })
}

/// A foreign thread that is [attached](attach); the drop detaches it. It stays on its thread:
///
/// ```compile_fail
/// let attached = sigsafe_core::thread::attach().unwrap();
/// std::thread::spawn(move || drop(attached));
/// ```
///
/// Async-signal safety: may be dropped in a handler if it was made in the same run of it. Cost: two system calls to drop it, four with
/// a stack of its own, and up to two more in a region; inside another attachment none, and no other method makes any.
#[derive(Debug)]
#[must_use = "the thread is detached as soon as this is dropped"]
pub struct Attached {
    /// `None` inside another attachment.
    setup: Option<Setup>,
    /// Whether the thread record says that the thread is attached because of this one.
    counted: bool,
    /// Of one thread.
    thread: PhantomData<*const ()>,
}

impl Attached {
    /// Detaches the thread: the same as dropping.
    ///
    /// Async-signal safety: as dropping. Cost: as dropping.
    #[doc(alias = "dropm")]
    pub fn detach(self) {
        drop(self);
    }

    /// Whether the thread's own alternate stack is used, since it is large enough. Inside another attachment this speaks of that one's.
    pub fn adopted_alt_stack(&self) -> bool {
        self.setup.as_ref().is_none_or(Setup::adopted)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.counted {
            // SIGNAL: a handler that attaches from here on does so in full, and undoes it before it returns.
            put(&record().attached, 0);
        }
    }
}
