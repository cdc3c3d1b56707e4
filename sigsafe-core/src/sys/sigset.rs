//! Between this crate's [`SigSet`] and libc's `sigset_t`.
//!
//! By the layout: the functions that POSIX has for it take one signal each, and glibc's refuse the numbers that it reserves. Every
//! supported system keeps signal N as bit N - 1 of an array of words; the words are `unsigned long` on Linux and 32 bits elsewhere.
//! A test compares with `sigaddset` and `sigismember`. Data only, usable in any context.

use core::mem::size_of;

use crate::bits::Bits;
use crate::sigset::SigSet;

#[cfg(target_os = "linux")]
type Word = core::ffi::c_ulong;
#[cfg(not(target_os = "linux"))]
type Word = u32;

const WORDS: usize = size_of::<libc::sigset_t>() / size_of::<Word>();

const _: () = assert!(WORDS * size_of::<Word>() == size_of::<libc::sigset_t>());
const _: () = assert!(WORDS * Word::BITS as usize >= crate::signal::LAST as usize);

/// The same set as libc has it.
pub(crate) fn to_sigset(set: SigSet) -> libc::sigset_t {
    let bits = set.bits();
    let mut words: [Word; WORDS] = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        let shift = index as u32 * Word::BITS;
        if shift < Bits::BITS {
            *word = (bits >> shift) as Word;
        }
    }
    // SAFETY: of the same size, by the assertion above; any bits are a set.
    unsafe { core::mem::transmute::<[Word; WORDS], libc::sigset_t>(words) }
}

/// The same set as this crate has it. Bits of no signal are left out.
pub(crate) fn from_sigset(set: &libc::sigset_t) -> SigSet {
    let words: *const Word = core::ptr::from_ref(set).cast();
    let mut bits: Bits = 0;
    for index in 0..WORDS {
        let shift = index as u32 * Word::BITS;
        if shift < Bits::BITS {
            // SAFETY: within the set, which is an array of words of this alignment.
            bits |= Bits::from(unsafe { words.add(index).read() }) << shift;
        }
    }
    SigSet::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{LAST, Signal};

    #[test]
    fn libc_sees_the_same_set() {
        let every_third: SigSet = (1..=LAST).step_by(3).map(|number| Signal::new(number).unwrap()).collect();
        for set in [SigSet::EMPTY, SigSet::FULL, every_third, every_third.complement()] {
            let theirs = to_sigset(set);
            for signal in SigSet::FULL {
                // SAFETY: a set and a number of its range.
                let member = unsafe { libc::sigismember(&raw const theirs, signal.number()) } == 1;
                assert_eq!(member, set.contains(signal), "{signal}");
            }
            assert_eq!(from_sigset(&theirs), set);
        }
    }

    #[test]
    fn a_set_that_libc_made_is_read_whole() {
        // SAFETY: zero is a value of the type, and libc empties the set.
        let mut theirs: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: a live set, here and below.
        unsafe { libc::sigemptyset(&raw mut theirs) };
        assert_eq!(from_sigset(&theirs), SigSet::EMPTY);
        for signal in SigSet::RESERVED.complement() {
            // SAFETY: as above.
            unsafe { libc::sigaddset(&raw mut theirs, signal.number()) };
            assert!(from_sigset(&theirs).contains(signal), "{signal}");
        }
        assert_eq!(from_sigset(&theirs), SigSet::RESERVED.complement());
    }
}
