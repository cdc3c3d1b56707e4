//! Blocks that have no class: runs of a chunk's units up to [`LARGEST_RUN`], of a [`region`]'s up to [`region::LARGEST`], and mappings of
//! their own above.
//!
//! The layout alone says how large a mapping is: there are eight sizes to each doubling, so that a freed mapping fits the next block of
//! about that size. A few are kept, in places of their size class, and are taken and put by one exchange each.
//!
//! Runs in any context.

use core::alloc::Layout;
use core::ptr::null_mut;

use sigsafe_core::mutant;

use super::chunk::{CHUNK, Chunk, UNIT};
use super::sync::{AtomicPtr, AtomicUsize, Ordering};
use super::{os, purge, region};

/// Larger blocks, and those that are aligned to more than a unit, are mapped.
const LARGEST_RUN: usize = 1 << 20;
/// Larger mappings are not kept.
const LARGEST_KEPT: usize = 64 << 20;
/// Places for each size.
const PLACES: usize = 4;
const SIZES: usize = 8 * (LARGEST_KEPT / region::LARGEST).ilog2() as usize;

static KEPT: [[AtomicPtr<u8>; PLACES]; SIZES] = [const { [const { AtomicPtr::new(null_mut()) }; PLACES] }; SIZES];
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are mapped for blocks in use.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// A fresh block, and whether it is zero.
pub(super) type Fresh = (*mut u8, bool);

const NOTHING: Fresh = (null_mut(), false);

/// How a layout's block is made.
enum Kind {
    /// Adjacent units of a chunk, so many.
    Run(usize),
    /// Adjacent units of a region, so many; or a mapping, where there was no room for a region.
    Big(usize),
    /// A mapping of so many bytes.
    Map(usize),
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn kind(layout: Layout) -> Kind {
    if layout.size() <= LARGEST_RUN && layout.align() <= UNIT {
        return Kind::Run(layout.size().div_ceil(UNIT));
    }
    if layout.size() <= region::LARGEST && layout.align() <= os::ALIGNED {
        return Kind::Big(layout.size().div_ceil(region::UNIT));
    }
    Kind::Map(mapping(layout.size()))
}

/// Whether a block of the kind `Big` has a mapping of its own: those do not start where units do.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn outside(block: *mut u8) -> bool {
    !block.addr().is_multiple_of(region::UNIT)
}

/// A mapping for a block of the kind `Big`.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn map_outside(bytes: usize) -> *mut u8 {
    let pages = os::map(bytes + os::PAGE);
    if pages.is_null() {
        return pages;
    }
    // SAFETY: one page too many was mapped; the first or the last goes.
    unsafe {
        if outside(pages) {
            os::unmap(pages.add(bytes), os::PAGE);
            pages
        } else {
            os::unmap(pages, os::PAGE);
            pages.add(os::PAGE)
        }
    }
}

/// The bytes of a mapping for `size` bytes: eight steps to each doubling, whole units.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn mapping(size: usize) -> usize {
    let size = size.max(UNIT);
    let step = (1 << ((size - 1).ilog2().max(19) - 3)).max(UNIT);
    // A layout's size is at most half of the address space.
    (size + step - 1) & !(step - 1)
}

/// The place of a mapping's size among those that are kept.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn place(bytes: usize) -> Option<usize> {
    if bytes <= region::LARGEST || bytes > LARGEST_KEPT {
        return None;
    }
    let last = bytes - 1;
    let doubling = last.ilog2() - region::LARGEST.ilog2();
    Some(8 * doubling as usize + (last >> (last.ilog2() - 3) & 7))
}

