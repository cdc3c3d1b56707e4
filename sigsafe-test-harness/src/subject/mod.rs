//! The allocators and locks that are put into the storm.
//!
//! A case has one allocator and one lock, so that every subject can be driven by the same threads, handler and workload; the
//! subject decides one of the two, and the other is sigsafe's. Names and rules are here; what is behind them is in `parts`
//! and `account`.

pub(crate) mod account;
pub(crate) mod parts;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// What is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// `std::alloc::System`, and nothing else
    System,
    /// `Masked<System>`: every call in a region of the deferred counter
    MaskedSystemDeferred,
    /// `Masked<System, FullSyscall>`: every call between two system calls
    MaskedSystemFull,
    /// `std::sync::Mutex`
    StdMutex,
    /// `sigsafe_mutex::Mutex`, with the deferred counter
    SigsafeMutexDeferred,
    /// `sigsafe_mutex::Mutex`, with two system calls around every section
    SigsafeMutexFull,
    /// `sigsafe_mutex::SpinMutex`, with the deferred counter
    SigsafeSpin,
    /// `SigSafeAlloc`, under handlers that sigsafe manages
    SigsafeAlloc,
    /// `SigSafeAlloc`, under a handler that plain `sigaction` has installed, so that it runs inside the allocator's operations
    SigsafeAllocUnmanaged,
    /// mimalloc, under a handler that plain `sigaction` has installed
    #[cfg(feature = "peers")]
    Mimalloc,
    /// jemalloc, likewise
    #[cfg(feature = "peers")]
    Jemalloc,
    /// snmalloc, likewise
    #[cfg(feature = "peers")]
    Snmalloc,
    /// rpmalloc, likewise
    #[cfg(feature = "peers")]
    Rpmalloc,
    /// `masked-system-deferred`, but one byte of a live block is flipped: must be reported corrupted. For the harness's own
    /// tests: neither listed nor compared
    #[value(hide = true)]
    TestFlip,
}

/// What a storm of a subject must have had for its passing to mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Handler runs that were held back.
    Deferrals,
    /// Handler runs inside the allocator.
    Inside,
    /// Handler runs, no matter where.
    Runs,
}

/// What kind of thing a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The subject is the case's allocator; its lock is sigsafe's.
    Allocator,
    /// The subject is the case's lock; its allocator is `Masked<System>`.
    Lock,
}

