//! Spans: a few units cut into blocks of one class.
//!
//! A span has at most one *holder*: the thread whose cache has it, or whoever has just taken it from its class's stack. Only the holder
//! takes blocks from it, off its list of free ones or off its end that was never used (`carved` counts how far that has gone).
//! Everybody may free blocks into it at any time, by one compare-and-swap. So nobody ever waits for a holder, and one that is
//! stopped or killed keeps the free blocks of that one span.
//!
//! Runs in any context.

use core::ptr::{self, null_mut};

use sigsafe_core::mutant;

use super::anchor::{Anchor, State};
use super::chunk::{self, Chunk, UNIT};
use super::class::Class;
use super::link::{Block, link, set_link};
use super::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use super::{purge, stack};

/// A unit's descriptor; of a span of several units, the first one's counts.
#[repr(C, align(64))]
pub(super) struct Span {
    anchor: AtomicU64,
    /// The number of the span below this one on its stack, or 0.
    pub(super) below: AtomicU32,
    /// Blocks that have ever been out. The holder's.
    carved: AtomicU32,
    size: AtomicU32,
    capacity: AtomicU32,
    class: AtomicU8,
    /// How many units further down the span starts.
    back: AtomicU8,
    units: AtomicU8,
    /// Whether the memory past `carved` is zero.
    zeroed: AtomicU8,
}

const _: () = assert!(size_of::<Span>() == 64);

/// Blocks that a holder has taken.
pub(super) struct Taken {
    pub(super) first: *mut Block,
    pub(super) count: usize,
    /// Whether the memory of the block (there is only one then) is zero.
    pub(super) zeroed: bool,
}

