//! The generator behind every choice of a storm: SplitMix64, so that one seed gives one sequence on every machine.
//!
//! A handler uses it too: it is a few arithmetic instructions on its owner's word, with no state shared between contexts.

/// A seeded sequence of 64-bit words. Async-signal-safe; each context has one of its own.
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    /// The sequence of `seed` for one `stream`: streams of one seed are unrelated, which gives each thread and each context
    /// of a case its own.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Generator {
        Generator(mix(seed ^ mix(stream)))
    }

    /// The next word.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, or 0 when `bound` is 0. The bias of the multiplication is below 2^-32 for the bounds used here.
    pub const fn below(&mut self, bound: u32) -> u32 {
        (((self.word() >> 32) * bound as u64) >> 32) as u32
    }

    /// A number in `low..=high`; `low` must not exceed `high`.
    pub const fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True once in `times` on average.
    pub const fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }
}

/// 2^64 over the golden ratio: SplitMix64's increment.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finaliser: every input bit reaches every output bit.
pub(crate) const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_splitmix64() {
        // The published first outputs for the state 1234567.
        let mut generator = Generator(1_234_567);
        assert_eq!(generator.word(), 6_457_827_717_110_365_317);
        assert_eq!(generator.word(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_streams_differ() {
        let words = |seed, stream| {
            let mut generator = Generator::new(seed, stream);
            [(); 8].map(|()| generator.word())
        };
        assert_eq!(words(7, 0), words(7, 0));
        assert_ne!(words(7, 0), words(7, 1));
        assert_ne!(words(7, 0), words(8, 0));
    }

    #[test]
    fn bounded_numbers_stay_in_their_bounds_and_reach_them() {
        let mut generator = Generator::new(1, 1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[generator.between(3, 7) as usize - 3] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(generator.below(0), 0);
    }
}
