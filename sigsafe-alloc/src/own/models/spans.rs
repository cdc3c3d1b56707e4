//! A span: frees by others while its holder takes and lets go, and what becomes of it when it is full or empty.

use std::cell::Cell;
use std::rc::Rc;
use std::vec::Vec;

use super::super::anchor::State;
use super::super::link::{Block, link};
use super::super::span::Taken;
use super::super::stack;
use super::{all_is_back, alloc, class, free, memory, model, span_out, thread, together};

const KIB: usize = 1024;

/// The blocks that were taken; they are the caller's.
fn blocks_of(taken: &Taken) -> Vec<*mut u8> {
    let mut next: *mut Block = taken.first;
    (0..taken.count)
        .map(|index| {
            let block: *mut u8 = next.cast();
            if index + 1 < taken.count {
                // SAFETY: linked to the one behind it.
                next = unsafe { link(next) };
            }
            memory::got(block, false);
            block
        })
        .collect()
}

#[test]
fn frees_of_two_threads_meet_a_holder_that_takes_and_lets_go() {
    model(2, || {
        let class = class(80 * KIB, 4);
        let (span, [one, two, three, four]) = span_out(class);
        free(three);
        let had = Rc::new(Cell::new(Vec::new()));
        let has = had.clone();
        together([
            thread(move || free(one)),
            thread(move || free(two)),
            thread(move || {
                let taken = span.take(4).expect("a block is free");
                has.set(blocks_of(&taken));
                span.let_go();
            }),
        ]);
        had.take().into_iter().chain([four]).for_each(free);
        all_is_back(class);
    });
}

#[test]
fn a_holder_that_takes_one_at_a_time_meets_frees() {
    model(2, || {
        let class = class(80 * KIB, 4);
        let (span, [one, two, three, four]) = span_out(class);
        free(three);
        free(four);
        let had = Rc::new(Cell::new(Vec::new()));
        let has = had.clone();
        together([
            thread(move || free(one)),
            thread(move || free(two)),
            thread(move || {
                let taken = [span.take_one(), span.take_one()].into_iter().flatten();
                has.set(taken.flat_map(|taken| blocks_of(&taken)).collect());
                span.let_go();
            }),
        ]);
        had.take().into_iter().for_each(free);
        all_is_back(class);
    });
}

#[test]
fn a_full_span_that_two_threads_free_into_is_on_its_stack_once() {
    model(3, || {
        let class = class(80 * KIB, 4);
        let (span, [one, two, three, four]) = span_out(class);
        span.let_go();
        assert!(span.anchor().state() == State::Full);
        together([thread(move || free(one)), thread(move || free(two))]);
        assert_eq!(stack::spans(class).filter(|other| other.is(span)).count(), 1);
        [three, four].into_iter().for_each(free);
        all_is_back(class);
    });
}

#[test]
fn the_last_blocks_of_a_full_span_meet_a_thread_that_allocates() {
    model(2, || {
        // Of two blocks, so that both frees are the first and the last.
        let class = class(96 * KIB, 2);
        let (span, [one, two]) = span_out(class);
        span.let_go();
        together([
            thread(move || free(one)),
            thread(move || free(two)),
            thread(move || {
                let block = alloc(class);
                free(block);
            }),
        ]);
        all_is_back(class);
    });
}

#[test]
fn a_span_that_becomes_free_as_it_is_full_goes_back() {
    model(3, || {
        // Of one block: it is full or it is nobody's.
        let class = class(128 * KIB, 1);
        let (one, [block]) = span_out(class);
        let (two, [other]) = span_out(class);
        one.let_go();
        together([thread(move || free(block)), thread(move || free(other)), thread(move || two.let_go())]);
        all_is_back(class);
    });
}

#[test]
fn threads_allocate_and_free_without_caches() {
    model(2, || {
        let class = class(96 * KIB, 2);
        // The descriptors of two spans, and the blocks of one.
        let (one, [first, second]) = span_out(class);
        let (two, [third, fourth]) = span_out(class);
        [first, second, third, fourth].into_iter().for_each(free);
        one.let_go();
        two.let_go();
        let pair = move || {
            thread(move || {
                let block = alloc(class);
                free(block);
            })
        };
        together([pair(), pair()]);
        all_is_back(class);
    });
}

#[test]
fn what_one_thread_allocates_another_frees() {
    model(2, || {
        let class = class(96 * KIB, 2);
        let (span, [one, two]) = span_out(class);
        free(two);
        span.let_go();
        let had = Rc::new(Cell::new(Vec::new()));
        let has = had.clone();
        together([thread(move || free(one)), thread(move || has.set([alloc(class), alloc(class)].into()))]);
        had.take().into_iter().for_each(free);
        all_is_back(class);
    });
}
