//! The allocator and the locks that stand behind a subject's name.
//!
//! Start-up context of the child: the locks are made before the storm and live as long as the process.

use std::alloc::{GlobalAlloc, System};

use sigsafe_alloc::{Masked, SigSafeAlloc};
use sigsafe_core::{DefaultBackend, FullSyscall};

use super::Subject;
use super::account::{Account, SharedLock};
use crate::exchange::Tables;

/// The allocator of a case.
pub(crate) type Heap = dyn GlobalAlloc + Sync;

/// How many locks a case has. Main flow and handlers pick among them, and take two in their order at times.
pub(crate) const LOCKS: usize = 4;

static PLAIN: System = System;
static DEFERRED: Masked<System> = Masked::new(System);
static FULL: Masked<System, FullSyscall> = Masked::with_backend(System);
static OWN: SigSafeAlloc = SigSafeAlloc;
#[cfg(feature = "peers")]
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(feature = "peers")]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
#[cfg(feature = "peers")]
static SNMALLOC: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;
#[cfg(feature = "peers")]
static RPMALLOC: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

/// One allocator and one kind of lock.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) heap: &'static Heap,
    pub(crate) locks: [&'static dyn SharedLock; LOCKS],
    /// Where main flows and handlers leave blocks for each other, if the subject is to stand that.
    pub(crate) tables: Option<&'static Tables>,
}

impl Parts {
    /// What the case of `subject` runs on.
    pub(crate) fn of(subject: Subject) -> Parts {
        let heap: &'static Heap = match subject {
            Subject::System => &PLAIN,
            Subject::MaskedSystemFull => &FULL,
            Subject::SigsafeAlloc | Subject::SigsafeAllocUnmanaged => &OWN,
            #[cfg(feature = "peers")]
            Subject::Mimalloc => &MIMALLOC,
            #[cfg(feature = "peers")]
            Subject::Jemalloc => &JEMALLOC,
            #[cfg(feature = "peers")]
            Subject::Snmalloc => &SNMALLOC,
            #[cfg(feature = "peers")]
            Subject::Rpmalloc => &RPMALLOC,
            _ => &DEFERRED,
        };
        let locks = match subject {
            Subject::StdMutex => locks(|| std::sync::Mutex::new(Account::new())),
            Subject::SigsafeMutexFull => locks(|| sigsafe_mutex::Mutex::<_, FullSyscall>::with_backend(Account::new())),
            Subject::SigsafeSpin => locks(|| sigsafe_mutex::SpinMutex::<_, DefaultBackend>::with_backend(Account::new())),
            _ => locks(|| sigsafe_mutex::Mutex::new(Account::new())),
        };
        let tables = subject.is_apart_from_libc().then(|| &*Box::leak(Box::new(Tables::new())));
        Parts { heap, locks, tables }
    }
}

fn locks<L: SharedLock + 'static>(make: impl Fn() -> L) -> [&'static dyn SharedLock; LOCKS] {
    [(); LOCKS].map(|()| &*Box::leak(Box::new(make())) as &'static dyn SharedLock)
}
