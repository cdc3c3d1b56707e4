//! Which units of a stretch of memory are free: one word of bits, and one that says which may hold memory that is not zero.
//!
//! A run of units is claimed by one compare-and-swap. Nothing here waits: a thread that is stopped in between keeps the units that
//! it has claimed, and no more.
//!
//! Runs in any context.

use sigsafe_core::mutant;

use super::sync::{AtomicU64, AtomicUsize, Ordering};
use super::{hardened, os};

/// How many units there are.
pub(super) const UNITS: usize = 64;

/// A purge has so many units in hand at most: what a handler that leaves it by longjmp keeps from everybody.
const STRETCH: usize = 16;

/// All zero: no unit is free, and all are clean.
#[repr(C)]
pub(super) struct Units {
    /// Bit n: unit n is free.
    free: AtomicU64,
    /// Bit n: unit n may hold memory that is not zero. Of use while it is free.
    dirty: AtomicU64,
}

/// Units that somebody has claimed.
pub(super) struct Run {
    pub(super) first: usize,
    /// So many of them may hold memory that is not zero.
    pub(super) dirty: usize,
    /// No unit is left.
    pub(super) last: bool,
}

/// What has become of free units' memory, in units.
#[derive(Copy, Clone, Default)]
pub(super) struct Purged {
    /// Gone back to the system.
    pub(super) given: usize,
    /// Not taken: somebody has locked the pages, or all that is mapped (`mlockall`).
    pub(super) refused: usize,
}

/// The first of `count` adjacent bits.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn find_run(bits: u64, count: usize) -> Option<usize> {
    let (mut starts, mut length) = (bits, 1);
    while length < count {
        let step = length.min(count - length);
        starts &= starts >> step;
        length += step;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

/// `count` bits from `first` on.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn run(first: usize, count: usize) -> u64 {
    ((1 << count) - 1) << first
}

impl Units {
    /// All but the first unit become free.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn start(&self) {
        self.free.store(!1, Ordering::Relaxed);
    }

    /// Free units and, of these, those whose memory has not been given back.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn free(&self) -> (u64, u64) {
        let free = self.free.load(Ordering::SeqCst);
        (free, free & self.dirty.load(Ordering::Relaxed))
    }

    /// Claims `count` adjacent units.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim(&self, count: usize) -> Option<Run> {
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            // What is in memory already comes first.
            let dirty = free & self.dirty.load(Ordering::Relaxed);
            let first = match find_run(dirty, count) {
                None => find_run(free, count)?,
                Some(first) => first,
            };
            let bits = run(first, count);
            match self.free.compare_exchange_weak(free, free & !bits, Ordering::AcqRel, Ordering::Acquire) {
                // SIGNAL: what is dirty is read and cleared behind the claim, when nobody else changes it.
                Ok(_) => return Some(Run { first, dirty: self.clean(bits), last: free == bits }),
                Err(now) => free = now,
            }
        }
    }

    /// Claims exactly these units, if they are free: to grow a run where it is.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn claim_at(&self, first: usize, count: usize) -> Option<Run> {
        if first + count > UNITS {
            return None;
        }
        let bits = run(first, count);
        let mut free = self.free.load(Ordering::Acquire);
        while free & bits == bits {
            match self.free.compare_exchange_weak(free, free & !bits, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Run { first, dirty: self.clean(bits), last: free == bits }),
                Err(now) => free = now,
            }
        }
        None
    }

    /// How many of the claimed units were dirty; from here on none is.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn clean(&self, bits: u64) -> usize {
        (self.dirty.fetch_and(!bits, Ordering::AcqRel) & bits).count_ones() as usize
    }

    /// Frees units that somebody has claimed. Whether there was no free one.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn release(&self, first: usize, count: usize) -> bool {
        let bits = run(first, count);
        self.dirty.fetch_or(bits, Ordering::AcqRel);
        self.free.fetch_or(bits, Ordering::SeqCst) == 0
    }

    /// Gives the memory of the free units back to the system; and whether there was no free one meanwhile. `counted`: among how many
    /// free and dirty ones these are.
    ///
    /// # Safety
    ///
    /// They are `unit` bytes each, from `start` on, and free ones are nobody's.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) unsafe fn purge(&self, start: *mut u8, unit: usize, counted: &AtomicUsize) -> (Purged, bool) {
        let (mut given, mut refused, mut none_free) = (0, 0, false);
        loop {
            let free = self.free.load(Ordering::Acquire);
            let dirty = free & self.dirty.load(Ordering::Acquire) & !refused;
            if dirty == 0 {
                return (Purged { given, refused: refused.count_ones() as usize }, none_free);
            }
            // One stretch at a time is taken out of the free ones, so that nobody uses it meanwhile.
            let first = dirty.trailing_zeros() as usize;
            let count = ((dirty >> first).trailing_ones() as usize).min(STRETCH);
            let bits = run(first, count);
            let taken = self.free.compare_exchange(free, free & !bits, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_err() && !mutant!("purged-in-use") {
                continue;
            }
            // Another purge may have been at the same stretch since `dirty` was read.
            let cleaned = self.clean(bits);
            counted.fetch_sub(cleaned, Ordering::Relaxed);
            // SIGNAL: a handler that leaves by longjmp since the claim keeps the stretch from everybody; from here on it is not counted.
            // SAFETY: units that this thread has claimed.
            if unsafe { os::discard(start.add(first * unit), count * unit) } {
                given += cleaned;
                hardened::discard(start, first, count);
            } else {
                refused |= bits;
                self.dirty.fetch_or(bits, Ordering::AcqRel);
                counted.fetch_add(count, Ordering::Relaxed);
            }
            none_free |= self.free.fetch_or(bits, Ordering::SeqCst) == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_are_found_where_they_are() {
        assert_eq!(find_run(0, 1), None);
        assert_eq!(find_run(0b1011_0111, 3), Some(0));
        assert_eq!(find_run(0b1011_0110, 2), Some(1));
        assert_eq!(find_run(0b1011_0110, 3), None);
        assert_eq!(find_run(u64::MAX << 1, 63), Some(1));
        for count in 1..64 {
            for first in 0..=(64 - count) {
                assert_eq!(find_run(run(first, count), count), Some(first));
                assert_eq!(find_run(run(first, count), count + 1), None);
            }
        }
    }
}
