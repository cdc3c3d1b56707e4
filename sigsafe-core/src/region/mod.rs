//! Critical regions: while a thread is in one, no managed handler runs on it.
//!
//! Two backends behind one trait. [`DeferredCounter`] counts in the thread record and costs no system call unless a signal comes; it
//! holds back *managed* handlers, and exists on Linux (x86_64, aarch64) and, by other means, on DragonFly. [`FullSyscall`] blocks in the
//! kernel, two system calls around the outermost region, and holds back every handler. Regions of both nest in each other in any order;
//! the last one to end lets in what waited.
//!
//! Two forms: the closure ([`critical`]), which cannot be left open and is the cheaper one, and the guard ([`MaskGuard`]), which can
//! be stored and dropped in any order. No guard holds a mask: with a mask per guard, `a = lock(); b = lock(); drop(a)` would
//! leave `b` open, and then the thread deaf.
//!
//! What regions do not do is in the [crate's documentation](crate#what-it-does-not-do).

#[cfg(deferral)]
mod deferred;
#[cfg(target_os = "dragonfly")]
#[path = "dragonfly.rs"]
mod deferred;
#[cfg(not(any(deferral, target_os = "dragonfly")))]
#[path = "none.rs"]
mod deferred;
mod full;

pub use deferred::DeferredCounter;
pub use full::FullSyscall;

/// What regions use unless another backend is named: [`DeferredCounter`] where there is one (Linux on x86_64 and aarch64,
/// DragonFly), and [`FullSyscall`] elsewhere, at its price of two system calls a region.
#[cfg(any(deferral, target_os = "dragonfly"))]
pub type DefaultBackend = DeferredCounter;

/// What regions use unless another backend is named: [`DeferredCounter`] where there is one (Linux on x86_64 and aarch64,
/// DragonFly), and [`FullSyscall`] elsewhere, so here too, at its price of two system calls a region.
#[cfg(not(any(deferral, target_os = "dragonfly")))]
pub type DefaultBackend = FullSyscall;

use core::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
    #[cfg(any(deferral, target_os = "dragonfly"))]
    impl Sealed for super::DeferredCounter {}
    impl Sealed for super::FullSyscall {}
}

/// How a region holds signals back: [`DeferredCounter`] or [`FullSyscall`].
///
/// Sealed. To name `DeferredCounter` as the backend on a system that has none is an error while compiling; [`DefaultBackend`] is a
/// backend everywhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no backend of critical regions on this system",
    label = "use `FullSyscall`, or `DefaultBackend` for the cheapest that there is",
    note = "signals are deferred on Linux (x86_64, aarch64) and DragonFly; every system has `FullSyscall`"
)]
pub trait Backend: sealed::Sealed + 'static {
    /// The backend's name, for reports.
    const NAME: &'static str;

    /// Enters a region that [`exit`](Backend::exit) leaves; regions so entered may be left in any order.
    #[doc(hidden)]
    fn enter();

    /// Leaves a region.
    ///
    /// # Safety
    ///
    /// Pairs with one `enter` of the same backend on this thread that has not been paired yet.
    #[doc(hidden)]
    unsafe fn exit();

    /// Runs `f` in a region.
    #[doc(hidden)]
    fn scoped<R>(f: impl FnOnce() -> R) -> R;
}

/// The closure form out of the guard's: enters, runs `f`, and leaves on unwinding too.
#[inline]
fn guarded<B: Backend, R>(f: impl FnOnce() -> R) -> R {
    struct Leave<B: Backend>(PhantomData<B>);

    impl<B: Backend> Drop for Leave<B> {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: pairs with the entry below; a closure cannot forget it.
            unsafe { B::exit() }
        }
    }

    B::enter();
    let leave = Leave::<B>(PhantomData);
    let result = f();
    drop(leave);
    result
}

/// Proof of being in a region. Zero-sized; it cannot leave the closure that it is given to, nor the thread.
///
/// ```compile_fail
/// // The token does not outlive its region.
/// let token = sigsafe_core::critical(|region| region);
/// ```
///
/// ```compile_fail
/// // Nor does it cross to another thread, which is in no region.
/// sigsafe_core::critical(|region| std::thread::scope(|scope| { scope.spawn(move || region); }));
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Region<'r> {
    // Invariant in the lifetime, so that it cannot be stretched; the pointer makes it neither Send nor Sync.
    lifetime: PhantomData<fn(&'r ()) -> &'r ()>,
    thread: PhantomData<*const ()>,
}

