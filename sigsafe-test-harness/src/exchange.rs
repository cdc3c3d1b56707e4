//! Tables in which main flows and handlers leave blocks for each other to free.
//!
//! A thread has two rows: one that its main flow fills and handlers empty, one the other way round. At times a flow turns to the rows
//! of another thread. A place is one word, filled and emptied by a swap, so that whoever gets an address from it owns the block; what
//! else there is to know of the block stands at its head. Main flows and handlers both run this: nothing here allocates but
//! through the subject.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::block::{Block, LABEL, draw_layout};
use crate::fault::Fault;
use crate::plan::MAX_THREADS;
use crate::rng::Generator;
use crate::subject::parts::Heap;

/// Places of a row.
const PLACES: usize = 16;
/// The largest block.
const LARGEST_BLOCK: u32 = 8 << 10;
/// One turn in so many is taken at another thread's rows.
const ABROAD: u32 = 4;

type Row = [AtomicPtr<u8>; PLACES];

/// The rows of all threads of a case.
pub(crate) struct Tables {
    for_handlers: [Row; MAX_THREADS as usize],
    for_main_flows: [Row; MAX_THREADS as usize],
}

/// Who takes a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Main,
    Handler,
}

/// One flow's way to the tables.
pub(crate) struct Exchange {
    tables: &'static Tables,
    heap: &'static Heap,
    flow: Flow,
    thread: u32,
    threads: u32,
    generator: Generator,
    serial: u64,
}

impl Tables {
    pub(crate) fn new() -> Tables {
        let empty = || [const { [const { AtomicPtr::new(ptr::null_mut()) }; PLACES] }; MAX_THREADS as usize];
        Tables { for_handlers: empty(), for_main_flows: empty() }
    }

    /// Checks and frees every block. Nobody may leave another any more.
    pub(crate) fn drain(&self, heap: &'static Heap) -> Result<(), Fault> {
        self.for_handlers.iter().chain(&self.for_main_flows).flatten().try_for_each(|place| take(place, heap).map(drop))
    }
}

impl Exchange {
    /// The way of one of the two flows of `thread`, of so many threads.
    pub(crate) fn new(
        tables: &'static Tables,
        heap: &'static Heap,
        flow: Flow,
        thread: u32,
        threads: u32,
        generator: Generator,
    ) -> Exchange {
        Exchange { tables, heap, flow, thread, threads, generator, serial: 0 }
    }

    /// Frees a block of the other flow's, if there is one where this one looks, and leaves one. Whether one was freed.
    pub(crate) fn turn(&mut self) -> Result<bool, Fault> {
        let generator = &mut self.generator;
        let thread = if generator.one_in(ABROAD) { generator.below(self.threads) } else { self.thread } as usize;
        let (fills, empties) = match self.flow {
            Flow::Main => (&self.tables.for_handlers[thread], &self.tables.for_main_flows[thread]),
            Flow::Handler => (&self.tables.for_main_flows[thread], &self.tables.for_handlers[thread]),
        };
        // The first from a random place on that has a block, and the first that has none.
        let start = generator.below(PLACES as u32) as usize;
        let places = || (0..PLACES).map(move |step| (start + step) % PLACES);
        let filled = |row: &Row, place: usize| !row[place].load(Ordering::Relaxed).is_null();
        let freed = match places().find(|place| filled(empties, *place)) {
            Some(place) => take(&empties[place], self.heap)?,
            None => false,
        };
        if let Some(place) = places().find(|place| !filled(fills, *place)) {
            self.serial += 1;
            let layout = draw_layout(generator, LARGEST_BLOCK);
            let Ok(layout) = std::alloc::Layout::from_size_align(layout.size().max(LABEL + 8), layout.align()) else { return Ok(freed) };
            let block = Block::obtain(self.heap, layout, LABEL, self.serial).label();
            // SIGNAL: a handler since the place was found empty may have filled it; what it left is this flow's to free now.
            // Release: its partner is the swap in `take`.
            release(fills[place].swap(block, Ordering::AcqRel), self.heap)?;
        }
        Ok(freed)
    }
}

/// Empties a place. Whether there was a block.
fn take(place: &AtomicPtr<u8>, heap: &'static Heap) -> Result<bool, Fault> {
    release(place.swap(ptr::null_mut(), Ordering::AcqRel), heap)
}

/// Checks and frees the block whose address a swap has given, if it is one.
fn release(block: *mut u8, heap: &'static Heap) -> Result<bool, Fault> {
    let Some(block) = ptr::NonNull::new(block) else { return Ok(false) };
    // SAFETY: `label` has given the address, and the swap has given it to nobody else; all tables of a case are over one heap.
    unsafe { Block::labelled(heap, block) }?.release()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    static HEAP: System = System;

    fn flows(tables: &'static Tables) -> [Exchange; 2] {
        let flow = |flow, stream| Exchange::new(tables, &HEAP, flow, 0, 2, Generator::new(1, stream));
        [flow(Flow::Main, 0), flow(Flow::Handler, 1)]
    }

    #[test]
    fn each_flow_frees_what_the_other_left() {
        let tables: &Tables = Box::leak(Box::new(Tables::new()));
        let [mut main, mut handler] = flows(tables);
        assert!((0..100).all(|_| !main.turn().unwrap()), "a main flow has nothing to free where no handler has run");
        assert!((0..100).filter(|_| handler.turn().unwrap()).count() >= PLACES);
        assert!((0..100).filter(|_| main.turn().unwrap()).count() >= PLACES);
        tables.drain(&HEAP).unwrap();
        assert!(tables.for_handlers.iter().chain(&tables.for_main_flows).flatten().all(|place| place.load(Ordering::Relaxed).is_null()));
    }

    #[test]
    fn a_block_that_was_scribbled_on_is_noticed() {
        for offset in [0, 9, 17, 25, LABEL + 3] {
            let tables: &Tables = Box::leak(Box::new(Tables::new()));
            let [mut main, mut handler] = flows(tables);
            main.turn().unwrap();
            let block = tables.for_handlers.iter().flatten().find(|place| !place.load(Ordering::Relaxed).is_null()).unwrap();
            // SAFETY: a live block, larger than its label, that nobody uses meanwhile.
            unsafe { *block.load(Ordering::Relaxed).add(offset) ^= 1 };
            assert!((0..100).any(|_| handler.turn().is_err()), "offset {offset}");
        }
    }
}
