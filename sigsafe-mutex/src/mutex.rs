//! [`Mutex`] and its guard: data behind a [`RawMutex`].
//!
//! The types are this crate's own rather than `lock_api`'s, because `try_lock` has two ways to fail and a `bool` has room for
//! one. Every function may run in a thread, in a region and in a handler.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use sigsafe_core::{Backend, DefaultBackend};

use crate::{RawMutex, TryLockError};

/// Data that threads and managed handlers share.
///
/// Taking the lock enters a critical region of the backend `B`; dropping the guard releases it and leaves the region. In
/// between no managed handler runs on this thread: it runs as the guard is dropped, and finds the lock free or another
/// thread's.
///
/// ```
/// use sigsafe_core::Signal;
/// use sigsafe_core::handler::{Delivery, Handler};
/// use sigsafe_mutex::Mutex;
///
/// static TICKS: Mutex<u32> = Mutex::new(0);
///
/// fn on_tick(_: &Delivery<'_>) {
///     *TICKS.lock() += 1;
/// }
///
/// // SAFETY: the handler touches a sigsafe lock and what is inside it, and nothing else.
/// let registration = unsafe { Handler::new(on_tick).install(Signal::USR1) }?;
///
/// let ticks = TICKS.lock();
/// unsafe { libc::raise(libc::SIGUSR1) };
/// assert_eq!(*ticks, 0); // held back: we have the lock
/// drop(ticks); // the handler runs here
/// assert_eq!(*TICKS.lock(), 1);
/// # registration.remove().unwrap();
/// # Ok::<(), sigsafe_core::handler::InstallError>(())
/// ```
///
/// # Async-signal safety
///
/// Everything but the data's own code may be called from any handler, and keeps `errno`. In a handler that no region can hold
/// back (unmanaged, `immediate`, for a fault) use [`try_lock`](Self::try_lock): [`lock`](Self::lock) aborts if the handler
/// interrupted the section.
///
/// # Waiting
///
/// A contended `lock` leaves its region and parks with signals open; see [the crate's essay](crate#waiting). In a region of
/// the caller's, another lock's included, it waits inside that one.
pub struct Mutex<T: ?Sized, B: Backend = DefaultBackend> {
    raw: RawMutex<B>,
    data: UnsafeCell<T>,
}

// SAFETY: the mutex owns its data, and sending it sends the data.
unsafe impl<T: ?Sized + Send, B: Backend> Send for Mutex<T, B> {}
// SAFETY: a shared mutex hands its data to one thread at a time, which asks for `T: Send` and no more.
unsafe impl<T: ?Sized + Send, B: Backend> Sync for Mutex<T, B> {}

impl<T> Mutex<T> {
    /// A free lock around `data`, with the [default backend](DefaultBackend).
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn new(data: T) -> Self {
        Self::with_backend(data)
    }
}

impl<T, B: Backend> Mutex<T, B> {
    /// A free lock around `data`, with the backend that the type names.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    ///
    /// ```
    /// use sigsafe_core::FullSyscall;
    /// use sigsafe_mutex::Mutex;
    ///
    /// static NAME: Mutex<&str, FullSyscall> = Mutex::with_backend("nobody");
    /// assert_eq!(*NAME.lock(), "nobody");
    /// ```
    #[must_use]
    pub const fn with_backend(data: T) -> Self {
        Self { raw: RawMutex::with_backend(), data: UnsafeCell::new(data) }
    }

    /// Takes the data out, without locking, because nobody else can have the mutex.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, B: Backend> Mutex<T, B> {
    /// Takes the lock, waiting while another thread holds it, and stays in a region until the guard is dropped.
    ///
    /// Async-signal safety: may be called from a handler; in one that no region can hold back, see the type's documentation.
    /// Cost: uncontended, no system call but the backend's own; a wait is one or more of `futex`.
    ///
    /// # Aborts
    ///
    /// The process dies of SIGABRT, with a message on standard error, if this thread itself holds the lock.
    #[doc(alias = "pthread_mutex_lock")]
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T, B> {
        self.raw.lock();
        MutexGuard { mutex: self, not_send: PhantomData }
    }

