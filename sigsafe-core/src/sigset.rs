//! Sets of signals: the kernel's set as a value with const algebra.
//!
//! Not libc's `sigset_t`, which has 128 bytes on Linux: a signal frame there holds the kernel's eight, and copying 128 into it smashes
//! the stack. Data only, usable in any context.

use core::fmt;
use core::iter::FusedIterator;
use core::ops::{BitAnd, BitOr, Not, Sub};
use core::str::FromStr;

use crate::bits::Bits;
use crate::signal::{Flags, InvalidSignal, LAST, Signal};

/// A set of signals.
///
/// ```
/// use sigsafe_core::{SigSet, Signal};
/// const TIMERS: SigSet = SigSet::EMPTY.with(Signal::ALRM).with(Signal::PROF);
/// assert!(TIMERS.contains(Signal::PROF));
/// assert_eq!(TIMERS.to_string(), "SIGALRM,SIGPROF");
/// assert_eq!("prof,alrm".parse(), Ok(TIMERS));
/// ```
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
#[doc(alias = "sigset_t")]
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct SigSet(Bits);

const fn bit(signal: Signal) -> Bits {
    1 << (signal.number() - 1)
}

impl SigSet {
    /// No signal.
    #[doc(alias = "sigemptyset")]
    pub const EMPTY: SigSet = SigSet(0);
    /// All signals of the platform, 64 on Linux.
    #[doc(alias = "sigfillset")]
    pub const FULL: SigSet = SigSet(Bits::MAX >> (Bits::BITS - LAST as u32));

    /// What a runtime keeps unblocked on every thread of its own: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF, SIGCHLD, SIGSYS
    /// and, where it exists, SIGSTKFLT.
    pub const ESSENTIAL: SigSet = SigSet::with_flag(Flags::UNBLOCK);
    /// What the running instruction raises. Blocked at that moment, it kills the process.
    pub const SYNCHRONOUS: SigSet = SigSet::with_flag(Flags::SYNCHRONOUS);
    /// The thread library's own, 32 and 33 with glibc: to be neither caught nor blocked.
    pub const RESERVED: SigSet = SigSet::with_flag(Flags::RESERVED);

    /// The signals of this platform's table that have the flag.
    const fn with_flag(flag: Flags) -> SigSet {
        let mut set = SigSet::EMPTY;
        let mut number = 1;
        while let Ok(signal) = Signal::new(number) {
            if signal.flags().contains(flag) {
                set = set.with(signal);
            }
            number += 1;
        }
        set
    }

    /// The set with the kernel's bits: signal N is bit N - 1. Bits of no signal are left out. `u64`, and `u128` on the systems that
    /// have more than 64 signals: FreeBSD, DragonFly and illumos.
    pub const fn from_bits(bits: Bits) -> SigSet {
        SigSet(bits & SigSet::FULL.0)
    }

    /// The kernel's bits: signal N is bit N - 1. Of the type that [`from_bits`](SigSet::from_bits) takes.
    pub const fn bits(self) -> Bits {
        self.0
    }

    /// The set and `signal`.
    #[doc(alias = "sigaddset")]
    #[must_use]
    pub const fn with(self, signal: Signal) -> SigSet {
        SigSet(self.0 | bit(signal))
    }