impl Region<'_> {
    fn new() -> Self {
        Region { lifetime: PhantomData, thread: PhantomData }
    }
}

/// Runs `f` in a critical region of the [default backend](DefaultBackend); a panic in it leaves the region too.
///
/// ```
/// let sum = sigsafe_core::critical(|_region| 1 + 1);
/// assert_eq!(sum, 2);
/// ```
///
/// Async-signal safety: may be called from a handler. Cost: no system call and, in a loop, at most eight instructions, unless a
/// signal came: then its capture (one or two deliveries) and one `rt_sigprocmask`. Where the default is [`FullSyscall`]: its two system
/// calls.
#[doc(alias = "sigblockall")]
#[inline]
pub fn critical<R>(f: impl for<'r> FnOnce(Region<'r>) -> R) -> R {
    critical_with::<DefaultBackend, R>(f)
}

/// [`critical`] with a backend of your choice.
///
/// Async-signal safety: may be called from a handler. Cost: the backend's.
#[inline]
pub fn critical_with<B: Backend, R>(f: impl for<'r> FnOnce(Region<'r>) -> R) -> R {
    B::scoped(|| f(Region::new()))
}

/// A critical region as a value: it lasts from [`new`](MaskGuard::new) to the drop.
///
/// Guards may be dropped in any order, mixed with closures and with guards of the other backend, and returned from a closure. A
/// forgotten guard is a region that never ends: safe, and its thread stays deaf to managed signals.
///
/// ```
/// use sigsafe_core::{FullSyscall, MaskGuard, in_region};
/// let first = MaskGuard::<FullSyscall>::new();
/// let second: MaskGuard = sigsafe_core::critical(|_| MaskGuard::new());
/// drop(first);
/// assert!(in_region());
/// drop(second);
/// assert!(!in_region());
/// ```
///
/// It stays on its thread:
///
/// ```compile_fail
/// let guard: sigsafe_core::MaskGuard = sigsafe_core::MaskGuard::new();
/// std::thread::spawn(move || drop(guard));
/// ```
///
/// Async-signal safety: may be made and dropped in a handler, both in the same call of it. Cost: the backend's.
#[must_use = "the region ends as soon as the guard is dropped"]
#[derive(Debug)]
pub struct MaskGuard<B: Backend = DefaultBackend> {
    backend: PhantomData<B>,
    thread: PhantomData<*const ()>,
    #[cfg(sigsafe_mutant = "mask-per-guard")]
    saved: crate::SigSet,
}

impl<B: Backend> MaskGuard<B> {
    /// Enters a region.
    #[inline]
    #[allow(clippy::new_without_default, reason = "a default value with an effect on the thread would surprise")]
    pub fn new() -> MaskGuard<B> {
        B::enter();
        MaskGuard {
            backend: PhantomData,
            thread: PhantomData,
            #[cfg(sigsafe_mutant = "mask-per-guard")]
            saved: crate::sys::sigprocmask(crate::sys::How::Block, crate::defer::policy::deferrable()),
        }
    }
}

impl<B: Backend> Drop for MaskGuard<B> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `new` entered once, on this thread since the guard is not Send, and a guard is dropped at most once.
        unsafe { B::exit() }
        #[cfg(sigsafe_mutant = "mask-per-guard")]
        crate::sys::sigprocmask(crate::sys::How::Set, self.saved);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::record::{record, set_depth};

    /// Safe code may forget guards in a loop, four billion within seconds.
    #[test]
    fn a_thread_that_forgets_guards_for_ever_stays_in_its_regions() {
        // A thread of its own, deaf from here on.
        std::thread::spawn(|| {
            let r = record();
            for counter in [&r.held, &r.full] {
                set_depth(counter, u32::MAX.into());
            }
            core::mem::forget(<MaskGuard>::new());
            core::mem::forget(MaskGuard::<FullSyscall>::new());
            assert!(r.in_region());
            assert_eq!(crate::region_depth(), u32::MAX);
        })
        .join()
        .unwrap();
    }
}
