//! The stacks of spans that have blocks to give.

use std::cell::Cell;
use std::rc::Rc;
use std::vec::Vec;

use super::super::class::Class;
use super::super::span::Span;
use super::super::stack;
use super::{all_is_back, alloc, class, free, model, span_out, thread, together};

const KIB: usize = 1024;

/// Spans of two blocks on their stack, the last one on top; one of each span's blocks is out.
fn spans<const N: usize>(class: Class) -> ([&'static Span; N], [*mut u8; N]) {
    let mut out = [core::ptr::null_mut(); N];
    let spans = core::array::from_fn(|index| {
        let (span, [one, two]) = span_out(class);
        free(two);
        span.let_go();
        out[index] = one;
        span
    });
    (spans, out)
}

#[test]
fn a_pop_is_not_fooled_by_a_top_that_has_gone_and_come_back() {
    model(2, || {
        let class = class(96 * KIB, 2);
        let (spans, out) = spans::<3>(class);
        let in_hand = Rc::new(Cell::new(Vec::new()));
        let (first, second) = (in_hand.clone(), in_hand.clone());
        let add = |hand: &Cell<Vec<&'static Span>>, span| {
            let mut all = hand.take();
            all.push(span);
            hand.set(all);
        };
        together([
            thread(move || add(&first, stack::pop(class).unwrap())),
            thread(move || {
                let (top, below) = (stack::pop(class), stack::pop(class));
                stack::push(top.unwrap());
                add(&second, below.unwrap());
            }),
        ]);
        let mut found = in_hand.take();
        found.iter().for_each(|span| assert!(!stack::spans(class).any(|other| other.is(span)), "held and on the stack"));
        found.extend(stack::spans(class));
        for span in spans {
            assert_eq!(found.iter().filter(|other| other.is(span)).count(), 1, "each span is in one place");
        }
        assert_eq!(found.len(), spans.len());
        found[..2].iter().for_each(|span| span.let_go());
        out.into_iter().for_each(free);
        all_is_back(class);
    });
}

#[test]
fn pushes_and_pops_of_three_threads_lose_nothing() {
    model(2, || {
        let class = class(96 * KIB, 2);
        let (spans, out) = spans::<2>(class);
        let other = stack::pop(class).unwrap();
        let round = move || {
            if let Some(span) = stack::pop(class) {
                stack::push(span);
            }
        };
        together([thread(move || stack::push(other)), thread(round), thread(round)]);
        assert_eq!(stack::spans(class).count(), spans.len());
        out.into_iter().for_each(free);
        all_is_back(class);
    });
}

/// Two spans on their stack with one block of each out, and the next idle span has the stack looked through.
fn about_to_be_walked(class: Class) -> [*mut u8; 2] {
    let (_, out) = spans::<2>(class);
    for _ in 0..8 {
        stack::note_idle(Some(class));
    }
    out
}

#[test]
fn walks_for_idle_spans_of_two_threads_meet() {
    model(2, || {
        let class = class(96 * KIB, 2);
        let [one, two] = about_to_be_walked(class);
        together([thread(move || free(one)), thread(move || free(two))]);
        all_is_back(class);
    });
}

#[test]
fn a_walk_for_idle_spans_meets_an_allocation() {
    model(2, || {
        let class = class(96 * KIB, 2);
        let [one, two] = about_to_be_walked(class);
        together([
            thread(move || free(one)),
            thread(move || {
                let block = alloc(class);
                free(block);
            }),
        ]);
        free(two);
        all_is_back(class);
    });
}
