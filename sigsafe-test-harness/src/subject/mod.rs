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
    /// `masked-system-deferred`, but one byte of a live block is flipped: must be reported corrupted. For the harness's own
    /// tests: neither listed nor compared
    #[value(hide = true)]
    TestFlip,
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
    pub const ALL: [Subject; 7] = [
        Subject::System,
        Subject::MaskedSystemDeferred,
        Subject::MaskedSystemFull,
        Subject::StdMutex,
        Subject::SigsafeMutexDeferred,
        Subject::SigsafeMutexFull,
        Subject::SigsafeSpin,
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
            Subject::TestFlip => "masked-system-deferred with one flipped byte, for the harness's own tests",
        }
    }

    /// Whether it is an allocator or a lock.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Subject::System | Subject::MaskedSystemDeferred | Subject::MaskedSystemFull | Subject::TestFlip => Kind::Allocator,
            Subject::StdMutex | Subject::SigsafeMutexDeferred | Subject::SigsafeMutexFull | Subject::SigsafeSpin => Kind::Lock,
        }
    }

    /// Whether sigsafe stands between it and the signals. Such a subject must pass, with deferrals to show for it; the others
    /// must fail.
    #[must_use]
    pub const fn is_protected(self) -> bool {
        !matches!(self, Subject::System | Subject::StdMutex)
    }

    /// The workloads that exercise it.
    #[must_use]
    pub const fn workloads(self) -> &'static [Workload] {
        match self.kind() {
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
        for subject in Subject::ALL.into_iter().chain([Subject::TestFlip]) {
            assert_eq!(Subject::from_str(subject.name(), false), Ok(subject));
            assert_eq!(serde_json::to_value(subject).unwrap(), subject.name());
        }
    }

    #[test]
    fn the_test_subject_is_not_compared() {
        assert!(!Subject::ALL.contains(&Subject::TestFlip));
    }
}
