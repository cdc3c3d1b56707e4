//! The system's memory, for models: one reservation, of which an execution maps from the start. And what the threads of a model do to
//! memory that they have, so that two owners are seen.

use core::ffi::c_int;
use core::ptr::null_mut;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::super::chunk::UNIT;

/// More than any model maps.
const RESERVED: usize = 1 << 30;
const PAGE: usize = 64 << 10;

/// A block or a unit.
#[derive(Default)]
struct Piece {
    owned: bool,
    written: bool,
}

type Watched = loom::cell::UnsafeCell<Piece>;

std::thread_local! {
    static START: *mut u8 = reserve();
    static MAPPED: Cell<usize> = const { Cell::new(0) };
    static PIECES: RefCell<HashMap<usize, Rc<Watched>>> = RefCell::default();
}

fn reserve() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
    // SAFETY: new memory, which stays.
    let memory = unsafe { libc::mmap(null_mut(), RESERVED, libc::PROT_READ, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

/// A new execution: nothing has been mapped.
pub(super) fn start() {
    MAPPED.set(0);
    PIECES.with_borrow_mut(HashMap::clear);
}

/// The piece there; to loom, memory that is read and written without atomics.
fn piece(address: *mut u8) -> Rc<Watched> {
    PIECES.with_borrow_mut(|all| Rc::clone(all.entry(address.addr()).or_default()))
}

/// The caller has got the block or unit there, and writes to it.
pub(super) fn got(address: *mut u8, zeroed: bool) {
    piece(address).with_mut(|piece| {
        // SAFETY: loom lets no two in at a time.
        let piece = unsafe { &mut *piece };
        assert!(!piece.owned, "{address:p} has two owners");
        assert!(!zeroed || !piece.written, "{address:p} is not zero");
        *piece = Piece { owned: true, written: true };
    });
}

/// The caller is about to give the block or unit there back.
pub(super) fn gives(address: *mut u8) {
    piece(address).with_mut(|piece| {
        // SAFETY: loom lets no two in at a time.
        let piece = unsafe { &mut *piece };
        assert!(piece.owned, "{address:p} has no owner");
        piece.owned = false;
    });
}

/// Zeroed pages, or null.
///
/// # Safety
///
/// None is needed; it is as the system's.
pub(in super::super) unsafe fn mmap(_hint: *mut u8, bytes: usize, _flags: c_int) -> *mut u8 {
    let at = MAPPED.get();
    let end = at + bytes.next_multiple_of(PAGE);
    if end > RESERVED {
        return null_mut();
    }
    MAPPED.set(end);
    START.with(|start| start.wrapping_add(at))
}

/// Addresses are not used again.
///
/// # Safety
///
/// As for the system's.
pub(in super::super) unsafe fn munmap(_pages: *mut u8, _bytes: usize) {}

/// Gives the units' memory back: they are zero.
///
/// # Safety
///
/// As for the system's.
pub(in super::super) unsafe fn madvise(pages: *mut u8, bytes: usize, advice: c_int) -> bool {
    assert_eq!(advice, libc::MADV_DONTNEED);
    for offset in (0..bytes).step_by(UNIT) {
        piece(pages.wrapping_add(offset)).with_mut(|piece| {
            // SAFETY: loom lets no two in at a time.
            let piece = unsafe { &mut *piece };
            assert!(!piece.owned, "memory that has an owner is given back");
            piece.written = false;
        });
    }
    true
}

/// Not to be had.
///
/// # Safety
///
/// As for the system's.
pub(in super::super) unsafe fn mremap(_pages: *mut u8, _old: usize, _new: usize) -> *mut u8 {
    null_mut()
}

/// It stands still.
pub(in super::super) fn clock(_clock: libc::clockid_t) -> libc::timespec {
    libc::timespec { tv_sec: 1, tv_nsec: 0 }
}

pub(in super::super) fn sigaltstack() -> libc::stack_t {
    libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}
