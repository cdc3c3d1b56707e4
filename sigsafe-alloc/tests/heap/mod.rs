//! The model of a heap: which blocks there are, and what is in them. It says what an allocator may not do: give out memory that
//! somebody has, or that is not aligned, or not zero where it was asked to be; change a block's bytes; lose count.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, BTreeSet};

use sigsafe_alloc::{SigSafeAlloc, Stats};

use crate::program::Which;

/// Not the program's: only what the test does goes through it.
pub(crate) static A: SigSafeAlloc = SigSafeAlloc;

const UNIT: usize = 64 << 10;
/// The largest size that has a class, and so lies in a span.
const CLASSED: usize = 256 << 10;
/// The longest span.
const SPAN: usize = 8 * UNIT;

/// A block that the program has: all its usable bytes hold the mark.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Block {
    at: *mut u8,
    pub(crate) layout: Layout,
    mark: u8,
}

// SAFETY: a block belongs to whoever has this.
unsafe impl Send for Block {}

impl Block {
    fn usable(&self) -> usize {
        A.usable_size(self.layout)
    }

    fn bytes(&self, count: usize) -> &[u8] {
        // SAFETY: the block is ours, has these bytes, and they have been written.
        unsafe { std::slice::from_raw_parts(self.at, count) }
    }

    /// Where the mark is not there any more, within the first `count` bytes.
    #[track_caller]
    fn check(&self, count: usize) {
        let mark = self.mark;
        if let Some(offset) = self.bytes(count).iter().position(|byte| *byte != mark) {
            panic!("byte {offset} of {self:?} has changed");
        }
    }
}

/// What the live blocks come to, as [`Stats`] counts them.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    /// Of those that lie in spans.
    blocks: usize,
    /// Of runs and mappings.
    large: usize,
}

#[derive(Default)]
pub(crate) struct Heap {
    /// By address.
    live: BTreeMap<usize, Block>,
    /// The sizes of blocks of classes that there have been.
    sizes: BTreeSet<usize>,
    marks: u8,
    newest: usize,
}

impl Heap {
    /// The allocator has given this block.
    #[track_caller]
    pub(crate) fn add(&mut self, at: *mut u8, layout: Layout) {
        assert!(!at.is_null(), "no memory for {layout:?}");
        assert_eq!(at.addr() % layout.align(), 0, "{at:p} is not aligned for {layout:?}");
        self.marks = self.marks.wrapping_add(1);
        let block = Block { at, layout, mark: self.marks };
        let usable = block.usable();
        assert!(usable >= layout.size());
        let (start, end) = (at.addr(), at.addr() + usable);
        if let Some((_, other)) = self.live.range(..end).next_back() {
            assert!(other.at.addr() + other.usable() <= start, "{block:?} and {other:?} overlap");
        }
        // SAFETY: ours, and it has these bytes.
        unsafe { at.write_bytes(block.mark, usable) };
        if is_classed(layout) {
            self.sizes.insert(usable);
        }
        self.live.insert(start, block);
        self.newest = start;
    }

    /// Takes a block out, to free it or to change its size.
    #[track_caller]
    pub(crate) fn take(&mut self, which: Which) -> Option<Block> {
        let address = match which {
            Which::Newest => self.newest,
            Which::Numbered(number) => *self.live.keys().nth(number.checked_rem(self.live.len())?)?,
        };
        let block = self.live.remove(&address)?;
        block.check(block.usable());
        Some(block)
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    fn account(&self) -> Account {
        let mut account = Account::default();
        for block in self.live.values() {
            let kind = if is_classed(block.layout) { &mut account.blocks } else { &mut account.large };
            *kind += block.usable();
        }
        account
    }

    /// Between two operations: what the allocator counts is what there is, and what caches hold.
    #[track_caller]
    pub(crate) fn check(&self, stats: Stats) {
        let account = self.account();
        assert_eq!(stats.runs + stats.mapped, account.large, "{stats:?}");
        // A cache has two lists of each class, and eight are between caches; none is longer than a span.
        let cached = (2 * stats.caches + 8) * self.sizes.len() * SPAN;
        let blocks = account.blocks..=account.blocks + cached;
        assert!(blocks.contains(&stats.blocks), "{stats:?}, and there are {account:?}");
        assert!(stats.spans >= stats.blocks, "{stats:?}");
    }

    /// After a purge, when no cache but the calling thread's may have blocks.
    #[track_caller]
    pub(crate) fn check_purged(&self, stats: Stats) {
        let account = self.account();
        let counted = Account { blocks: stats.blocks, large: stats.runs + stats.mapped };
        assert_eq!(counted, account, "{stats:?}");
        assert_eq!((stats.free_resident, stats.kept), (0, 0), "{stats:?}");
    }
}

fn is_classed(layout: Layout) -> bool {
    layout.size() <= CLASSED && layout.align() <= UNIT
}

/// Frees it.
pub(crate) fn dealloc(block: Block) {
    // SAFETY: the program's, and out of the model.
    unsafe { A.dealloc(block.at, block.layout) };
}

/// Changes its size; `check` is to be called with what comes back.
pub(crate) fn realloc(block: Block, size: usize) -> *mut u8 {
    // SAFETY: the program's, and out of the model; the size is not zero, and far from the limit.
    unsafe { A.realloc(block.at, block.layout, size) }
}

/// The new block of a [`realloc`] has what the old one had.
#[track_caller]
pub(crate) fn check_moved(at: *mut u8, old: Block, size: usize) {
    assert!(!at.is_null(), "no memory for {size} bytes");
    Block { at, ..old }.check(old.layout.size().min(size));
}

/// Allocates; the bytes that were asked for are zero if that was asked for.
pub(crate) fn alloc(layout: Layout, zeroed: bool) -> *mut u8 {
    // SAFETY: the size is not zero.
    unsafe { if zeroed { A.alloc_zeroed(layout) } else { A.alloc(layout) } }
}

#[track_caller]
pub(crate) fn check_zero(at: *mut u8, layout: Layout) {
    assert!(!at.is_null(), "no memory for {layout:?}");
    // SAFETY: a new block of ours, zeroed.
    let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
    assert_eq!(bytes.iter().position(|byte| *byte != 0), None, "{layout:?} at {at:p} is not zero");
}
