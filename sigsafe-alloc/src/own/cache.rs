//! A thread's cache: for each class a list of free blocks, a spare one, and a span to take more from.
//!
//! Only the operation that has marked the cache ([`thread`](super::thread)) works on it. Every store leaves
//! it whole: a handler that never returns may lose the blocks that the interrupted operation had in hand, and no block is ever in
//! two places.

use core::mem::offset_of;
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence};

use sigsafe_core::mutant;

use super::class::{BIN, BINS, CLASSES, Class};
use super::depot;
use super::link::{Block, link, set_link};
use super::span::{Span, Taken};

/// What a cache has of one class.
#[repr(C)]
pub(super) struct Bin {
    /// The free blocks, the last freed one first.
    head: AtomicPtr<Block>,
    /// How many more the list takes.
    room: AtomicI32,
    _pad: u32,
    /// A list that was full, for when the first is empty or full again.
    spare: AtomicPtr<Block>,
    /// The span that this cache holds.
    span: AtomicPtr<Span>,
}

/// A thread's cache.
#[repr(C, align(64))]
pub(super) struct Cache {
    /// Of the operation that works on it: see [`sigsafe_core::allocator`], which looks for it in the first word.
    pub(super) mark: AtomicUsize,
    /// Operations that found the mark set.
    pub(super) nested: AtomicU32,
    /// The next cache of this thread.
    pub(super) next_of_thread: AtomicPtr<Cache>,
    /// The next of all caches.
    pub(super) next_of_all: AtomicPtr<Cache>,
    pub(super) bins: [Bin; CLASSES],
    /// Where its owner's record lies: see [`pool`](super::pool).
    pub(super) owner: AtomicUsize,
}

const _: () = assert!(offset_of!(Cache, bins) == BINS && size_of::<Bin>() == BIN);

impl Cache {
    #[inline(always)]
    pub(super) fn bin(&self, class: Class) -> &Bin {
        let cache: *const Cache = self;
        // SAFETY: a class says where in a cache its bin lies.
        unsafe { &*cache.byte_add(class.bin()).cast::<Bin>() }
    }

    /// Puts a free block on its class's list; `false` when that is full.
    ///
    /// # Safety
    ///
    /// The block is of this class, free, and the caller's.
    #[inline(always)]
    pub(super) unsafe fn push(&self, class: Class, block: *mut Block) -> bool {
        // SIGNAL: a handler that leaves by longjmp after this line leaves room for one less.
        if !self.take_room(class) {
            return false;
        }
        let head = &self.bin(class).head;
        // SAFETY: the caller's promise.
        unsafe { set_link(block, head.load(Ordering::Relaxed)) };
        if mutant!("cleared-early") {
            super::thread::clear_early();
        }
        head.store(block, Ordering::Relaxed);
        true
    }

    /// Whether there is room for one more. Where there is none it falls below zero, and stays there until the list is a new one.
    #[inline(always)]
    fn take_room(&self, class: Class) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: one instruction changes the bin's own word, and a branch looks at the sign.
            unsafe {
                core::arch::asm!(
                    "dec dword ptr [{cache} + {word} * {words} + {room}]",
                    "js {full}",
                    cache = in(reg) ptr::from_ref(self),
                    words = in(reg) class.words(),
                    word = const super::class::WORD,
                    room = const BINS + offset_of!(Bin, room),
                    full = label { return false },
                    options(nostack),
                );
            }
            true
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let place = &self.bin(class).room;
            let room = place.load(Ordering::Relaxed).wrapping_sub(1);
            place.store(room, Ordering::Relaxed);
            room >= 0
        }
    }

    /// Leaves everything to others, a list at a time.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn drain(&self) {
        for (bin, class) in self.bins.iter().zip(Class::all()) {
            bin.drain(class);
        }
    }
}

