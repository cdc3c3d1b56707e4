//! Regions: 32 MiB of address space, of which blocks of 1 to 16 MiB get their units.
//!
//! What has been freed keeps its memory for a while, and the next block of about the size comes without a system call and without
//! the faults of new pages; a block grows where it is while the units behind it are free. A region is aligned to its size and never
//! unmapped, and its first unit has its head.
//!
//! Runs in any context.

use core::ptr::null_mut;

use super::os;
use super::sync::{AtomicPtr, AtomicUsize, Ordering};
use super::units::{Purged, Run, UNITS, Units};

/// Of these regions consist.
pub(super) const UNIT: usize = 512 << 10;
/// Larger blocks have mappings of their own.
pub(super) const LARGEST: usize = 32 * UNIT;
/// Bytes of a region.
const REGION: usize = UNITS * UNIT;

/// The start of a region.
#[repr(C)]
struct Region {
    units: Units,
    next: AtomicPtr<Region>,
}

/// The first region; the later ones hang off it, the oldest first.
static FIRST: AtomicPtr<Region> = AtomicPtr::new(null_mut());
/// Free units whose memory has not been given back.
static DIRTY_UNITS: AtomicUsize = AtomicUsize::new(0);

/// A block of `count` units, and whether its memory is zero; null when the system has no room for a region.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn claim(count: usize) -> (*mut u8, bool) {
    let mut place = &FIRST;
    let mut fresh = null_mut::<Region>();
    loop {
        let known = place.load(Ordering::Acquire);
        if known.is_null() {
            if fresh.is_null() {
                fresh = os::map_aligned(REGION, REGION, 0).cast();
            }
            // SAFETY: null, or zeroed pages; zero is a value of every field.
            let Some(region) = (unsafe { fresh.as_ref() }) else { return (null_mut(), false) };
            region.units.start();
            // Another one's region may come first: then ours is for the next place, or not needed.
            if place.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                fresh = null_mut();
            }
            continue;
        }
        // SAFETY: regions stay.
        let region: &'static Region = unsafe { &*known };
        if let Some(run) = region.units.claim(count) {
            if !fresh.is_null() {
                // SAFETY: mapped above, and nobody has seen it.
                unsafe { os::unmap(fresh.cast(), REGION) };
            }
            return (region.unit(run.first), claimed(&run));
        }
        place = &region.next;
    }
}

/// Accounts for claimed units. Whether all of them are zero.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn claimed(run: &Run) -> bool {
    if run.dirty != 0 {
        DIRTY_UNITS.fetch_sub(run.dirty, Ordering::Relaxed);
    }
    run.dirty == 0
}

/// The region of a block, and its first unit.
///
/// # Safety
///
/// It came from [`claim`].
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn place_of(block: *mut u8) -> (&'static Region, usize) {
    // SAFETY: the caller's promise; regions are aligned to their size and stay.
    let region = unsafe { &*block.map_addr(|address| address & !(REGION - 1)).cast() };
    (region, (block.addr() & (REGION - 1)) / UNIT)
}

/// Frees `count` units of a block, from its unit `from` on.
///
/// # Safety
///
/// The block came from [`claim`], and these units are the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn release(block: *mut u8, from: usize, count: usize) {
    // SAFETY: the caller's promise.
    let (region, first) = unsafe { place_of(block) };
    // SIGNAL: counted before they are free, so that the count is never too low.
    DIRTY_UNITS.fetch_add(count, Ordering::Relaxed);
    region.units.release(first + from, count);
}

/// Makes a block of `old` units longer where it is, if the units behind it are free.
///
/// # Safety
///
/// The block came from [`claim`] and is the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn extend(block: *mut u8, old: usize, new: usize) -> bool {
    // SAFETY: the caller's promise.
    let (region, first) = unsafe { place_of(block) };
    let Some(run) = region.units.claim_at(first + old, new - old) else { return false };
    claimed(&run);
    true
}

/// Gives the memory of all free units back.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn purge() -> Purged {
    let mut all = Purged::default();
    let mut place = &FIRST;
    // SAFETY: null or a region; regions stay.
    while let Some(region) = unsafe { place.load(Ordering::Acquire).as_ref() } {
        // SAFETY: the region's units.
        let (one, _) = unsafe { region.units.purge(region.unit(0), UNIT, &DIRTY_UNITS) };
        all.given += one.given;
        all.refused += one.refused;
        place = &region.next;
    }
    all
}

/// Free units whose memory has not been given back.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn dirty_units() -> usize {
    DIRTY_UNITS.load(Ordering::Relaxed)
}

/// Bytes of address space, and of units in use.
pub(super) fn bytes() -> (usize, usize) {
    let (mut space, mut used) = (0, 0);
    let mut place = &FIRST;
    // SAFETY: null or a region; regions stay.
    while let Some(region) = unsafe { place.load(Ordering::Acquire).as_ref() } {
        space += REGION;
        used += (UNITS - 1 - region.units.free().0.count_ones() as usize) * UNIT;
        place = &region.next;
    }
    (space, used)
}

impl Region {
    /// The address of a unit.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn unit(&'static self, unit: usize) -> *mut u8 {
        let start: *const Region = self;
        start.cast::<u8>().cast_mut().wrapping_add(unit * UNIT)
    }
}
