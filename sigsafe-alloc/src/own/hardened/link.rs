//! Links of free blocks, encoded: `(next ^ block ^ secret) * FACTOR`.
//!
//! The secret differs from process to process, and the block's own address makes equal links look different. The product spreads a
//! change of any byte to all bits above it, so that what was written over a part of a link changes the address as a whole.
//!
//! What is decoded counts as a link when it is null, or a multiple of eight in one of our chunks. Any one byte that is changed is
//! found (see the tests). Other writes pass by chance, in one case of 2^45 for each chunk that there is; what they lead to
//! is then looked at when it is to be given out.
//!
//! This finds mistakes. Who can read free blocks can compute the secret.

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::super::link::Block;
use super::super::{call, os};
use super::{known, report};

/// An odd number whose bits look random.
const FACTOR: usize = 0x9E37_79B9_7F4A_7C15_u64 as usize;
/// With this the product is a number again, modulo the word's size.
const INVERSE: usize = {
    // Newton's method: each step doubles the bits that are right, from three.
    let mut inverse = FACTOR;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2usize.wrapping_sub(FACTOR.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
};

/// Made before there is a chunk, and the same from then on.
static SECRET: AtomicUsize = AtomicUsize::new(0);

/// Makes the secret, unless there is one.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn make_secret() {
    if SECRET.load(Ordering::Relaxed) == 0 {
        // Where the system gives no random number, addresses and the time are what differs.
        let here = ptr::from_ref(&SECRET).addr() ^ sigsafe_core::allocator::stack_pointer().rotate_left(32);
        let random = call::random().unwrap_or_else(|| (here ^ os::milliseconds() as usize).wrapping_mul(FACTOR));
        // SIGNAL: whoever comes first, here or on another thread, makes it for all. The lowest bit says that it is there.
        let _ = SECRET.compare_exchange(0, random | 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[inline(always)]
fn encoded(block: usize, next: usize, secret: usize) -> usize {
    (next ^ block ^ secret).wrapping_mul(FACTOR)
}

#[inline(always)]
fn decoded(block: usize, stored: usize, secret: usize) -> usize {
    stored.wrapping_mul(INVERSE) ^ block ^ secret
}

/// What the free block holds when `next` is the next.
#[inline(always)]
pub(in super::super) fn encode(block: *mut Block, next: *mut Block) -> *mut Block {
    // Whoever has a block has it from a chunk, and sees the secret that was made before that.
    ptr::without_provenance_mut(encoded(block.addr(), next.expose_provenance(), SECRET.load(Ordering::Relaxed)))
}

/// The next block, by what the free block holds.
#[inline(always)]
pub(in super::super) fn decode(block: *mut Block, stored: *mut Block) -> *mut Block {
    let next = decoded(block.addr(), stored.addr(), SECRET.load(Ordering::Relaxed));
    if next != 0 && !(next.is_multiple_of(8) && known::is_in_chunk(next)) {
        report::overwritten_link(block.cast());
    }
    ptr::with_exposed_provenance_mut(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks, secrets and links at which no bit is always the same.
    fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
        let mut state = 1usize;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005_u64 as usize).wrapping_add(1_442_695_040_888_963_407_u64 as usize);
            state ^ state >> 29
        };
        let address = (1usize << known::ADDRESS_BITS.min(47)) - 8;
        (0..300).map(move |case| (random() & address, if case % 10 == 0 { 0 } else { random() & address }, random() | 1))
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for (block, next, secret) in cases() {
            let word = encoded(block, next, secret);
            assert_eq!(decoded(block, word, secret), next);
            assert!(word != encoded(block ^ 16, next, secret) && word != encoded(block, next, secret ^ 16));
        }
        assert_eq!(FACTOR.wrapping_mul(INVERSE), 1);
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn any_one_byte_that_is_overwritten_leads_out_of_the_address_space() {
        for (block, next, secret) in cases() {
            let right = encoded(block, next, secret);
            for byte in 0..8 {
                for value in 0..256 {
                    let wrong = right & !(0xFF << (8 * byte)) | value << (8 * byte);
                    let link = decoded(block, wrong, secret);
                    let plausible = link == 0 || link.is_multiple_of(8) && link >> known::ADDRESS_BITS == 0;
                    assert!(wrong == right || !plausible, "{block:#x} {next:#x} {secret:#x}: byte {byte} is {value}");
                }
            }
        }
    }
}