impl Span {
    /// The span of a block.
    ///
    /// # Safety
    ///
    /// The block came from a span, and has not been given back yet.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) unsafe fn of(block: *mut Block) -> &'static Span {
        let address: *mut u8 = block.cast();
        // SAFETY: spans lie in chunks.
        let chunk = unsafe { Chunk::of(address) };
        let unit = (address.addr() % chunk::CHUNK) / UNIT;
        chunk.span(unit - usize::from(chunk.span(unit).back.load(Ordering::Relaxed)))
    }

    /// A span to take blocks from, held by the caller: one of the class's stack, or a new one.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn get(class: Class) -> Option<&'static Span> {
        if let Some(span) = stack::pop(class) {
            return Some(span);
        }
        // Where there is no memory for a new one, what waited in the depot has gone back to its spans.
        match Span::new(class) {
            None => stack::pop(class),
            new => new,
        }
    }

    /// A new span, held by the caller.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn new(class: Class) -> Option<&'static Span> {
        let claim = purge::claim(class.units())?;
        // SIGNAL: up to the last line the units are this frame's alone. One that it is left in, they stay nobody's.
        let span = claim.chunk.span(claim.first);
        for unit in 1..class.units() {
            claim.chunk.span(claim.first + unit).back.store(unit as u8, Ordering::Relaxed);
        }
        span.back.store(0, Ordering::Relaxed);
        span.carved.store(0, Ordering::Relaxed);
        span.size.store(class.size() as u32, Ordering::Relaxed);
        span.capacity.store(class.capacity() as u32, Ordering::Relaxed);
        span.class.store(class.index() as u8, Ordering::Relaxed);
        span.units.store(class.units() as u8, Ordering::Relaxed);
        span.zeroed.store(claim.zeroed.into(), Ordering::Relaxed);
        let before = Anchor(span.anchor.load(Ordering::Relaxed));
        span.anchor.store(before.next(0, 0, State::Held).0, Ordering::Release);
        Some(span)
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn chunk(&'static self) -> &'static Chunk {
        let address: *const Span = self;
        // SAFETY: descriptors lie in their chunk.
        unsafe { Chunk::of(address.cast_mut().cast()) }
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn unit(&'static self) -> usize {
        let address: *const Span = self;
        let first: *const Span = self.chunk().span(0);
        (address.addr() - first.addr()) / size_of::<Span>()
    }

    /// Where its blocks start.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn start(&'static self) -> *mut u8 {
        self.chunk().unit(self.unit())
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn number(&'static self) -> u32 {
        self.chunk().number(self.unit())
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn class(&self) -> Option<Class> {
        Class::from_index(self.class.load(Ordering::Relaxed).into())
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn anchor(&self) -> Anchor {
        Anchor(self.anchor.load(Ordering::Acquire))
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn carved(&self) -> usize {
        self.carved.load(Ordering::Relaxed) as usize
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn units(&self) -> usize {
        self.units.load(Ordering::Relaxed).into()
    }

    /// How many units further down the span of this unit starts.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn back(&self) -> usize {
        self.back.load(Ordering::Relaxed).into()
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed) as usize
    }

    /// The descriptor's address stands for the span when neighbours are put together.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn is(&self, other: &Span) -> bool {
        ptr::eq(self, other)
    }

    /// Differs for neighbours.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn hash(&self) -> usize {
        ptr::from_ref(self).addr() / size_of::<Span>()
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn block(&'static self, offset: usize) -> *mut Block {
        self.start().wrapping_add(offset).cast()
    }

    /// Frees `count` blocks, linked from `first` to `last`. Any thread may.
    ///
    /// # Safety
    ///
    /// They are this span's, the caller's, and linked to each other in that order.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) unsafe fn free(&'static self, first: *mut Block, last: *mut Block, count: usize) {
        let start = self.start();
        let head = first.addr() - start.addr();
        let mut before = self.anchor();
        loop {
            let below = if before.count() == 0 { null_mut() } else { self.block(before.head()) };
            // SAFETY: still the caller's block.
            unsafe { set_link(last, below) };
            let free = before.count() + count;
            let state = match before.state() {
                State::Full if free == self.capacity() => State::Idle,
                State::Full => State::Partial,
                other => other,
            };
            let after = before.next(head, free, state);
            // SIGNAL: a handler that leaves by longjmp behind this line keeps a span, that was full or is empty, from everybody; to others it
            // is nobody's until it lies on its stack, or its units are free.
            match self.anchor.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if state == State::Idle => return self.release(),
                Ok(_) if before.state() == State::Full && !mutant!("freed-unannounced") => return stack::push(self),
                Ok(_) if state == State::Partial && free == self.carved() => return stack::note_idle(self.class()),
                Ok(_) => return,
                Err(now) => before = Anchor(now),
            }
        }
    }

    /// Gives the units back. The caller is the only one who knows the span.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn release(&'static self) {
        self.chunk().release(self.unit(), self.units());
        purge::after_release();
    }

    /// Takes all free blocks, linked to each other; or else up to `batch` that were never used. The holder's.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn take(&'static self, batch: usize) -> Option<Taken> {
        self.take_list().or_else(|| self.carve(batch))
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn take_list(&'static self) -> Option<Taken> {
        let mut before = self.anchor();
        while before.count() != 0 {
            let after = before.next(0, 0, State::Held);
            match self.anchor.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Taken { first: self.block(before.head()), count: before.count(), zeroed: false }),
                Err(now) => before = Anchor(now),
            }
        }
        None
    }

    /// Takes one free block. The holder's.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn take_one(&'static self) -> Option<Taken> {
        let mut before = self.anchor();
        while before.count() != 0 {
            let first = self.block(before.head());
            // SAFETY: nobody but the holder takes, so the block stays free, and its link is what was stored when it was freed.
            let next = unsafe { link(first) };
            let head = if before.count() == 1 { 0 } else { next.addr() - self.start().addr() };
            let after = before.next(head, before.count() - 1, State::Held);
            match self.anchor.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Taken { first, count: 1, zeroed: false }),
                Err(now) => before = Anchor(now),
            }
        }
        self.carve(1)
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn carve(&'static self, batch: usize) -> Option<Taken> {
        let carved = self.carved();
        let count = batch.min(self.capacity() - carved);
        if count == 0 {
            return None;
        }
        // SIGNAL: a handler that leaves by longjmp after this line loses the blocks, and nobody gets one twice.
        self.carved.store((carved + count) as u32, Ordering::Relaxed);
        let size = self.size.load(Ordering::Relaxed) as usize;
        let first = self.start().wrapping_add(carved * size);
        let mut block = first;
        for _ in 1..count {
            let next = block.wrapping_add(size);
            // SAFETY: never used, and the holder's.
            unsafe { set_link(block.cast(), next.cast()) };
            block = next;
        }
        let zeroed = count == 1 && self.zeroed.load(Ordering::Relaxed) != 0;
        if !zeroed {
            // SAFETY: as above; a single block whose memory is zero is not linked, so that it stays so.
            unsafe { set_link(block.cast(), null_mut()) };
        }
        Some(Taken { first: first.cast(), count, zeroed })
    }

    /// Ends holding it: to its class's stack while it has blocks to give, back to the chunk when all of them are free.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn let_go(&'static self) {
        let mut before = self.anchor();
        loop {
            let (free, carved) = (before.count(), self.carved());
            let state = if free == carved {
                State::Idle
            } else if free == 0 && carved == self.capacity() {
                State::Full
            } else {
                State::Partial
            };
            // A block that is freed meanwhile changes the anchor.
            // SIGNAL: as in `free`.
            let after = before.next(before.head(), free, state);
            match self.anchor.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if state == State::Idle => return self.release(),
                Ok(_) if state == State::Partial => return stack::push(self),
                Ok(_) => return,
                Err(now) => before = Anchor(now),
            }
        }
    }
}
