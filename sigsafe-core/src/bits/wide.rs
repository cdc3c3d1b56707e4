//! 128 bits with the operations of an atomic integer, each of them one of two words at a time.
//!
//! That is enough for a set: every signal's bit is in one word, and nothing asks two signals at the same instant. A handler between
//! the two words finds one done and the other not, as it would between two such operations on one signal each.

use core::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Wide([AtomicU64; 2]);

fn split(bits: u128) -> [u64; 2] {
    [bits as u64, (bits >> 64) as u64]
}

fn join([low, high]: [u64; 2]) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

impl Wide {
    pub(crate) const fn new(bits: u128) -> Wide {
        Wide([AtomicU64::new(bits as u64), AtomicU64::new((bits >> 64) as u64)])
    }

    pub(crate) fn load(&self, order: Ordering) -> u128 {
        join(self.0.each_ref().map(|word| word.load(order)))
    }

    pub(crate) fn store(&self, bits: u128, order: Ordering) {
        let [low, high] = split(bits);
        self.0[0].store(low, order);
        self.0[1].store(high, order);
    }

    pub(crate) fn swap(&self, bits: u128, order: Ordering) -> u128 {
        let [low, high] = split(bits);
        join([self.0[0].swap(low, order), self.0[1].swap(high, order)])
    }

    pub(crate) fn fetch_or(&self, bits: u128, order: Ordering) -> u128 {
        let [low, high] = split(bits);
        join([self.0[0].fetch_or(low, order), self.0[1].fetch_or(high, order)])
    }

    pub(crate) fn fetch_and(&self, bits: u128, order: Ordering) -> u128 {
        let [low, high] = split(bits);
        join([self.0[0].fetch_and(low, order), self.0[1].fetch_and(high, order)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering::Relaxed;

    #[test]
    fn both_words_do_what_one_would() {
        let ends = 1 | 1 << 63 | 1 << 64 | 1 << 127;
        let wide = Wide::new(ends);
        assert_eq!(wide.load(Relaxed), ends);
        assert_eq!(wide.fetch_or(1 << 65 | 2, Relaxed), ends);
        assert_eq!(wide.fetch_and(!(1 << 127 | 1), Relaxed), ends | 1 << 65 | 2);
        assert_eq!(wide.swap(7 << 64, Relaxed), 1 << 63 | 1 << 64 | 1 << 65 | 2);
        assert_eq!(wide.load(Relaxed), 7 << 64);
        wide.store(u128::MAX - 1, Relaxed);
        assert_eq!(wide.load(Relaxed), u128::MAX - 1);
    }
}
