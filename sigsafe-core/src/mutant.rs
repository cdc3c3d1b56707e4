//! Mutants: the library with one protection taken out, so that a test is seen to turn red (`scripts/mutants.sh`).
//!
//! `mutant!("name")` stands at the protection. It is `false`, and nothing of it is left in the code, unless the crate is compiled
//! with `--cfg sigsafe_mutants`. Then it says whether the variable `SIGSAFE_MUTANT` names this mutant: one build serves them all.
//! Never a Cargo feature, so that no dependency graph can switch one on. What cannot be decided at run time, a constant for
//! instance, is `cfg!(sigsafe_mutant = "name")`, which takes a build of its own.
//!
//! For the crates of this workspace: `sigsafe_core::mutant!("name")`.
//!
//! Runs wherever the library does, handlers included.

#[cfg(not(sigsafe_mutants))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::chosen($name)
    };
}

/// A function, so that no lint takes the condition apart.
///
/// Async-signal safety: may be called from a handler. Cost: nothing.
#[cfg(not(sigsafe_mutants))]
#[inline(always)]
pub const fn chosen(_name: &str) -> bool {
    false
}

#[cfg(sigsafe_mutants)]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::chosen(const { $crate::mutant::fingerprint($name.as_bytes()) })
    };
}

#[cfg(sigsafe_mutants)]
pub use choice::{chosen, fingerprint};

#[cfg(sigsafe_mutants)]
mod choice {
    use core::ffi::CStr;
    use core::sync::atomic::{AtomicU64, Ordering};

    const UNREAD: u64 = 0;

    /// The fingerprint of the chosen name.
    static CHOSEN: AtomicU64 = AtomicU64::new(UNREAD);

    /// FNV-1a; never zero for a name in use, since the names are few and checked by hand.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    pub const fn fingerprint(name: &[u8]) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut index = 0;
        while index < name.len() {
            hash = (hash ^ name[index] as u64).wrapping_mul(0x0100_0000_01b3);
            index += 1;
        }
        hash
    }

    /// Whether it is the chosen one.
    ///
    /// Inlined, so that an allocator's operations do not leave the section in which deferral looks for them.
    ///
    /// Async-signal safety: may be called from a handler. Cost: no system call.
    #[inline(always)]
    pub fn chosen(mutant: u64) -> bool {
        if CHOSEN.load(Ordering::Relaxed) == UNREAD {
            read();
        }
        CHOSEN.load(Ordering::Relaxed) == mutant
    }

    #[cold]
    fn read() {
        // SAFETY: the name ends in a null byte, and nobody changes the environment of these test processes.
        let value = unsafe { libc::getenv(c"SIGSAFE_MUTANT".as_ptr()) };
        // SAFETY: a value that is not null is a string that lives as long as the environment.
        let name = if value.is_null() { c"" } else { unsafe { CStr::from_ptr(value) } };
        // SIGNAL: a handler in between reads and stores the same.
        CHOSEN.store(fingerprint(name.to_bytes()), Ordering::Relaxed);
    }
}
