//! Where memory comes from before the system is asked for more, and when it goes back.
//!
//! Free units keep their memory for a while, since what has just been freed is often wanted again. It goes back with one of the
//! [`CLOCK_EVERY`] releases that come [`DELAY`] after some of it became free, and at once when it is more than [`BOUND`].
//!
//! The system does not take locked pages. They are offered again when [`DELAY`] is over, or much more has become free.
//!
//! Runs in any context.

use super::chunk::{self, Claim};
use super::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use super::{depot, large, os, region, stack};

/// Milliseconds.
static DELAY: AtomicU32 = AtomicU32::new(1000);
/// Units.
static BOUND: AtomicUsize = AtomicUsize::new(4096);
/// When the memory of free units is to go back, in milliseconds of the system's clock; 0: there was none.
static DUE: AtomicU64 = AtomicU64::new(0);
/// Units that the system has refused to take, the last time.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// The same of regions.
static REFUSED_OF_REGIONS: AtomicUsize = AtomicUsize::new(0);
/// Releases since the clock was read.
static RELEASES: AtomicU32 = AtomicU32::new(0);

/// The clock is read once in so many releases.
const CLOCK_EVERY: u32 = 16;

/// Claims adjacent units. What lies idle elsewhere is looked through before the system is asked.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn claim(count: usize) -> Option<Claim> {
    if let Some(claim) = chunk::claim(count) {
        return Some(claim);
    }
    if stack::trim_all(256)
        && let Some(claim) = chunk::claim(count)
    {
        return Some(claim);
    }
    // Not all of it: managed handlers wait meanwhile.
    if chunk::count() != 0
        && depot::empty(64)
        && stack::trim_all(256)
        && let Some(claim) = chunk::claim(count)
    {
        return Some(claim);
    }
    if let Some(claim) = claim_new(count) {
        return Some(claim);
    }
    // Nothing is left: what we keep for later goes first.
    large::purge();
    depot::empty(depot::ALL);
    stack::trim_all(stack::ALL);
    if let Some(claim) = chunk::claim(count) {
        return Some(claim);
    }
    claim_new(count)
}

/// Claims adjacent units of a new chunk.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn claim_new(count: usize) -> Option<Claim> {
    // Others may be quicker than we, at all units of it.
    let claim = chunk::new_chunk()?.claim(count);
    if claim.is_some() { claim } else { chunk::claim(count) }
}

/// Some units have become free.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn after_release() {
    if chunk::dirty_units() > most_units(BOUND.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed)) {
        purge_units();
    }
    if region::dirty_units() > most_units(bound_of_kept() / region::UNIT, REFUSED_OF_REGIONS.load(Ordering::Relaxed)) {
        purge_regions();
    }
    if RELEASES.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLOCK_EVERY) {
        on_time();
    }
}

/// So many free units keep their memory: those that were refused, and `bound` others or, of many, an eighth as many.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn most_units(bound: usize, refused: usize) -> usize {
    refused + bound.max(refused / 8)
}

/// Gives the memory of all free units back. How many units that were.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn purge_units() -> usize {
    let purged = chunk::purge();
    REFUSED.store(purged.refused, Ordering::Relaxed);
    purged.given
}

/// Gives the memory of all free units of regions back. Bytes.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn purge_regions() -> usize {
    let purged = region::purge();
    REFUSED_OF_REGIONS.store(purged.refused, Ordering::Relaxed);
    purged.given * region::UNIT
}

/// Gives back what is due.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn on_time() {
    let now = os::milliseconds();
    let due = DUE.load(Ordering::Relaxed);
    // Once in a millisecond, also where there is no delay.
    if due >= now {
        return;
    }
    let next = now + u64::from(DELAY.load(Ordering::Relaxed));
    // One thread does it, and the first release starts the clock.
    if DUE.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && due != 0 {
        depot::empty(depot::ALL);
        purge_units();
        purge_regions();
        large::purge();
    }
}

/// Sets the policy.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn set_policy(delay_ms: u32, bound_bytes: usize) {
    DELAY.store(delay_ms, Ordering::Relaxed);
    BOUND.store(bound_bytes / chunk::UNIT, Ordering::Relaxed);
    DUE.store(0, Ordering::Relaxed);
}

/// So many bytes of mappings may be kept, and of free units of regions: they fit less often than units of chunks do.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn bound_of_kept() -> usize {
    BOUND.load(Ordering::Relaxed) * chunk::UNIT / 8 * 3
}

/// Gives back all that nobody uses. Bytes.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn purge() -> usize {
    depot::empty(depot::ALL);
    stack::trim_all(stack::ALL);
    purge_units() * chunk::UNIT + purge_regions() + large::purge()
}