/// A block that has no class, or nothing.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn alloc(layout: Layout) -> Fresh {
    match kind(layout) {
        Kind::Run(units) => {
            let Some(claim) = purge::claim(units) else { return NOTHING };
            (claim.chunk.unit(claim.first), claim.zeroed)
        }
        Kind::Big(units) => {
            let fresh = region::claim(units);
            if !fresh.0.is_null() {
                return fresh;
            }
            let bytes = units * region::UNIT;
            let mut block = map_outside(bytes);
            if block.is_null() && purge::purge() != 0 {
                block = map_outside(bytes);
            }
            if !block.is_null() {
                MAPPED.fetch_add(bytes, Ordering::Relaxed);
            }
            (block, true)
        }
        Kind::Map(bytes) => {
            let fresh = map(bytes, layout.align());
            if !fresh.0.is_null() {
                MAPPED.fetch_add(bytes, Ordering::Relaxed);
            }
            fresh
        }
    }
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn map(bytes: usize, align: usize) -> Fresh {
    if align <= os::ALIGNED
        && let Some(place) = place(bytes)
    {
        let pages = take_kept(place, bytes);
        if !pages.is_null() {
            return (pages, false);
        }
    }
    let pages = os::map_aligned(bytes, align, 0);
    if !pages.is_null() || purge::purge() == 0 {
        return (pages, true);
    }
    (os::map_aligned(bytes, align, 0), true)
}

/// So many sizes up and down: half to twice the bytes.
const REACH: usize = 8;

/// A kept mapping of this size; or one of about that size, which the system makes longer or shorter: that costs a call, and none of the
/// faults with which new memory comes. Null if there is none.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn take_kept(place: usize, bytes: usize) -> *mut u8 {
    let exact = take_from(place);
    if !exact.is_null() {
        return exact;
    }
    for distance in 1..=REACH {
        for other in [place.wrapping_add(distance), place.wrapping_sub(distance)] {
            if other >= SIZES {
                continue;
            }
            let pages = take_from(other);
            if pages.is_null() {
                continue;
            }
            // SAFETY: the exchange made it ours.
            let resized = unsafe { os::remap(pages, kept_size(other), bytes) };
            if resized.is_null() {
                // SAFETY: as above, and nothing has changed.
                unsafe { os::unmap(pages, kept_size(other)) };
            }
            return resized;
        }
    }
    null_mut()
}

/// Whether a mapping of this size, or a somewhat larger one, is kept.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn has_kept(bytes: usize) -> bool {
    let Some(place) = place(bytes) else { return false };
    for places in &KEPT[place..SIZES.min(place + REACH)] {
        for kept in places {
            if !kept.load(Ordering::Relaxed).is_null() {
                return true;
            }
        }
    }
    false
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn take_from(place: usize) -> *mut u8 {
    for kept in &KEPT[place] {
        if kept.load(Ordering::Relaxed).is_null() {
            continue;
        }
        let pages = kept.swap(null_mut(), Ordering::Acquire);
        if !pages.is_null() {
            KEPT_BYTES.fetch_sub(kept_size(place), Ordering::Relaxed);
            return pages;
        }
    }
    null_mut()
}

/// The bytes that the layout's block has.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn usable(layout: Layout) -> usize {
    match kind(layout) {
        Kind::Run(units) => units * UNIT,
        Kind::Big(units) => units * region::UNIT,
        Kind::Map(bytes) => bytes,
    }
}

/// Frees a block that has no class.
///
/// # Safety
///
/// `alloc` gave it for this layout, and it is nobody's any more.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn dealloc(block: *mut u8, layout: Layout) {
    match kind(layout) {
        Kind::Run(units) => {
            // SAFETY: runs lie in chunks.
            let chunk = unsafe { Chunk::of(block) };
            chunk.release((block.addr() % CHUNK) / UNIT, units);
            purge::after_release();
        }
        Kind::Big(units) if !outside(block) => {
            // SAFETY: the caller's promise.
            unsafe { region::release(block, 0, units) };
            purge::after_release();
        }
        Kind::Big(units) => {
            MAPPED.fetch_sub(units * region::UNIT, Ordering::Relaxed);
            // SAFETY: the caller's promise; a mapping of that size.
            unsafe { os::unmap(block, units * region::UNIT) };
        }
        Kind::Map(bytes) => {
            MAPPED.fetch_sub(bytes, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { keep_or_unmap(block, bytes) };
            purge::after_release();
        }
    }
}