    /// The set without `signal`.
    #[doc(alias = "sigdelset")]
    #[must_use]
    pub const fn without(self, signal: Signal) -> SigSet {
        SigSet(self.0 & !bit(signal))
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn difference(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// What is not in this set.
    #[must_use]
    pub const fn complement(self) -> SigSet {
        SigSet(!self.0 & SigSet::FULL.0)
    }

    /// Whether `signal` is in the set.
    #[doc(alias = "sigismember")]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    /// Whether every signal of this set is in `other`.
    pub const fn is_subset(self, other: SigSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is no signal in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many signals are in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The signals, lowest number first.
    pub const fn iter(self) -> Iter {
        Iter(self.0)
    }
}

/// The signals of a [`SigSet`], lowest number first.
#[derive(Clone, Debug)]
pub struct Iter(Bits);

impl Iterator for Iter {
    type Item = Signal;

    fn next(&mut self) -> Option<Signal> {
        // For the empty set the count of trailing zeros is the width, and one more is no signal.
        let signal = Signal::new(self.0.trailing_zeros() as i32 + 1).ok()?;
        self.0 &= self.0 - 1;
        Some(signal)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.count_ones() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter {}
impl FusedIterator for Iter {}

impl IntoIterator for SigSet {
    type Item = Signal;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl FromIterator<Signal> for SigSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SigSet {
        signals.into_iter().fold(SigSet::EMPTY, SigSet::with)
    }
}

impl Extend<Signal> for SigSet {
    fn extend<I: IntoIterator<Item = Signal>>(&mut self, signals: I) {
        *self = signals.into_iter().fold(*self, SigSet::with);
    }
}

impl From<Signal> for SigSet {
    fn from(signal: Signal) -> SigSet {
        SigSet::EMPTY.with(signal)
    }
}

impl BitOr for SigSet {
    type Output = SigSet;
    fn bitor(self, other: SigSet) -> SigSet {
        self.union(other)
    }
}

impl BitAnd for SigSet {
    type Output = SigSet;
    fn bitand(self, other: SigSet) -> SigSet {
        self.intersection(other)
    }
}

impl Sub for SigSet {
    type Output = SigSet;
    fn sub(self, other: SigSet) -> SigSet {
        self.difference(other)
    }
}

impl Not for SigSet {
    type Output = SigSet;
    fn not(self) -> SigSet {
        self.complement()
    }
}

impl fmt::Display for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, signal) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(&signal, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Parses names or numbers separated by commas or bars; the empty text is the empty set.
impl FromStr for SigSet {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<SigSet, InvalidSignal> {
        if text.trim().is_empty() {
            return Ok(SigSet::EMPTY);
        }
        text.split([',', '|']).map(|part| part.trim().parse::<Signal>()).collect()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn algebra_of_every_single_signal() {
        for number in 1..=LAST {
            let signal = Signal::new(number).unwrap();
            let only = SigSet::from(signal);
            assert_eq!(only.bits(), 1 << (number - 1));
            assert_eq!(only.len(), 1);
            assert_eq!(only.iter().collect::<Vec<_>>(), [signal]);
            assert_eq!(only.complement().len(), LAST as u32 - 1);
            assert!(!only.complement().contains(signal));
            assert_eq!(SigSet::FULL.without(signal), !only);
            assert_eq!((!only) | only, SigSet::FULL);
            assert_eq!((!only) & only, SigSet::EMPTY);
            assert_eq!(SigSet::FULL - only, !only);
            assert!(only.is_subset(SigSet::FULL) && !SigSet::FULL.is_subset(only));
        }
    }

    #[test]
    fn the_sets_of_the_table_are_apart_where_they_must_be() {
        assert!(SigSet::RESERVED.intersection(SigSet::ESSENTIAL.union(SigSet::SYNCHRONOUS)).is_empty());
        let essential = [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL, Signal::TRAP, Signal::PROF, Signal::CHLD, Signal::SYS];
        let mut expected: SigSet = essential.into_iter().collect();
        if let Ok(stack_fault) = "SIGSTKFLT".parse() {
            expected = expected.with(stack_fault);
        }
        assert_eq!(SigSet::ESSENTIAL, expected);
        for signal in [Signal::PROF, Signal::CHLD] {
            assert!(!SigSet::SYNCHRONOUS.contains(signal));
        }
        assert!(SigSet::SYNCHRONOUS.contains(Signal::SEGV) && !SigSet::SYNCHRONOUS.contains(Signal::ABRT));
    }

    #[test]
    fn text_round_trips() {
        for bits in [0, 1, Bits::MAX, 1 << (LAST - 1), Bits::MAX / 3] {
            let set = SigSet::from_bits(bits);
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.iter().len(), set.len() as usize);
            assert_eq!(set.iter().collect::<SigSet>(), set);
        }
        assert_eq!("SIGINT | TERM".parse(), Ok(SigSet::EMPTY.with(Signal::INT).with(Signal::TERM)));
        assert!("SIGINT,,TERM".parse::<SigSet>().is_err());
    }
}
