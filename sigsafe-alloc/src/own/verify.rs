//! A walk over everything, against the invariants that hold while nobody is at work.
//!
//! 1. A span's units are not free, and say how far down the span starts.
//! 2. The free blocks of a span are as many as its anchor says; each is one of the blocks that have been out, and there once.
//! 3. The blocks in a cache's list, or in one on its way between caches, are of that list's class, have been out, and are in no other list.
//! 4. On a class's stack are spans of that class, each once, and none that a cache holds.
//! 5. A span that is full has no free block, and none that was never out.

use core::fmt;

use super::anchor::State;
use super::cache::Cache;
use super::chunk::{self, CHUNK, UNIT, UNITS};
use super::class::Class;
use super::link::{Block, link};
use super::span::Span;
use super::{depot, pool, stack};

/// What [`verify`](super::SigSafeAlloc::verify) has found to be wrong.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant, in words.
    pub what: &'static str,
    /// The block or span where it does not hold.
    pub address: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.what, self.address)
    }
}

impl core::error::Error for Violation {}

/// What has been walked.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Verified {
    /// Spans of blocks.
    pub spans: usize,
    /// Blocks that are free in their spans.
    pub free_blocks: usize,
    /// Blocks that are free in a thread's cache, or on their way between caches.
    pub cached_blocks: usize,
}

/// So many blocks a span has at most.
const MOST: usize = UNIT / 8;

/// Which blocks of a span have been met.
struct Seen([u64; MOST / 64]);

impl Seen {
    /// Whether this is the first time.
    fn first(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        let new = self.0[index / 64] & bit == 0;
        self.0[index / 64] |= bit;
        new
    }
}

fn wrong<T>(what: &'static str, address: usize) -> Result<T, Violation> {
    Err(Violation { what, address })
}

pub(super) fn verify() -> Result<Verified, Violation> {
    let mut found = Verified::default();
    for chunk in chunk::all() {
        let (free, _) = chunk.free_units();
        let mut unit = 1;
        while unit < UNITS {
            let span = chunk.span(unit);
            if span.anchor().state() == State::Idle {
                unit += 1;
                continue;
            }
            let units = span.units();
            if units == 0 || unit + units > UNITS {
                return wrong("a span has the units of its class", span.start().addr());
            }
            for inner in 0..units {
                if free & 1 << (unit + inner) != 0 || chunk.span(unit + inner).back() != inner {
                    return wrong("a span's units are its own", span.start().addr());
                }
            }
            verify_span(span, &mut found)?;
            unit += units;
        }
    }
    for class in Class::all() {
        verify_stack(class)?;
        for block in depot::lists(class).flat_map(blocks) {
            verify_block(block?, class)?;
            found.cached_blocks += 1;
        }
    }
    for cache in pool::all() {
        found.cached_blocks += verify_cache(cache)?;
    }
    Ok(found)
}

pub(super) fn verify_span(span: &'static Span, found: &mut Verified) -> Result<(), Violation> {
    let start = span.start().addr();
    let Some(class) = span.class() else { return wrong("a span has a class", start) };
    let (anchor, carved) = (span.anchor(), span.carved());
    if carved > class.capacity() || anchor.count() > carved {
        return wrong("a span has no more blocks than fit", start);
    }
    if anchor.state() == State::Full && (anchor.count() != 0 || carved != class.capacity()) {
        return wrong("a full span has no block to give", start);
    }
    let mut seen = Seen([0; MOST / 64]);
    let mut meet = |block: *mut Block| match index_in(span, class, block) {
        Some(index) if seen.first(index) => Ok(()),
        Some(_) => wrong("a free block is in one list, once", block.addr()),
        None => wrong("a list has blocks of its span and class", block.addr()),
    };
    if anchor.count() != 0 {
        let mut block: *mut Block = span.start().wrapping_add(anchor.head()).cast();
        for _ in 1..anchor.count() {
            meet(block)?;
            // SAFETY: one of the span's blocks, in its list, so free and linked.
            block = unsafe { link(block) };
        }
        meet(block)?;
    }
    // The same blocks must not be in a cache, nor in two, nor on their way.
    for block in pool::all().flat_map(|cache| cached(cache, class)).chain(depot::lists(class).flat_map(blocks)) {
        if (start..start + class.units() * UNIT).contains(&block?.addr()) {
            meet(block?)?;
        }
    }
    found.spans += 1;
    found.free_blocks += anchor.count();
    Ok(())
}

/// Which block of the span this is, if it is one that has been out.
fn index_in(span: &'static Span, class: Class, block: *mut Block) -> Option<usize> {
    let offset = block.addr().checked_sub(span.start().addr())?;
    let index = offset / class.size();
    (offset % class.size() == 0 && index < span.carved()).then_some(index)
}

/// The blocks of both lists that a cache has of a class.
fn cached(cache: &Cache, class: Class) -> impl Iterator<Item = Result<*mut Block, Violation>> {
    cache.bin(class).lists().into_iter().flat_map(blocks)
}

/// The blocks of a list.
fn blocks(first: *mut Block) -> impl Iterator<Item = Result<*mut Block, Violation>> {
    let mut next = first;
    let mut left = 1 << 16;
    core::iter::from_fn(move || {
        let block = next;
        if block.is_null() {
            return None;
        }
        left -= 1;
        let place = in_chunk(block);
        if left == 0 || !place {
            next = core::ptr::null_mut();
            return Some(wrong(if place { "a list ends" } else { "a list has blocks of chunks" }, block.addr()));
        }
        // SAFETY: in a list, so free and linked; and even where it is not, a word of a chunk, and chunks stay mapped.
        next = unsafe { link(block) };
        Some(Ok(block))
    })
}

/// Whether there can be a block: an overwritten link may say anything.
fn in_chunk(block: *mut Block) -> bool {
    let chunk = block.addr() & !(CHUNK - 1);
    block.addr().is_multiple_of(size_of::<Block>()) && chunk::all().any(|known| core::ptr::from_ref(known).addr() == chunk)
}

/// A free block that is in no span's list, but in one of its class.
fn verify_block(block: *mut Block, class: Class) -> Result<(), Violation> {
    // SAFETY: in a chunk, or `blocks` had not let it through; each unit has a descriptor, which leads to one of the same chunk.
    let span = unsafe { Span::of(block) };
    if span.class() != Some(class) || span.anchor().state() == State::Idle || index_in(span, class, block).is_none() {
        return wrong("a list has blocks of its class", block.addr());
    }
    Ok(())
}

fn verify_cache(cache: &'static Cache) -> Result<usize, Violation> {
    let mut found = 0;
    for class in Class::all() {
        for block in cached(cache, class) {
            verify_block(block?, class)?;
            found += 1;
        }
        if let Some(span) = cache.bin(class).held()
            && (span.class() != Some(class) || !matches!(span.anchor().state(), State::Held | State::Partial))
        {
            return wrong("a cache holds a span of its class", span.start().addr());
        }
    }
    Ok(found)
}

pub(super) fn verify_stack(class: Class) -> Result<(), Violation> {
    let mut left = chunk::count() * UNITS;
    for span in stack::spans(class) {
        if span.class() != Some(class) || span.anchor().state() != State::Partial {
            return wrong("a stack has spans of its class that have blocks to give", span.start().addr());
        }
        if pool::all().any(|cache| cache.bin(class).held().is_some_and(|held| held.is(span))) {
            return wrong("a span is on a stack or held", span.start().addr());
        }
        if left == 0 {
            return wrong("a span is on a stack once", span.start().addr());
        }
        left -= 1;
    }
    Ok(())
}
