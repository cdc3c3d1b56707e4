//! A chunk's units, and the directory of chunks.

use std::cell::Cell;
use std::rc::Rc;

use super::super::chunk::{self, Chunk, Claim, UNITS};
use super::super::purge;
use super::{Thread, memory, model, thread, together};

/// Units that somebody has.
#[derive(Copy, Clone)]
struct Units {
    chunk: &'static Chunk,
    first: usize,
    count: usize,
}

impl Units {
    /// What a claim of so many has given.
    fn of(claim: Claim, count: usize) -> Units {
        let units = Units { chunk: claim.chunk, first: claim.first, count };
        units.each(|unit| memory::got(unit, claim.zeroed));
        units
    }

    fn each(self, act: impl Fn(*mut u8)) {
        (self.first..self.first + self.count).for_each(|unit| act(self.chunk.unit(unit)));
    }

    fn release(self) {
        self.each(memory::gives);
        self.chunk.release(self.first, self.count);
    }
}

/// Claims of any chunk that is known.
fn claim(count: usize) -> Option<Units> {
    chunk::claim(count).map(|claim| Units::of(claim, count))
}

/// A thread that claims, and keeps what it gets.
fn claims(count: usize) -> Thread {
    thread(move || _ = claim(count))
}

/// A chunk with these units free, and used before; all others are somebody's.
fn chunk_with(free: &[usize]) -> &'static Chunk {
    let chunk = chunk::new_chunk().unwrap();
    let all = Units::of(chunk.claim(UNITS - 1).unwrap(), UNITS - 1);
    for unit in free {
        Units { first: *unit, count: 1, ..all }.release();
    }
    chunk
}

/// When all threads are done: each free unit is found, and those that are to be given back have been counted.
fn all_is_found(chunk: &'static Chunk) {
    let (free, dirty) = chunk.free_units();
    assert_eq!(chunk::dirty_units(), dirty.count_ones() as usize, "units to be given back");
    for _ in 0..free.count_ones() {
        assert!(claim(1).is_some(), "a free unit that is not found");
    }
    assert!(claim(1).is_none());
}

#[test]
fn claims_and_a_release_of_runs_that_overlap() {
    model(2, || {
        let chunk = chunk_with(&[5, 6, 7]);
        let freed = Units { chunk, first: 8, count: 1 };
        together([claims(2), claims(2), thread(move || freed.release())]);
        all_is_found(chunk);
    });
}

#[test]
fn a_unit_that_is_freed_as_the_chunk_fills_is_found() {
    model(2, || {
        let chunk = chunk_with(&[5]);
        let [one, other] = [20, 40].map(|first| Units { chunk, first, count: 1 });
        together([
            claims(1),
            thread(move || one.release()),
            thread(move || {
                other.release();
                let _ = claim(1);
            }),
        ]);
        all_is_found(chunk);
    });
}

#[test]
fn a_run_grows_where_a_claim_and_a_release_are_at_work() {
    model(2, || {
        let chunk = chunk_with(&[5, 6]);
        let released = Units { chunk, first: 7, count: 1 };
        let grown = Rc::new(Cell::new(0));
        let grows = grown.clone();
        together([
            thread(move || {
                if chunk.claim_at(5, 2) {
                    Units { chunk, first: 5, count: 2 }.each(|unit| memory::got(unit, false));
                    grows.set(2);
                }
            }),
            claims(1),
            thread(move || released.release()),
        ]);
        assert!(grown.get() == 2 || chunk.free_units().0.count_ones() == 2);
        all_is_found(chunk);
    });
}

#[test]
fn memory_is_given_back_beside_claims_and_releases() {
    model(2, || {
        let chunk = chunk_with(&[5, 6]);
        let one = Units { chunk, first: 7, count: 1 };
        together([thread(|| _ = chunk::purge()), claims(1), thread(move || one.release())]);
        all_is_found(chunk);
    });
}

#[test]
fn two_threads_give_the_same_memory_back() {
    model(2, || {
        let chunk = chunk_with(&[5, 6]);
        let purged = Rc::new(Cell::new(0));
        let purges = || {
            let purged = purged.clone();
            thread(move || {
                let units = chunk::purge().given;
                purged.set(purged.get() + units);
            })
        };
        together([purges(), purges()]);
        assert_eq!(chunk::dirty_units(), 0);
        assert_eq!(purged.get(), 2, "of two units");
        all_is_found(chunk);
    });
}

#[test]
fn two_threads_make_the_first_chunk() {
    model(2, || {
        // The words of the directory are there.
        assert!(claim(1).is_none() && chunk::count() == 0);
        let makes = || thread(|| _ = Units::of(purge::claim(3).unwrap(), 3));
        together([makes(), makes()]);
        let free: u32 = chunk::all().map(|chunk| chunk.free_units().0.count_ones()).sum();
        assert_eq!(free as usize, chunk::count() * (UNITS - 1) - 6);
        assert!(chunk::all().count() == chunk::count());
    });
}