/// Relaxed, and in program order for handlers of this thread.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn set<T>(place: &AtomicPtr<T>, value: *mut T) {
    compiler_fence(Ordering::SeqCst);
    place.store(value, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

impl Bin {
    /// Zeroed memory becomes an empty bin.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn start(&self, class: Class) {
        self.room.store(class.list() as i32, Ordering::Relaxed);
    }

    /// Takes a block of the list, or null.
    #[inline(always)]
    pub(super) fn pop(&self) -> *mut Block {
        let block = self.head.load(Ordering::Relaxed);
        // SIGNAL: to a handler the cache is marked, here and in what follows below. One that leaves by longjmp between the two stores leaves
        // room for one less.
        if !block.is_null() {
            // SAFETY: in the list, so free and linked.
            self.head.store(unsafe { link(block) }, Ordering::Relaxed);
            self.room.store(self.room.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        block
    }

    /// The list is empty: takes a block of the spare list, of one that another cache has left, of the span, or of another one. Null when
    /// there is no memory.
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn refill(&self, class: Class) -> (*mut u8, bool) {
        let most = class.list();
        let spare = self.spare.load(Ordering::Relaxed);
        // SIGNAL: a handler that leaves by longjmp after the list was taken loses it, and nobody gets a block twice.
        let list = if spare.is_null() {
            depot::take(class)
        } else {
            set(&self.spare, null_mut());
            spare
        };
        let (taken, room) = if list.is_null() {
            let Some(taken) = self.more(class) else { return (null_mut(), false) };
            // A span gives all that it has, which may be more than a list takes.
            let room = (most + 1).saturating_sub(taken.count);
            (taken, room.min(most))
        } else {
            (Taken { first: list, count: most, zeroed: false }, 1)
        };
        let block = taken.first;
        if !taken.zeroed {
            // SAFETY: in the list that was just taken; a single block whose memory is zero is not linked.
            set(&self.head, unsafe { link(block) });
        }
        self.room.store(room as i32, Ordering::Relaxed);
        (block.cast(), taken.zeroed)
    }

    /// Blocks of the span that is held, or of the next.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn more(&self, class: Class) -> Option<Taken> {
        // A page, so that a small program does not touch more than it needs.
        let batch = (4096 / class.size()).clamp(1, class.list());
        loop {
            let held = self.span.load(Ordering::Relaxed);
            // SAFETY: null or a span that this cache holds; descriptors stay.
            if let Some(span) = unsafe { held.as_ref() } {
                if let Some(taken) = span.take(batch) {
                    return Some(taken);
                }
                // SIGNAL: a handler that leaves by longjmp between these lines keeps the span from everybody, as in all that lets go of one.
                set(&self.span, null_mut());
                span.let_go();
            }
            let span: *const Span = Span::get(class)?;
            // SIGNAL: a handler that leaves by longjmp before this line keeps the span from everybody.
            set(&self.span, span.cast_mut());
        }
    }

    /// The list is full: it becomes the spare one, what was that is left for other caches, and a new list starts with the block.
    ///
    /// # Safety
    ///
    /// As for [`Cache::push`].
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) unsafe fn overflow(&self, class: Class, block: *mut Block) {
        // SIGNAL: in this order, so that a list is in one place at most: what is in none is lost to a handler that leaves by longjmp.
        let old = self.spare.load(Ordering::Relaxed);
        set(&self.spare, null_mut());
        let full = self.head.load(Ordering::Relaxed);
        set(&self.head, null_mut());
        set(&self.spare, full);
        // SAFETY: the caller's promise.
        unsafe { set_link(block, null_mut()) };
        set(&self.head, block);
        self.room.store(class.list() as i32 - 1, Ordering::Relaxed);
        // SAFETY: a list of free blocks that is in no bin any more.
        unsafe { depot::put(class, old) };
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn drain(&self, class: Class) {
        for list in [&self.head, &self.spare] {
            // SIGNAL: as in `overflow`.
            let blocks = list.load(Ordering::Relaxed);
            set(list, null_mut());
            // SAFETY: a list of free blocks that is in no bin any more.
            unsafe { depot::put(class, blocks) };
        }
        self.room.store(class.list() as i32, Ordering::Relaxed);
        let held = self.span.load(Ordering::Relaxed);
        set(&self.span, null_mut());
        // SAFETY: null or a span that this cache held; descriptors stay.
        if let Some(span) = unsafe { held.as_ref() } {
            span.let_go();
        }
    }

    /// The free blocks of both lists, for checks.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn lists(&self) -> [*mut Block; 2] {
        [self.head.load(Ordering::Relaxed), self.spare.load(Ordering::Relaxed)]
    }

    /// The span that is held, for checks.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn held(&self) -> Option<&'static Span> {
        // SAFETY: null or a span; descriptors stay.
        unsafe { self.span.load(Ordering::Relaxed).as_ref() }
    }
}

/// Blocks of one span, linked in the order in which they came.
#[derive(Copy, Clone)]
struct Group {
    span: Option<&'static Span>,
    first: *mut Block,
    last: *mut Block,
    count: usize,
}

impl Group {
    const NONE: Group = Group { span: None, first: null_mut(), last: null_mut(), count: 0 };

    /// # Safety
    ///
    /// The blocks are the caller's.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    unsafe fn free(self) {
        if let Some(span) = self.span {
            // SAFETY: the caller's promise.
            unsafe { span.free(self.first, self.last, self.count) };
        }
    }
}

/// Frees a list into its spans. Blocks of one span go together, also where those of others lie between them: one
/// compare-and-swap for each group.
///
/// # Safety
///
/// A list of free blocks that is the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) unsafe fn give_back(mut list: *mut Block) {
    const GROUPS: usize = 8;
    let mut groups = [Group::NONE; GROUPS];
    // SIGNAL: a handler that leaves by longjmp, here or further down, keeps from everybody what is not in its span yet.
    while !list.is_null() {
        let block = list;
        // SAFETY: a free block of the list.
        let (span, next) = unsafe { (Span::of(block), link(block)) };
        list = next;
        let place = &mut groups[span.hash() % GROUPS];
        match place.span {
            Some(other) if other.is(span) => {
                // SAFETY: both are the caller's.
                unsafe { set_link(block, place.first) };
                place.first = block;
                place.count += 1;
            }
            _ => {
                let before = core::mem::replace(place, Group { span: Some(span), first: block, last: block, count: 1 });
                // SAFETY: the caller's.
                unsafe { before.free() };
            }
        }
    }
    // Moved, the array would be copied by libc's function, which is none of the allocator's code.
    for group in &groups {
        // SAFETY: the caller's.
        unsafe { group.free() };
    }
}
