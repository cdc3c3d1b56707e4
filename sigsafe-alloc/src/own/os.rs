//! Memory from the kernel. Every function keeps `errno`, and none allocates.
//!
//! Runs in any context.

use core::ptr::null_mut;

#[cfg(target_os = "linux")]
use sigsafe_core::mutant;

#[cfg(not(all(test, loom)))]
use super::call;
#[cfg(all(test, loom))]
use super::models::memory as call;

/// The largest page of any system here: lengths are multiples of it.
pub(super) const PAGE: usize = if cfg!(target_arch = "aarch64") { 64 << 10 } else { 4 << 10 };

/// The smallest page of any system here: no mapping is aligned to less, and many are not to more.
pub(super) const ALIGNED: usize = 4 << 10;

/// Up to whole pages.
pub(super) const fn page_up(bytes: usize) -> usize {
    (bytes + PAGE - 1) & !(PAGE - 1)
}

#[cfg(any(target_os = "linux", target_os = "netbsd"))]
const NO_RESERVE: i32 = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "netbsd")))]
const NO_RESERVE: i32 = 0;

/// Zeroed pages, near `hint` if that is free, or null.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn map_at(hint: usize, bytes: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
    let hint = core::ptr::without_provenance_mut(hint);
    #[cfg(target_os = "linux")]
    if mutant!("allocator-spoils-errno") {
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
    }
    // SAFETY: asks for new memory; nothing that exists is touched.
    unsafe { call::mmap(hint, bytes, flags) }
}

/// Zeroed pages, or null.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn map(bytes: usize) -> *mut u8 {
    map_at(0, bytes)
}

/// Zeroed pages whose address is a multiple of `align`, a power of two, or null.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn map_aligned(bytes: usize, align: usize, hint: usize) -> *mut u8 {
    if hint != 0 || align <= ALIGNED {
        let pages = map_at(hint, bytes);
        if pages.is_null() || pages.addr() & (align - 1) == 0 {
            return pages;
        }
        // SAFETY: just mapped, and nobody's yet.
        unsafe { unmap(pages, bytes) };
    }
    let Some(room) = bytes.checked_add(align) else { return null_mut() };
    let pages = map_at(0, room);
    if pages.is_null() {
        return pages;
    }
    let before = pages.addr().wrapping_neg() & (align - 1);
    let after = room - before - bytes;
    // SAFETY: parts of what has just been mapped, and is nobody's yet.
    unsafe {
        if before != 0 {
            unmap(pages, before);
        }
        if after != 0 {
            unmap(pages.add(before + bytes), after);
        }
        pages.add(before)
    }
}

/// Gives pages back, address and all.
///
/// # Safety
///
/// They were mapped here and are nobody's any more.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn unmap(pages: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { call::munmap(pages, bytes) };
}

/// Gives the memory back and keeps the address: the pages read as zero from now on. `false` if the kernel refused.
///
/// # Safety
///
/// They were mapped here, and nobody needs what they hold.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn discard(pages: *mut u8, bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: the caller's promise.
    return unsafe { call::madvise(pages, bytes, libc::MADV_DONTNEED) };
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED | NO_RESERVE;
        // SAFETY: the caller's promise; new pages take the place of old ones.
        let new = unsafe { call::mmap(pages, bytes, flags) };
        new == pages
    }
}

/// Changes the size of a mapping, which may move. Null if that is not possible; then nothing has changed.
///
/// # Safety
///
/// It was mapped here with `old` bytes and is the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn remap(pages: *mut u8, old: usize, new: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { call::mremap(pages, old, new) }
}

/// Milliseconds of a clock that is cheap to read.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn milliseconds() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let now = call::clock(CLOCK);
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

/// Whether the calling code, whose stack pointer is `here`, runs on the thread's signal stack and `there` lies outside of that. Then
/// neither address says which code was called first.
pub(super) fn on_another_stack(here: usize, there: usize) -> bool {
    let stack = call::sigaltstack();
    let place = stack.ss_sp.addr()..stack.ss_sp.addr().saturating_add(stack.ss_size);
    place.contains(&here) && !place.contains(&there)
}
