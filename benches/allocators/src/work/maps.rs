//! Maps from numbers to small vectors, in which keys come and go; from time to time a map is dropped and a new one begun.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

use fastrand::Rng;

use super::Work;

/// About half of the keys are in the map once it has filled.
const KEYS: u64 = 20_000;
/// Keys that a map sees.
const LIFE: u64 = 100_000;
/// Keys of a turn.
const STEPS: u64 = 100;
const VALUE: usize = 128;

fn value(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rng.usize(1..=VALUE));
    bytes.push(1);
    black_box(bytes)
}

macro_rules! churn {
    ($(#[$doc:meta])* $name:ident, $map:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            map: $map,
            age: u64,
            rng: Rng,
        }

        impl $name {
            pub(crate) fn new(seed: u64) -> Self {
                Self { map: Default::default(), age: 0, rng: Rng::with_seed(seed) }
            }
        }

        impl Work for $name {
            fn run(&mut self, turns: u64) {
                for _ in 0..turns * STEPS {
                    let key = self.rng.u64(..KEYS);
                    if self.map.remove(&key).is_none() {
                        let value = value(&mut self.rng);
                        self.map.insert(key, value);
                    }
                    self.age += 1;
                    if self.age == LIFE {
                        self.age = 0;
                        self.map = Default::default();
                    }
                }
            }
        }
    };
}

churn! {
    /// std's hash function, with the same keys in every run.
    Unordered, HashMap<u64, Vec<u8>, BuildHasherDefault<DefaultHasher>>
}
churn! { Ordered, BTreeMap<u64, Vec<u8>> }
