//! A block with contents of its own, which are looked at before it goes.

#![allow(dead_code, reason = "each test is a crate that uses its own part of this module")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sigsafe_alloc::SigSafeAlloc;

/// Not the program's: its counts are those of the test alone.
pub(crate) static A: SigSafeAlloc = SigSafeAlloc;

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// One that is never too large for a layout.
pub(crate) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A block of [`A`]'s. Whoever has this may free it.
#[derive(Debug)]
pub(crate) struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

// SAFETY: a block belongs to whoever has this.
unsafe impl Send for Block {}

/// For sweeps, which make blocks a hundred thousand times, step by step at times: only what lists write is looked at, a word at the start,
/// and one at the end.
pub(crate) static ENDS_ALONE: AtomicBool = AtomicBool::new(false);

/// Which bytes are written and looked at: both ends, and some on each page.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let (ends, inner) = if ENDS_ALONE.load(Ordering::Relaxed) { (8, 0) } else { (32, size) };
    let ends = size.min(ends);
    (0..ends).chain(size - ends..size).chain((0..inner).step_by(1021))
}

impl Block {
    /// `None`: there is no memory.
    pub(crate) fn with(layout: Layout) -> Option<Block> {
        // SAFETY: no test asks for size 0.
        Block::adopt(unsafe { A.alloc(layout) }, layout)
    }

    pub(crate) fn new(size: usize) -> Block {
        Block::with(layout(size, 8)).expect("there is memory")
    }

    /// Memory that has to be zero from end to end.
    pub(crate) fn zeroed(layout: Layout) -> Option<Block> {
        // SAFETY: no test asks for size 0.
        let at = unsafe { A.alloc_zeroed(layout) };
        if !at.is_null() {
            // SAFETY: a new block of that size, and initialised.
            let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
            // By the page, which is a comparison of memory.
            let dirty = bytes.chunks(4 * KIB).position(|page| *page != [0; 4 * KIB][..page.len()]);
            assert_eq!(dirty, None, "page of zeroed memory that is not zero, in {layout:?}");
        }
        Block::adopt(at, layout)
    }

    pub(crate) fn many(size: usize, count: usize) -> Vec<Block> {
        (0..count).map(|_| Block::new(size)).collect()
    }

    /// What an allocation has returned.
    pub(crate) fn adopt(at: *mut u8, layout: Layout) -> Option<Block> {
        // Also two that are given the same memory differ.
        static NEXT: AtomicU8 = AtomicU8::new(0);
        if at.is_null() {
            return None;
        }
        assert_eq!(at.addr() % layout.align(), 0, "{at:?} for {layout:?}");
        let block = Block { at, layout, mark: NEXT.fetch_add(1, Ordering::Relaxed) };
        block.fill();
        Some(block)
    }

    fn byte(&self, place: usize) -> u8 {
        self.mark ^ (place as u8) ^ ((place >> 8) as u8)
    }

    fn fill(&self) {
        for place in places(self.layout.size()) {
            // SAFETY: within our block.
            unsafe { self.at.add(place).write(self.byte(place)) };
        }
    }

    /// Writes every byte, none of them zero.
    pub(crate) fn soil(&self) {
        // SAFETY: our block.
        unsafe { self.at.write_bytes(0xFF, self.layout.size()) };
        self.fill();
    }

    pub(crate) fn at(&self) -> *mut u8 {
        self.at
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn check(&self) {
        self.check_first(self.layout.size());
    }

    /// Looks at the first `size` bytes.
    fn check_first(&self, size: usize) {
        for place in places(self.layout.size()).filter(|place| *place < size) {
            // SAFETY: within our block.
            let found = unsafe { self.at.add(place).read() };
            assert_eq!(found, self.byte(place), "byte {place} of {self:?}");
        }
    }

    /// Resizes, and looks whether the contents have come along. `false`: there is no memory, and all is as it was.
    pub(crate) fn resize(&mut self, size: usize) -> bool {
        // SAFETY: our block; no test asks for size 0.
        let at = unsafe { A.realloc(self.at, self.layout, size) };
        if at.is_null() {
            self.check();
            return false;
        }
        assert_eq!(at.addr() % self.layout.align(), 0, "{at:?} for {size} bytes of {self:?}");
        self.moved(at, size);
        true
    }

    /// What a reallocation has made of it. The contents have to have come along.
    pub(crate) fn moved(&mut self, at: *mut u8, size: usize) {
        self.at = at;
        self.check_first(size.min(self.layout.size()));
        self.layout = layout(size, self.layout.align());
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
        // SAFETY: our block.
        unsafe { A.dealloc(self.at, self.layout) };
    }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(number: i32) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = number };
}

/// Runs the body in a child that `fork` makes, where it has to return. What it returns, a number below 255.
///
/// The child has the calling thread alone. glibc and musl keep their own locks from being inherited.
pub(crate) fn in_a_child(body: impl FnOnce() -> usize) -> usize {
    // SAFETY: the child leaves by `_exit`. SIGALRM has its default action: a child that hangs ends, and fails.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::alarm(300);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(result.map_or(255, |number| number.try_into().unwrap_or(255)));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 255, "the child's status is {status:#x}");
        libc::WEXITSTATUS(status) as usize
    }
}
