//! What is known of a signal on one platform, as a small constant set of flags.
//!
//! Data only, usable in any context.

use core::fmt;
use core::ops::BitOr;

/// Properties of one signal on one platform: a row's third column in the [table](super::Platform::table).
///
/// The first seven are the questions that Go's runtime asks of a signal (its `sigtable`); the rest are this crate's.
///
/// ```
/// use sigsafe_core::Signal;
/// use sigsafe_core::signal::Flags;
/// assert!(Signal::SEGV.flags().contains(Flags::SYNCHRONOUS | Flags::UNBLOCK));
/// assert!(!Signal::SEGV.flags().contains(Flags::NOTIFY));
/// ```
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

macro_rules! flags {
    ($($bit:literal $name:ident $doc:literal;)*) => {
        impl Flags {
            $(#[doc = $doc]
            pub const $name: Flags = Flags(1 << $bit);)*
        }

        const NAMES: &[(Flags, &str)] = &[$((Flags::$name, stringify!($name))),*];
    };
}

flags! {
    0 NOTIFY "A program may ask to be told of it: it comes from outside, or as if from there.";
    1 KILL "A program that did not ask for it ends quietly.";
    2 THROW "A program that did not ask for it ends with a report: something is broken.";
    3 PANIC "Raised by the program's own instruction, it is a fault that a runtime can turn into an exception. Sent from elsewhere, it is as `THROW`.";
    4 DEFAULT "It is left to the default action until a program asks for it: job control.";
    5 IGNORE "The default action discards it. (For SIGCONT: after it has continued the process.)";
    6 UNBLOCK "Essential: a runtime keeps it unblocked on every thread of its own.";
    7 SYNCHRONOUS "The processor or the kernel raises it for the instruction that is running; blocked at that moment, it kills.";
    8 RESERVED "The system's own thread library uses it: it must be neither caught nor blocked.";
    9 STOP "The default action stops the process.";
    10 REAL_TIME "Instances queue up with their data instead of merging into one (POSIX, real-time signals).";
}

impl Flags {
    /// No flag.
    pub const EMPTY: Flags = Flags(0);

    /// The flags of either.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many flags are set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The flags of both.
    #[must_use]
    pub const fn intersection(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (_, name) in NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
            set.entry(&format_args!("{name}"));
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn every_flag_is_one_bit_of_its_own() {
        let mut all = Flags::EMPTY;
        for (flag, name) in NAMES {
            assert_eq!(flag.len(), 1, "{name}");
            assert!(!all.intersects(*flag), "{name}");
            all = all | *flag;
            assert_eq!(std::format!("{flag:?}"), std::format!("{{{name}}}"));
        }
        assert_eq!(all.len() as usize, NAMES.len());
        assert!(Flags::EMPTY.is_empty() && all.contains(Flags::EMPTY) && !Flags::EMPTY.contains(all));
        assert_eq!(all.intersection(Flags::STOP), Flags::STOP);
    }
}
