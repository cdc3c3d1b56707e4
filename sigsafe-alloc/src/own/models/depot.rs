//! Lists of free blocks on their way between caches.

use core::ptr::null_mut;
use std::cell::Cell;
use std::rc::Rc;
use std::vec::Vec;

use super::super::link::{Block, link, set_link};
use super::super::{class::Class, depot};
use super::{Thread, all_is_back, class, free, memory, model, span_out, thread, together};

const KIB: usize = 1024;

/// Leaves a list of these blocks.
fn put(class: Class, blocks: &[*mut u8]) {
    let mut list: *mut Block = null_mut();
    for block in blocks {
        memory::gives(*block);
        // SAFETY: a block of ours.
        unsafe { set_link(block.cast(), list) };
        list = block.cast();
    }
    // SAFETY: free blocks of the class, which are ours.
    unsafe { depot::put(class, list) };
}

/// Takes a list, and with it its blocks.
fn taken(class: Class) -> Vec<*mut u8> {
    let mut blocks = Vec::new();
    let mut list = depot::take(class);
    while !list.is_null() {
        blocks.push(list.cast());
        memory::got(list.cast(), false);
        // SAFETY: a block of the list that was just taken.
        list = unsafe { link(list) };
    }
    blocks
}

#[test]
fn a_list_has_one_taker() {
    model(2, || {
        let class = class(80 * KIB, 4);
        let (span, [one, two, three, four]) = span_out(class);
        span.let_go();
        put(class, &[one, two]);
        let had = Rc::new(Cell::new(Vec::new()));
        let takes = || -> Thread {
            let had = had.clone();
            thread(move || {
                let mut blocks = taken(class);
                blocks.extend(had.take());
                had.set(blocks);
            })
        };
        together([takes(), takes(), thread(move || put(class, &[three, four]))]);
        had.take().into_iter().for_each(free);
        taken(class).into_iter().for_each(free);
        all_is_back(class);
    });
}