impl Subject {
    /// Every subject of the comparison, in its order.
    pub const ALL: &'static [Subject] = &[
        Subject::System,
        Subject::MaskedSystemDeferred,
        Subject::MaskedSystemFull,
        Subject::StdMutex,
        Subject::SigsafeMutexDeferred,
        Subject::SigsafeMutexFull,
        Subject::SigsafeSpin,
        Subject::SigsafeAlloc,
        Subject::SigsafeAllocUnmanaged,
        #[cfg(feature = "peers")]
        Subject::Mimalloc,
        #[cfg(feature = "peers")]
        Subject::Jemalloc,
        #[cfg(feature = "peers")]
        Subject::Snmalloc,
        #[cfg(feature = "peers")]
        Subject::Rpmalloc,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Subject::System => "system",
            Subject::MaskedSystemDeferred => "masked-system-deferred",
            Subject::MaskedSystemFull => "masked-system-full",
            Subject::StdMutex => "std-mutex",
            Subject::SigsafeMutexDeferred => "sigsafe-mutex-deferred",
            Subject::SigsafeMutexFull => "sigsafe-mutex-full",
            Subject::SigsafeSpin => "sigsafe-spin",
            Subject::SigsafeAlloc => "sigsafe-alloc",
            Subject::SigsafeAllocUnmanaged => "sigsafe-alloc-unmanaged",
            #[cfg(feature = "peers")]
            Subject::Mimalloc => "mimalloc",
            #[cfg(feature = "peers")]
            Subject::Jemalloc => "jemalloc",
            #[cfg(feature = "peers")]
            Subject::Snmalloc => "snmalloc",
            #[cfg(feature = "peers")]
            Subject::Rpmalloc => "rpmalloc",
            Subject::TestFlip => "test-flip",
        }
    }

    /// One line for the list.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Subject::System => "std::alloc::System, and nothing else; fails",
            Subject::MaskedSystemDeferred => "Masked<System>: signals that arrive inside an allocation are held back until it ends",
            Subject::MaskedSystemFull => "Masked<System, FullSyscall>: signals are blocked around every allocation",
            Subject::StdMutex => "std::sync::Mutex; fails",
            Subject::SigsafeMutexDeferred => "sigsafe_mutex::Mutex: signals that arrive inside a section are held back until it ends",
            Subject::SigsafeMutexFull => "sigsafe_mutex::Mutex<T, FullSyscall>: signals are blocked around every section",
            Subject::SigsafeSpin => "sigsafe_mutex::SpinMutex, a spin lock with the deferred counter",
            Subject::SigsafeAlloc => "SigSafeAlloc: signals that arrive inside an operation are held back until it ends",
            Subject::SigsafeAllocUnmanaged => "SigSafeAlloc under a handler of plain sigaction, which runs inside its operations",
            #[cfg(feature = "peers")]
            Subject::Mimalloc => "mimalloc under a handler of plain sigaction; fails, or has survived this storm",
            #[cfg(feature = "peers")]
            Subject::Jemalloc => "jemalloc, likewise",
            #[cfg(feature = "peers")]
            Subject::Snmalloc => "snmalloc, likewise",
            #[cfg(feature = "peers")]
            Subject::Rpmalloc => "rpmalloc, likewise",
            Subject::TestFlip => "masked-system-deferred with one flipped byte, for the harness's own tests",
        }
    }

    /// Whether it is an allocator or a lock.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Subject::StdMutex | Subject::SigsafeMutexDeferred | Subject::SigsafeMutexFull | Subject::SigsafeSpin => Kind::Lock,
            _ => Kind::Allocator,
        }
    }

    /// Whether it is to pass: sigsafe's own. `system` and `std-mutex` must fail; peers may do either.
    #[must_use]
    pub const fn is_protected(self) -> bool {
        !matches!(self, Subject::System | Subject::StdMutex) && !self.is_peer()
    }

    /// Whether it is another allocator that makes no promise about handlers.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        #[cfg(feature = "peers")]
        return matches!(self, Subject::Mimalloc | Subject::Jemalloc | Subject::Snmalloc | Subject::Rpmalloc);
        #[cfg(not(feature = "peers"))]
        false
    }

    /// Whether it is `SigSafeAlloc`.
    #[must_use]
    pub const fn is_own_allocator(self) -> bool {
        matches!(self, Subject::SigsafeAlloc | Subject::SigsafeAllocUnmanaged)
    }

    /// Whether the handler is installed through sigsafe. Otherwise it is by plain `sigaction`, and nothing holds it back.
    #[must_use]
    pub const fn is_managed(self) -> bool {
        !matches!(self, Subject::SigsafeAllocUnmanaged) && !self.is_peer()
    }

    /// Whether the allocator under test is apart from libc's, so that threads may end, processes fork, and main flow and handlers free
    /// each other's blocks in a storm, with nothing but the subject to blame.
    #[must_use]
    pub const fn is_apart_from_libc(self) -> bool {
        self.is_own_allocator() || self.is_peer()
    }

    /// What a storm must have had, beside handler runs, for its passing to mean something.
    #[must_use]
    pub const fn evidence(self) -> Evidence {
        match self {
            Subject::SigsafeAllocUnmanaged => Evidence::Inside,
            _ if self.is_protected() => Evidence::Deferrals,
            _ => Evidence::Runs,
        }
    }

    /// The workloads that exercise it. Locks need a handler that their sections can hold back.
    #[must_use]
    pub const fn workloads(self) -> &'static [Workload] {
        match self.kind() {
            Kind::Allocator if !self.is_managed() => &[Workload::Alloc],
            Kind::Allocator => &[Workload::Alloc, Workload::Mixed],
            Kind::Lock => &[Workload::Lock, Workload::Mixed],
        }
    }

    /// The workload that exercises it and nothing else.
    #[must_use]
    pub const fn default_workload(self) -> Workload {
        match self.kind() {
            Kind::Allocator => Workload::Alloc,
            Kind::Lock => Workload::Lock,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_the_same() {
        for subject in Subject::ALL.iter().copied().chain([Subject::TestFlip]) {
            assert_eq!(Subject::from_str(subject.name(), false), Ok(subject));
            assert_eq!(serde_json::to_value(subject).unwrap(), subject.name());
        }
    }

    #[test]
    fn the_test_subject_is_not_compared() {
        assert!(!Subject::ALL.contains(&Subject::TestFlip));
    }
}
