//! Large blocks: the regions that some come from, and mappings that are kept for later ones.

use core::alloc::Layout;

use super::super::{large, region};
use super::{memory, model, thread, together};

const MIB: usize = 1 << 20;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn alloc(size: usize) -> *mut u8 {
    let (block, _) = large::alloc(layout(size));
    assert!(!block.is_null());
    memory::got(block, false);
    block
}

fn free(block: *mut u8, size: usize) {
    memory::gives(block);
    // SAFETY: a block of that size, and the caller's.
    unsafe { large::dealloc(block, layout(size)) };
}

#[test]
fn a_kept_mapping_has_one_taker() {
    model(2, || {
        let [one, other] = [(); 2].map(|()| alloc(20 * MIB));
        free(other, 20 * MIB);
        together([thread(move || free(one, 20 * MIB)), thread(|| _ = alloc(20 * MIB)), thread(|| _ = alloc(20 * MIB))]);
        let (mapped, kept) = large::bytes();
        assert_eq!(mapped, 40 * MIB);
        assert_eq!(large::purge(), kept);
        assert_eq!(large::bytes(), (40 * MIB, 0));
    });
}

#[test]
fn two_threads_make_the_first_region() {
    model(2, || {
        let pair = || {
            thread(|| {
                let block = alloc(2 * MIB);
                free(block, 2 * MIB);
            })
        };
        together([pair(), pair()]);
        let (space, used) = region::bytes();
        assert_eq!(used, 0);
        // The next block finds the first one's memory.
        assert!(region::dirty_units() >= 4);
        alloc(2 * MIB);
        assert_eq!(region::bytes(), (space, 2 * MIB));
    });
}

#[test]
fn a_block_of_a_region_grows_as_others_come_and_go() {
    model(2, || {
        let [one, other] = [alloc(2 * MIB), alloc(2 * MIB)];
        together([
            thread(move || free(other, 2 * MIB)),
            thread(move || {
                // SAFETY: the block of that size, and ours.
                if !unsafe { large::resize(one, layout(2 * MIB), layout(4 * MIB)) }.is_null() {
                    memory::got(other, false);
                }
            }),
            thread(|| _ = alloc(MIB + 1)),
        ]);
    });
}
