//! Without the feature `hardened`: nothing is checked, and nothing is left of this in the code.

use core::alloc::Layout;

use super::chunk::Chunk;
use super::class::Class;

/// Units of a chunk that are not given out: that of the descriptors.
pub(super) const OWN_UNITS: usize = 1;

#[inline(always)]
pub(super) fn start(_: &'static Chunk) {}

#[inline(always)]
pub(super) fn give_out(block: *mut u8, _: Class) -> *mut u8 {
    block
}

#[inline(always)]
pub(super) fn give_out_large(block: *mut u8, _: Layout) -> *mut u8 {
    block
}

#[inline(always)]
pub(super) fn take_in(_: *mut u8, _: Class) {}

#[inline(always)]
pub(super) fn take_in_large(_: *mut u8, _: Layout) {}

#[inline(always)]
pub(super) fn check(_: *mut u8, _: Layout) {}

#[inline(always)]
pub(super) fn discard(_: *mut u8, _: usize, _: usize) {}

pub(super) mod link {
    use super::super::link::Block;

    #[inline(always)]
    pub(in super::super) fn encode(_: *mut Block, next: *mut Block) -> *mut Block {
        next
    }

    #[inline(always)]
    pub(in super::super) fn decode(_: *mut Block, stored: *mut Block) -> *mut Block {
        stored
    }
}
