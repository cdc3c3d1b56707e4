//! The handlers that a sweep sends into the allocator.
//!
//! They may land anywhere in the main flow's use of the allocator, and nowhere in its use of what both share.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use sigsafe_alloc::in_allocator;
use sigsafe_core::handler::Delivery;

use crate::block::{Block, KIB, MIB, layout};

/// What the main flow and the handler give each other.
struct Shared {
    size: usize,
    main_s: Vec<Block>,
    handler_s: Vec<Block>,
}

struct Cell(UnsafeCell<Shared>);
// SAFETY: one thread at a time, and the handler lands outside of every use.
unsafe impl Sync for Cell {}

static SHARED: Cell = Cell(UnsafeCell::new(Shared { size: 64, main_s: Vec::new(), handler_s: Vec::new() }));

fn shared() -> &'static mut Shared {
    // SAFETY: see `Cell`.
    unsafe { &mut *SHARED.0.get() }
}

/// Before a run: the handlers use blocks of this size, and may free these.
pub(crate) fn share(size: usize, blocks: impl Iterator<Item = Block>) {
    *shared() = Shared { size, main_s: blocks.collect(), handler_s: Vec::with_capacity(4) };
}

/// After a run: all shared blocks are as they were left.
pub(crate) fn free_what_is_shared() {
    let shared = shared();
    shared.main_s.drain(..).chain(shared.handler_s.drain(..)).for_each(drop);
}

/// How often a handler ran, all of them together.
pub(crate) static RUNS: AtomicU32 = AtomicU32::new(0);
/// Whether one ran while the cache was in hand.
pub(crate) static INSIDE: AtomicBool = AtomicBool::new(false);

fn note() {
    RUNS.fetch_add(1, SeqCst);
    if in_allocator() {
        INSIDE.store(true, SeqCst);
    }
}

/// SIGUSR1's: allocates blocks of the size that is under test and of every other kind, resizes some, and frees them.
pub(crate) extern "C" fn allocates(_: i32) {
    note();
    let size = shared().size;
    let sizes = [size, size, 24, 5000, 100 * KIB, 300 * KIB, 3 * MIB / 2, 20 * MIB];
    let blocks = sizes.map(|size| Block::with(layout(size, 8)));
    for (index, block) in blocks.into_iter().flatten().enumerate() {
        let (size, mut block) = (block.layout().size(), block);
        if index % 2 == 0 && size < 64 * KIB {
            block.resize(size + 40);
        }
        // One with a mapping of its own.
        if size == 20 * MIB {
            block.resize(2 * size);
        }
    }
}

/// SIGUSR2's: takes two blocks, which the main flow frees, and then frees one of the main flow's.
pub(crate) extern "C" fn exchanges(_: i32) {
    note();
    let shared = shared();
    let blocks = [(); 2].map(|()| Block::with(layout(shared.size, 8)));
    drop(shared.main_s.pop());
    // Room for these was made before.
    if shared.handler_s.len() + 2 <= shared.handler_s.capacity() {
        shared.handler_s.extend(blocks.into_iter().flatten());
    }
}

/// Whether the managed handler does nothing: it is waited for, and what it would do has been seen.
pub(crate) static BARE: AtomicBool = AtomicBool::new(false);

/// SIGHUP's, which is managed: an operation of the thread's holds it back.
pub(crate) fn managed(_: &Delivery<'_>) {
    if BARE.load(SeqCst) { note() } else { allocates(0) }
}