    /// Takes the lock if it is free, and never waits.
    ///
    /// Async-signal safety: may be called from any handler. Cost: no system call but the backend's own.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](TryLockError::WouldBlock) if another thread holds the lock,
    /// [`WouldDeadlock`](TryLockError::WouldDeadlock) if this one does.
    ///
    /// ```
    /// use sigsafe_mutex::{Mutex, TryLockError};
    ///
    /// let mutex = Mutex::new(1);
    /// let guard = mutex.lock();
    /// assert_eq!(mutex.try_lock().unwrap_err(), TryLockError::WouldDeadlock);
    /// drop(guard);
    /// assert_eq!(*mutex.try_lock()?, 1);
    /// # Ok::<(), TryLockError>(())
    /// ```
    #[doc(alias = "pthread_mutex_trylock")]
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T, B>, TryLockError> {
        self.raw.try_lock()?;
        Ok(MutexGuard { mutex: self, not_send: PhantomData })
    }

    /// The data, by way of an exclusive reference to the mutex: no locking is needed.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Whether some thread holds the lock at this instant. For assertions and diagnostics, because the answer may be out of date
    /// when it arrives.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// Whether the calling thread holds the lock. Never out of date: only this thread can change it.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call, but one for a thread's first use of any lock.
    pub fn is_owned(&self) -> bool {
        self.raw.is_owned()
    }
}

impl<T: Default, B: Backend> Default for Mutex<T, B> {
    fn default() -> Self {
        Self::with_backend(T::default())
    }
}

impl<T, B: Backend> From<T> for Mutex<T, B> {
    fn from(data: T) -> Self {
        Self::with_backend(data)
    }
}

/// Shows the data if the lock is free, `<locked>` otherwise, and never waits.
impl<T: ?Sized + fmt::Debug, B: Backend> fmt::Debug for Mutex<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(_) => shown.field("data", &format_args!("<locked>")),
        };
        shown.field("backend", &B::NAME).finish()
    }
}

/// The lock, held: access to the data, inside a critical region. Dropping it releases the lock and leaves the region.
///
/// Handlers that were held back run before the drop returns, unless another region is still entered. Guards may be dropped in
/// any order. A guard that is forgotten leaves the lock held and its thread in the region for good.
///
/// It stays on the thread that took the lock, because the region is that thread's:
///
/// ```compile_fail,E0277
/// let mutex = sigsafe_mutex::Mutex::new(0);
/// let guard = mutex.lock();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// ```
///
/// References to the data may be shared:
///
/// ```
/// let mutex = sigsafe_mutex::Mutex::new(1);
/// let guard = mutex.lock();
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_eq!(*guard, 1));
/// });
/// ```
///
/// but not if the data itself is bound to its thread:
///
/// ```compile_fail,E0277
/// let mutex = sigsafe_mutex::Mutex::new(std::cell::Cell::new(1));
/// let guard = mutex.lock();
/// std::thread::scope(|scope| {
///     scope.spawn(|| guard.set(2));
/// });
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized, B: Backend = DefaultBackend> {
    mutex: &'a Mutex<T, B>,
    /// A raw pointer makes the guard neither `Send` nor `Sync`; the latter is given back below.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out `&T` and nothing else; the release needs the guard itself, which stays on its thread.
unsafe impl<T: ?Sized + Sync, B: Backend> Sync for MutexGuard<'_, T, B> {}

impl<T: ?Sized, B: Backend> Deref for MutexGuard<'_, T, B> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this thread holds the lock and the data is its own to read.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized, B: Backend> DerefMut for MutexGuard<'_, T, B> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized, B: Backend> Drop for MutexGuard<'_, T, B> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard was made by taking the lock, on this thread (it is not `Send`), and is dropped once.
        unsafe { self.mutex.raw.unlock() };
    }
}

impl<T: ?Sized + fmt::Debug, B: Backend> fmt::Debug for MutexGuard<'_, T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, B: Backend> fmt::Display for MutexGuard<'_, T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
