//! [`Masked`]: a wrapper that runs every call of another allocator inside a critical region.
//!
//! It exists because the allocators that programs have are not async-signal-safe, and replacing them is not always wanted.
//! It holds no state of its own: whatever is wrong or right with the wrapped allocator between *threads* stays so. Each
//! method runs wherever the program allocates: in threads, in regions, and in managed handlers.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::marker::PhantomData;

use sigsafe_core::{Backend, DefaultBackend, critical_with};

/// An allocator whose every call runs inside a critical region, so that handlers may allocate.
///
/// All four methods of [`GlobalAlloc`] are handed to the methods of the same name of `A`, each as one region of the backend
/// `B`. A managed handler (one installed with [`sigsafe_core::handler::Handler`]) that becomes due while this thread is in
/// the allocator runs as the region ends: after `A` has left its data in order, before the call returns. It may allocate and
/// free in its turn, blocks of the main flow included.
///
/// ```
/// use sigsafe_alloc::Masked;
/// use std::alloc::System;
///
/// #[global_allocator]
/// static ALLOCATOR: Masked<System> = Masked::new(System);
///
/// fn main() {
///     let words: Vec<String> = "handlers may do this too".split(' ').map(String::from).collect();
///     assert_eq!(words.len(), 5);
/// }
/// ```
///
/// # Async-signal safety
///
/// Every method may be called from a managed handler, whatever `A` is. An `immediate` handler, one for a fault, or one that
/// the backend cannot hold back must not call them unless `A` by itself allows it.
///
/// # Cost
///
/// With [`DeferredCounter`](sigsafe_core::DeferredCounter), none in system calls while no signal arrives; a call in which one arrived ends with the system
/// call that lets it in. With [`FullSyscall`](sigsafe_core::FullSyscall), two system calls around every call of `A`.
///
/// # Errors and `errno`
///
/// A null pointer from `A` is passed on as it is. Regions and managed handlers keep `errno`, so that a caller finds what `A`
/// left there. `A` must not unwind, as [`GlobalAlloc`] asks of every allocator.
///
/// # What it cannot cover
///
/// A region protects what runs inside it, from the handlers that the backend can hold back. That leaves:
///
/// - **What the wrapped allocator's own library allocates and frees outside these methods.** Behind
///   [`std::alloc::System`](https://doc.rust-lang.org/std/alloc/struct.System.html) is libc's `malloc`, and libc calls it for
///   itself, with the same locks and without a region: when a thread starts and when it exits (its thread cache goes back to
///   the heap), in stdio (`printf`, `fopen`), in `getaddrinfo`, `dlopen` and others, and so does any C code of the program. A
///   handler that interrupts one of those and allocates can hang: a program with glibc behind `Masked` whose threads come
///   and go under a stream of signals does, sooner or later. It holds for a program that keeps its threads and whose C code
///   stays away from the heap while signals arrive. An allocator with a heap apart from libc's has no such neighbour, but
///   its own thread-exit hook runs outside these methods just the same.
/// - **Handlers that nobody manages**: installed by `sigaction` or `signal` directly, in Rust, C or a library. The deferred
///   backend never sees their signals, so that they run inside the allocator. `FullSyscall` holds them back with the rest.
/// - **Handlers registered as `immediate`**: they run inside regions because their author asked for it.
/// - **Faults inside the allocator** (SIGSEGV in `malloc` on a corrupt heap): nothing can be deferred there, so that a fault
///   handler runs at once and must not allocate.
/// - **Signals with the default action**: they act at once, inside a region too. A termination loses nothing that matters
///   in private memory; a heap in memory shared with other processes stays as it was at that instant. A stop may
///   stop the process in mid-call, with `A`'s locks held until it is continued.
/// - **`fork`, in a handler or elsewhere**: a deferred handler that forks finds this thread outside the allocator, but other
///   threads may be inside, and the child keeps their locks held for ever unless `A` repairs that (glibc does in its own
///   `fork`; a raw `clone` call goes past it).
/// - **Handlers that never return** (`longjmp`, unwinding through the frame) out of a region: they leave it entered.
/// - **Other threads**: a handler that allocates while it waits for a second thread, which is itself stopped inside `A`,
///   waits for ever if `A` takes locks. A collector must let the world reach the end of its regions before it allocates.
pub struct Masked<A, B: Backend = DefaultBackend> {
    inner: A,
    /// `fn() -> B`: the backend is a way of acting, not a value, so that it decides neither `Send` nor `Sync`.
    backend: PhantomData<fn() -> B>,
}

impl<A> Masked<A> {
    /// Wraps `inner` with the [default backend](DefaultBackend).
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self::with_backend(inner)
    }
}

impl<A, B: Backend> Masked<A, B> {
    /// Wraps `inner` with the backend that the type names.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    ///
    /// ```
    /// use sigsafe_alloc::Masked;
    /// use sigsafe_core::FullSyscall;
    /// use std::alloc::System;
    ///
    /// #[global_allocator]
    /// static ALLOCATOR: Masked<System, FullSyscall> = Masked::with_backend(System);
    ///
    /// fn main() {
    ///     assert_eq!(*Box::new(7), 7);
    /// }
    /// ```
    #[must_use]
    pub const fn with_backend(inner: A) -> Self {
        Self { inner, backend: PhantomData }
    }

    /// The wrapped allocator, as it is: what is called through the reference runs in no region.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn get_ref(&self) -> &A {
        &self.inner
    }

    /// The wrapped allocator, exclusively: what is called through the reference runs in no region.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub const fn get_mut(&mut self) -> &mut A {
        &mut self.inner
    }

    /// Takes the wrapping off again. Blocks allocated through it stay valid, because they are the wrapped allocator's.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[must_use]
    pub fn into_inner(self) -> A {
        self.inner
    }
}

// SAFETY: every method hands its arguments unchanged to the method of the same name of `A`, which is a `GlobalAlloc`, and
// returns what that returned; a region neither touches the heap nor unwinds.
unsafe impl<A: GlobalAlloc, B: Backend> GlobalAlloc for Masked<A, B> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` (its size is not zero) is the one that `A::alloc` asks for.
        critical_with::<B, _>(|_| unsafe { self.inner.alloc(layout) })
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the block came from `self`, that is, from `A`, with this `layout`.
        critical_with::<B, _>(|_| unsafe { self.inner.dealloc(ptr, layout) });
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` (its size is not zero) is the one that `A::alloc_zeroed` asks for.
        critical_with::<B, _>(|_| unsafe { self.inner.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block came from `self`, that is, from `A`, with this `layout`; the caller vouches for `new_size`.
        critical_with::<B, _>(|_| unsafe { self.inner.realloc(ptr, layout, new_size) })
    }
}

impl<A: Default, B: Backend> Default for Masked<A, B> {
    fn default() -> Self {
        Self::with_backend(A::default())
    }
}

impl<A: Clone, B: Backend> Clone for Masked<A, B> {
    fn clone(&self) -> Self {
        Self::with_backend(self.inner.clone())
    }
}

impl<A: Copy, B: Backend> Copy for Masked<A, B> {}

impl<A: fmt::Debug, B: Backend> fmt::Debug for Masked<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masked").field("inner", &self.inner).field("backend", &B::NAME).finish()
    }
}