/// # Safety
///
/// A mapping of that size that is nobody's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
unsafe fn keep_or_unmap(pages: *mut u8, bytes: usize) {
    if let Some(place) = place(bytes) {
        let bound = purge::bound_of_kept().max(if mutant!("kept-unbounded") { usize::MAX } else { 0 });
        // SIGNAL: counted before it is in its place, and until it is out of it; a handler that leaves by longjmp in between leaves the
        // count too high, and fewer are kept.
        if KEPT_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes <= bound {
            for kept in &KEPT[place] {
                if kept.load(Ordering::Relaxed).is_null()
                    && kept.compare_exchange(null_mut(), pages, Ordering::Release, Ordering::Relaxed).is_ok()
                {
                    return;
                }
            }
        }
        KEPT_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    }
    // SAFETY: the caller's promise.
    unsafe { os::unmap(pages, bytes) };
}

/// Changes a block's size where it is, or moves it without a copy; null if neither is possible.
///
/// # Safety
///
/// `alloc` gave it for `old`; it is the caller's. `new` has no class either.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn resize(block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
    match (kind(old), kind(new)) {
        (Kind::Run(old), Kind::Run(new)) => {
            if old == new {
                return block;
            }
            // SAFETY: runs lie in chunks.
            let chunk = unsafe { Chunk::of(block) };
            let first = (block.addr() % CHUNK) / UNIT;
            if new < old {
                chunk.release(first + new, old - new);
                purge::after_release();
                return block;
            }
            if chunk.claim_at(first + old, new - old) { block } else { null_mut() }
        }
        (Kind::Big(old), Kind::Big(new)) => {
            if old == new {
                return block;
            }
            if outside(block) {
                return null_mut();
            }
            if new < old {
                // SAFETY: the caller's promise.
                unsafe { region::release(block, new, old - new) };
                purge::after_release();
                return block;
            }
            // SAFETY: the caller's promise.
            if unsafe { region::extend(block, old, new) } { block } else { null_mut() }
        }
        (Kind::Map(old_bytes), Kind::Map(new_bytes)) => {
            if old_bytes == new_bytes {
                return block;
            }
            // Where there is a kept mapping, a copy into its memory costs less than the faults of new memory.
            if old.align() > os::ALIGNED || (new_bytes > old_bytes && has_kept(new_bytes)) {
                return null_mut();
            }
            // SAFETY: the caller's promise.
            let moved = unsafe { os::remap(block, old_bytes, new_bytes) };
            if !moved.is_null() {
                MAPPED.fetch_add(new_bytes.wrapping_sub(old_bytes), Ordering::Relaxed);
            }
            moved
        }
        _ => null_mut(),
    }
}

/// Unmaps what is kept. Bytes.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn purge() -> usize {
    let mut purged = 0;
    for (index, places) in KEPT.iter().enumerate() {
        for kept in places {
            let pages = kept.swap(null_mut(), Ordering::Acquire);
            if pages.is_null() {
                continue;
            }
            let bytes = kept_size(index);
            KEPT_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            // SAFETY: the exchange made it ours.
            unsafe { os::unmap(pages, bytes) };
            purged += bytes;
        }
    }
    purged
}

/// The size of the mappings in a place.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn kept_size(place: usize) -> usize {
    let base = region::LARGEST << (place / 8);
    base + (place % 8 + 1) * (base / 8)
}

/// Bytes mapped for blocks in use, and kept for later ones.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn bytes() -> (usize, usize) {
    (MAPPED.load(Ordering::Relaxed), KEPT_BYTES.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_lose_at_most_an_eighth_and_have_places_of_their_own() {
        let mut size = region::LARGEST + 1;
        while size <= LARGEST_KEPT {
            let bytes = mapping(size);
            assert!(bytes >= size && (bytes - size) * 8 < bytes && bytes & (UNIT - 1) == 0, "{size}");
            assert_eq!(mapping(bytes), bytes);
            assert_eq!(kept_size(place(bytes).unwrap()), bytes, "{size}");
            size += 100_003;
        }
        assert_eq!(place(LARGEST_KEPT + UNIT), None);
        assert_eq!(place(mapping(LARGEST_KEPT)), Some(SIZES - 1));
    }
}
