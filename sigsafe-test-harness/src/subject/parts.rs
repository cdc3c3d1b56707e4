//! The allocator and the locks that stand behind a subject's name.
//!
//! Start-up context of the child: the locks are made before the storm and live as long as the process.

use std::alloc::{GlobalAlloc, System};

use sigsafe_alloc::Masked;
use sigsafe_core::{DefaultBackend, FullSyscall};

use super::Subject;
use super::account::{Account, SharedLock};

/// The allocator of a case.
pub(crate) type Heap = dyn GlobalAlloc + Sync;

/// How many locks a case has. Main flow and handlers pick among them, and take two in their order at times.
pub(crate) const LOCKS: usize = 4;

static PLAIN: System = System;
static DEFERRED: Masked<System> = Masked::new(System);
static FULL: Masked<System, FullSyscall> = Masked::with_backend(System);

/// One allocator and one kind of lock.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) heap: &'static Heap,
    pub(crate) locks: [&'static dyn SharedLock; LOCKS],
}

impl Parts {
    /// What the case of `subject` runs on.
    pub(crate) fn of(subject: Subject) -> Parts {
        let heap: &'static Heap = match subject {
            Subject::System => &PLAIN,
            Subject::MaskedSystemFull => &FULL,
            _ => &DEFERRED,
        };
        let locks = match subject {
            Subject::StdMutex => locks(|| std::sync::Mutex::new(Account::new())),
            Subject::SigsafeMutexFull => locks(|| sigsafe_mutex::Mutex::<_, FullSyscall>::with_backend(Account::new())),
            Subject::SigsafeSpin => locks(|| sigsafe_mutex::SpinMutex::<_, DefaultBackend>::with_backend(Account::new())),
            _ => locks(|| sigsafe_mutex::Mutex::new(Account::new())),
        };
        Parts { heap, locks }
    }
}

fn locks<L: SharedLock + 'static>(make: impl Fn() -> L) -> [&'static dyn SharedLock; LOCKS] {
    [(); LOCKS].map(|()| &*Box::leak(Box::new(make())) as &'static dyn SharedLock)
}
