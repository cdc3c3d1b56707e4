//! [`SpinMutex`]: a spinning lock from the `spin` crate, held inside a critical region.
//!
//! It is for short sections where a lock must not park, and it shows what a region does for a lock that knows nothing of
//! signals. Only the lock's `try_lock` is used: the waiting is done here, outside the region. Every function may run in a
//! thread, in a region and in a managed handler.

use core::fmt;
use core::hint;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use sigsafe_core::{Backend, DefaultBackend, MaskGuard};

use crate::TryLockError;
use crate::sys;

/// How often a waiter looks at the lock before it offers the processor to others: the owner may be waiting for one.
const SPINS: u32 = 200;

/// Data that threads and managed handlers share, behind a lock that spins.
///
/// Like [`Mutex`](crate::Mutex), it is held inside a critical region of the backend `B` and waited for outside it. A waiter
/// spins, and every now and then yields the processor.
///
/// ```
/// use sigsafe_mutex::SpinMutex;
///
/// static COUNT: SpinMutex<u64> = SpinMutex::new(0);
/// *COUNT.lock() += 1;
/// assert_eq!(*COUNT.lock(), 1);
/// ```
///
/// # What it does not do
///
/// The lock knows no owner. Whatever no region can hold back and that takes a lock which its own thread holds spins **for
/// ever**: an unmanaged handler, an `immediate` one, a fault inside the section, a second `lock` in the main flow.
/// [`try_lock`](Self::try_lock) is safe there, and says [`WouldBlock`](TryLockError::WouldBlock) because it cannot know
/// better. [`Mutex`](crate::Mutex) reports these cases.
///
/// # Async-signal safety
///
/// Everything but the data's own code may be called from a managed handler, and keeps `errno`.
pub struct SpinMutex<T: ?Sized, B: Backend = DefaultBackend> {
    /// `fn() -> B`: the backend is a way of acting, not a value, so that it decides neither `Send` nor `Sync`.
    backend: PhantomData<fn() -> B>,
    inner: spin::mutex::SpinMutex<T>,
}

impl<T> SpinMutex<T> {
    /// A free lock around `data`, with the [default backend](DefaultBackend).
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn new(data: T) -> Self {
        Self::with_backend(data)
    }
}

impl<T, B: Backend> SpinMutex<T, B> {
    /// A free lock around `data`, with the backend that the type names.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn with_backend(data: T) -> Self {
        Self { backend: PhantomData, inner: spin::mutex::SpinMutex::new(data) }
    }

    /// Takes the data out, without locking, because nobody else can have the mutex.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized, B: Backend> SpinMutex<T, B> {
    /// Takes the lock, spinning while another thread holds it, and stays in a region until the guard is dropped.
    ///
    /// If this thread itself holds the lock, the call never returns.
    ///
    /// Async-signal safety: may be called from a managed handler. Cost: uncontended, no system call but the backend's own; a long
    /// wait makes one of `sched_yield` now and then.
    #[doc(alias = "pthread_spin_lock")]
    #[inline]
    pub fn lock(&self) -> SpinMutexGuard<'_, T, B> {
        loop {
            if let Ok(guard) = self.try_lock() {
                return guard;
            }
            self.wait();
        }
    }

    /// Takes the lock if it is free, and never waits.
    ///
    /// Async-signal safety: may be called from any handler. Cost: no system call but the backend's own.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](TryLockError::WouldBlock) if the lock is held, by whomever.
    #[doc(alias = "pthread_spin_trylock")]
    #[inline]
    pub fn try_lock(&self) -> Result<SpinMutexGuard<'_, T, B>, TryLockError> {
        let region = MaskGuard::<B>::new();
        match self.inner.try_lock() {
            // On the other way out `region` is dropped: a refused try is out of the region when it returns.
            Some(inner) => Ok(SpinMutexGuard { inner, _region: region }),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Looks on until the lock seems free. Called outside the region that `try_lock` has left, so that handlers run here.
    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        while self.inner.is_locked() {
            looks += 1;
            if looks % SPINS == 0 {
                sys::yield_processor();
            } else {
                hint::spin_loop();
            }
        }
    }

    /// The data, by way of an exclusive reference to the mutex: no locking is needed.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// Whether the lock is held at this instant. For assertions and diagnostics, because the answer may be out of date when it
    /// arrives.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }
}

impl<T: Default, B: Backend> Default for SpinMutex<T, B> {
    fn default() -> Self {
        Self::with_backend(T::default())
    }
}

impl<T, B: Backend> From<T> for SpinMutex<T, B> {
    fn from(data: T) -> Self {
        Self::with_backend(data)
    }
}

/// Shows the data if the lock is free, `<locked>` otherwise, and never waits.
impl<T: ?Sized + fmt::Debug, B: Backend> fmt::Debug for SpinMutex<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SpinMutex");
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
/// let mutex = sigsafe_mutex::SpinMutex::new(0);
/// let guard = mutex.lock();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct SpinMutexGuard<'a, T: ?Sized, B: Backend = DefaultBackend> {
    // Fields are dropped in the order in which they stand: the lock is released first, and then the region is left.
    inner: spin::mutex::SpinMutexGuard<'a, T>,
    _region: MaskGuard<B>,
}

// SAFETY: a shared guard gives out `&T` and nothing else; the region's guard gives out nothing at all by reference.
unsafe impl<T: ?Sized + Sync, B: Backend> Sync for SpinMutexGuard<'_, T, B> {}

impl<T: ?Sized, B: Backend> Deref for SpinMutexGuard<'_, T, B> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized, B: Backend> DerefMut for SpinMutexGuard<'_, T, B> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: ?Sized + fmt::Debug, B: Backend> fmt::Debug for SpinMutexGuard<'_, T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, B: Backend> fmt::Display for SpinMutexGuard<'_, T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
