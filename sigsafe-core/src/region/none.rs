//! The name of the deferring backend where there is none: so that whoever uses it is told what to use instead.

/// No backend here: signals are deferred on Linux (x86_64, aarch64) and DragonFly. Use [`FullSyscall`](crate::FullSyscall), or
/// [`DefaultBackend`](crate::DefaultBackend), which is the cheapest that a system has.
#[derive(Copy, Clone, Debug)]
pub struct DeferredCounter;
