//! Creating a thread by std, with the mask and the alternate stack of a thread of ours. Feature `std`.
//!
//! Runs in ordinary thread context: std allocates.

use std::io;
use std::string::String;
use std::thread::{JoinHandle, Scope, ScopedJoinHandle};

use super::altstack::AltStack;
use super::setup::capture;
use super::start::{Life, with_signals_blocked};
use crate::sigset::SigSet;

/// `std::thread::spawn`, with the creator's logical mask, the [essential](SigSet::ESSENTIAL) signals unblocked, and an alternate stack of its
/// own, all of it in place before the first handler runs on the new thread. Works in regions too, with signals held back or not.
///
/// When `f` has returned or panicked, the thread blocks everything and gives back the alternate stack: the destructors of
/// thread-locals run without handlers. Panics are as with std.
///
/// ```
/// use sigsafe_core::thread;
///
/// let answer = thread::spawn(|| 6 * 7)?.join().unwrap();
/// assert_eq!(answer, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of `std::thread::Builder::spawn`, and of `mmap`. The caller's mask is as it was.
///
/// Async-signal safety: not to be called from a handler, since std allocates (unless the program's allocator and `pthread_create` may be
/// used there); [`spawn_raw`](super::spawn_raw) leaves out std. Cost: five system calls more than std's, and five in the new thread.
#[doc(alias = "newosproc")]
pub fn spawn<F, T>(f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().spawn(f)
}

/// How a thread is to be made; see [`spawn`].
///
/// ```
/// use sigsafe_core::{SigSet, mask, thread};
///
/// let worker = thread::Builder::new().name("worker".into()).mask(SigSet::FULL).spawn(mask::current)?;
/// assert!(worker.join().unwrap().len() > 50);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Async-signal safety: as [`spawn`]. Cost: no system call, but for those of `spawn`.
#[derive(Debug, Default)]
#[must_use = "a builder makes no thread until it is told to"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    mask: Option<SigSet>,
    room: Option<usize>,
}

impl Builder {
    /// A thread as [`spawn`] makes it.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The thread's name, as std takes it.
    pub fn name(self, name: String) -> Builder {
        Builder { name: Some(name), ..self }
    }

    /// The size of the thread's own stack, in bytes, as std takes it.
    pub fn stack_size(self, bytes: usize) -> Builder {
        Builder { stack_size: Some(bytes), ..self }
    }

    /// The mask that the thread starts with, in place of its creator's. The essential signals are unblocked all the same.
    pub fn mask(self, mask: SigSet) -> Builder {
        Builder { mask: Some(mask), ..self }
    }

    /// What handlers may use of the alternate stack, in bytes, in place of [`AltStack::DEFAULT_ROOM`].
    pub fn alt_stack_room(self, bytes: usize) -> Builder {
        Builder { room: Some(bytes), ..self }
    }

    /// Creates the thread; see [`spawn`](spawn()).
    ///
    /// # Errors
    ///
    /// As [`spawn`](spawn()).
    ///
    /// # Panics
    ///
    /// As std, if the name contains a zero byte.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (mask, stack) = self.prepare()?;
        with_signals_blocked(|| self.into_std().spawn(move || live(stack, mask, f)))
    }

    /// Creates a thread that may borrow from its creator, as std's scoped ones.
    ///
    /// # Errors
    ///
    /// As [`spawn`](spawn()).
    ///
    /// # Panics
    ///
    /// As std, if the name contains a zero byte.
    pub fn spawn_scoped<'scope, 'env, F, T>(self, scope: &'scope Scope<'scope, 'env>, f: F) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let (mask, stack) = self.prepare()?;
        with_signals_blocked(|| self.into_std().spawn_scoped(scope, move || live(stack, mask, f)))
    }

    /// What can fail before the creation, and must not fail in the new thread. If the creation fails, std drops the closure, and
    /// the stack with it.
    fn prepare(&self) -> io::Result<(SigSet, AltStack)> {
        let stack = AltStack::with_room(self.room.unwrap_or(AltStack::DEFAULT_ROOM))?;
        Ok((self.mask.unwrap_or_else(capture), stack))
    }

    fn into_std(self) -> std::thread::Builder {
        let builder = self.name.into_iter().fold(std::thread::Builder::new(), std::thread::Builder::name);
        self.stack_size.into_iter().fold(builder, std::thread::Builder::stack_size)
    }
}

/// The new thread. Whatever `f` owns is dropped before its life ends, on unwinding too.
fn live<T>(stack: AltStack, mask: SigSet, f: impl FnOnce() -> T) -> T {
    let _life = Life::begin(stack, mask);
    f()
}
