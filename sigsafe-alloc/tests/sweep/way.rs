//! Ways through the allocator: how a state is reached, and the one operation that is then stepped through.

use std::alloc::{GlobalAlloc, Layout};
use std::mem::{forget, take};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use sigsafe_test_harness::step::child;

use super::place::on_a_thread;
use crate::block::{A, Block, KIB, MIB, layout};
use Operation::{Alloc, AllocZeroed, Dealloc, Deallocs, Nothing, Purge, Realloc};
use Place::{AfterEnd, Left, Main, Nested, Thread, ThreadEnd};

/// What is stepped through.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Operation {
    Alloc(Layout),
    AllocZeroed(Layout),
    /// The last block that was prepared.
    Dealloc,
    /// The last so many of them.
    Deallocs(usize),
    /// The last one.
    Realloc(usize),
    Purge,
    /// The thread's end.
    Nothing,
}

/// Where the operation runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the process's first thread, whose state is prepared before the fork.
    Main,
    /// In a new thread, which prepares the state itself.
    Thread,
    /// In a handler that has interrupted another operation with the cache in hand.
    Nested,
    /// After an operation that a handler has left with the cache in hand.
    Left,
    /// The thread's destructors.
    ThreadEnd,
    /// In a destructor that runs when the thread's cache has been given back.
    AfterEnd,
}

#[derive(Copy, Clone)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) operation: Operation,
    pub(crate) place: Place,
    pub(crate) prepare: fn() -> Vec<Block>,
    /// The address space is limited to so much more than there is.
    pub(crate) room: Option<usize>,
    /// There is no memory for the operation.
    pub(crate) fails: bool,
}

/// The address space that the operation may use in all; 0 is no limit.
pub(crate) static LIMIT: AtomicUsize = AtomicUsize::new(0);

fn set_limit(bytes: usize) {
    let limit =
        libc::rlimit { rlim_cur: if bytes == 0 { libc::RLIM_INFINITY } else { bytes as libc::rlim_t }, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads the limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

impl Way {
    /// The size that the operation is about.
    pub(crate) fn size(&self) -> usize {
        match self.operation {
            Alloc(layout) | AllocZeroed(layout) => layout.size(),
            Realloc(size) => size,
            _ => 64,
        }
    }

    /// How many of the blocks that were prepared, the last ones, the operation is about.
    pub(crate) fn operands(&self) -> usize {
        match self.operation {
            Dealloc | Realloc(_) => 1,
            Deallocs(count) => count,
            _ => 0,
        }
    }

    /// The operation and nothing else. `held`: what was prepared.
    #[inline(never)]
    pub(crate) fn perform(&self, held: &[Block]) -> *mut u8 {
        let limit = LIMIT.load(SeqCst);
        if limit != 0 {
            set_limit(limit);
        }
        match self.operation {
            // SAFETY: the size is not zero.
            Alloc(layout) => unsafe { A.alloc(layout) },
            // SAFETY: the size is not zero.
            AllocZeroed(layout) => unsafe { A.alloc_zeroed(layout) },
            Dealloc | Deallocs(_) => {
                for block in &held[held.len() - self.operands()..] {
                    // SAFETY: our block.
                    unsafe { A.dealloc(block.at(), block.layout()) };
                }
                null_mut()
            }
            Realloc(size) => {
                let block = &held[held.len() - 1];
                // SAFETY: our block.
                unsafe { A.realloc(block.at(), block.layout(), size) }
            }
            Purge => {
                A.purge();
                null_mut()
            }
            Nothing => null_mut(),
        }
    }

    /// After the operation: what is held now. `alone`: without a handler, which may have used up the last memory.
    pub(crate) fn settle(&self, mut held: Vec<Block>, at: *mut u8, alone: bool) -> Vec<Block> {
        if self.room.is_some() {
            set_limit(0);
        }
        let failed = |at: *mut u8| {
            // A handler may also have freed what the operation then got.
            let may_differ = self.room.is_some() && !alone;
            assert!(at.is_null() == self.fails || may_differ, "{}: {at:?}", self.name);
            at.is_null()
        };
        match self.operation {
            Alloc(layout) | AllocZeroed(layout) if !failed(at) => {
                if let AllocZeroed(_) = self.operation {
                    // SAFETY: our block.
                    let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
                    assert!(bytes.iter().all(|byte| *byte == 0), "{}: not zero", self.name);
                }
                held.extend(Block::adopt(at, layout));
            }
            Realloc(size) if !failed(at) => held.last_mut().unwrap().moved(at, size),
            Dealloc | Deallocs(_) => held.drain(held.len() - self.operands()..).for_each(forget),
            _ => {}
        }
        held
    }
}

/// Runs on a thread of its own, whose cache goes back at its end.
fn elsewhere<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(body).join().unwrap()
}

/// Frees blocks into their spans, past all caches: when the cache of a thread has been given back.
fn into_spans(blocks: Vec<Block>) {
    let mut blocks = Some(blocks);
    on_a_thread(&mut || drop(Block::new(24)), &mut || drop(blocks.take()));
}

fn nothing() -> Vec<Block> {
    Vec::new()
}

/// The thread has a cache.
fn cached() -> Vec<Block> {
    vec![Block::new(24)]
}

/// The class's list has something in it.
fn list<const SIZE: usize>() -> Vec<Block> {
    let mut blocks = Block::many(SIZE, 6);
    drop(blocks.drain(3..));
    blocks
}

/// The first blocks of a class come by the page; all that were carved so far are out.
fn carved<const SIZE: usize>() -> Vec<Block> {
    Block::many(SIZE, (4 * KIB / SIZE).max(1))
}

/// Blocks of the span that the cache holds have been freed by another thread.
fn freed_elsewhere() -> Vec<Block> {
    let mut blocks = carved::<64>();
    let some: Vec<Block> = blocks.drain(10..30).collect();
    into_spans(some);
    blocks
}

/// The list of 128 is empty, the spare one is there.
fn spare() -> Vec<Block> {
    let mut blocks = Block::many(64, 400);
    drop(blocks.drain(100..));
    blocks.extend(Block::many(64, 92));
    blocks
}

/// The list is full. `spare`: and the spare one is there, with blocks of several spans.
fn full(spare: bool) -> Vec<Block> {
    let mut blocks = Block::many(64, 4000);
    // 4000 are 62.5 batches of 64: half a batch is in the list.
    let first = if spare { 128 - 32 + 128 } else { 128 - 32 };
    let step = blocks.len() / first;
    let (some, mut rest): (Vec<_>, Vec<_>) = blocks.drain(..).enumerate().partition(|(index, _)| index % step == 0 && index / step < first);
    drop(some.into_iter().map(|(_, block)| block));
    rest.drain(..).map(|(_, block)| block).collect()
}

/// Spans of eight blocks on the stack, half of each free; that of the cache, if it has one, is full.
fn stacked(held: usize) -> Vec<Block> {
    let mut blocks = Block::many(8 * KIB, held);
    let (freed, others): (Vec<_>, Vec<_>) =
        elsewhere(|| Block::many(8 * KIB, 24)).into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    into_spans(freed.into_iter().map(|(_, block)| block).collect());
    let others = others.into_iter().map(|(_, block)| block);
    blocks.splice(0..0, others);
    blocks
}

/// Spans on the stack that have one block to give each. The handler may free one of the first span's.
fn stacked_with_one() -> Vec<Block> {
    let mut blocks = elsewhere(|| Block::many(8 * KIB, 32));
    let freed: Vec<Block> = (0..4).map(|span| blocks.remove(7 * span + 3)).collect();
    into_spans(freed);
    let unit = |at: *mut u8| at.addr() / (64 * KIB);
    let first = (0..4).find(|span| {
        let expected = unit(blocks[7 * span].at());
        let found = child::run(|| {
            let block = Block::new(8 * KIB);
            let found = unit(block.at()) == expected;
            forget(block);
            u8::from(found)
        });
        found.code() == Some(1)
    });
    blocks.rotate_left(7 * first.expect("a span of these gives a block"));
    blocks.extend(cached());
    blocks
}

/// There are free units that have been written.
fn dirty() -> Vec<Block> {
    let blocks = elsewhere(|| [Block::many(8 * KIB, 24), Block::many(600 * KIB, 2)]);
    blocks.iter().flatten().for_each(Block::soil);
    into_spans(blocks.into_iter().flatten().collect());
    cached()
}

/// Of the chunks that there are, `units` units are free, or none and a new chunk is needed.
fn crowded(units: usize) -> Vec<Block> {
    // Some are of many units, for the handler to free.
    let mut blocks = vec![Block::new(24)];
    blocks.extend(Block::many(RUN, 5));
    let per_unit = 64 / 8;
    let before = A.stats().chunks;
    // How many fit, somebody else finds out.
    let fit = child::run(|| {
        let mut count = 0;
        while A.stats().chunks == before {
            forget(Block::new(8 * KIB));
            count += 1;
        }
        (count / per_unit) as u8
    });
    let fit = fit.code().unwrap() as usize;
    blocks.extend(Block::many(8 * KIB, (fit - units) * per_unit));
    assert_eq!(A.stats().chunks, before);
    blocks
}

/// No unit is free, and there are idle spans of another class on its stack.
fn crowded_and_idle() -> Vec<Block> {
    let mut blocks = cached();
    // Each span's last block is freed when the span lies on the stack.
    let mut rounds = [Vec::new(), Vec::new()];
    for (index, block) in elsewhere(|| Block::many(16 * KIB, 16)).into_iter().enumerate() {
        rounds[usize::from(index % 4 == 3)].push(block);
    }
    // A later thread would need a unit.
    on_a_thread(&mut || blocks.extend(crowded(0)), &mut || rounds.iter_mut().for_each(|round| drop(take(round))));
    assert_eq!(A.stats().chunks, 4 * MIB);
    blocks
}

/// No unit is free, and lists in the depot have all blocks of some spans; or all but one, which is held.
fn crowded_and_left(all: bool) -> Vec<Block> {
    let (left, mut held): (Vec<_>, Vec<_>) =
        Block::many(KIB, 6 * 64).into_iter().enumerate().partition(|(index, _)| all || index % 64 != 0);
    let mut crowd = crowded(0);
    // Those that are freed last stay in the cache.
    drop(left);
    crowd.extend(held.drain(..).map(|(_, block)| block));
    crowd
}

/// And where the next chunk would lie is something else.
fn crowded_in() -> Vec<Block> {
    let blocks = crowded(0);
    const CHUNK: usize = 4 * MIB;
    let below = (blocks[0].at().addr() & !(CHUNK - 1)) - CHUNK;
    // SAFETY: a page that is free, or else this changes nothing.
    unsafe { libc::mmap(below as *mut libc::c_void, 4 * KIB, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) };
    blocks
}

const RUN: usize = 300 * KIB;
/// A run of larger units.
const REGION: usize = 3 * MIB / 2;
const MAPPING: usize = 24 * MIB;

/// A mapping is kept for later.
fn kept<const SIZE: usize>() -> Vec<Block> {
    drop(Block::many(SIZE, 1));
    cached()
}

/// And no chunk has room.
fn crowded_and_kept() -> Vec<Block> {
    let blocks = crowded(0);
    drop(Block::many(48 * MIB, 1));
    blocks
}

/// A block of a region's size, with a mapping of its own: there was no room for a region.
fn outside<const SIZE: usize>() -> Vec<Block> {
    let mut blocks = cached();
    set_limit(address_space() + SIZE + MIB);
    let block = Block::with(layout(SIZE, 8));
    set_limit(0);
    blocks.extend(block);
    assert_eq!(A.stats().mapped, SIZE, "in a mapping");
    blocks
}

/// Units that the system does not take.
fn locked() -> Vec<Block> {
    let (blocks, block) = (cached(), Block::new(RUN));
    // SAFETY: a page of ours.
    assert_eq!(unsafe { libc::mlock(block.at().cast(), 1) }, 0);
    drop(block);
    blocks
}

/// Another thread's blocks; this one has a cache, which goes back at its end.
fn another_s<const SIZE: usize, const COUNT: usize>() -> Vec<Block> {
    drop(cached());
    elsewhere(|| Block::many(SIZE, COUNT))
}

fn one<const SIZE: usize>() -> Vec<Block> {
    Block::many(SIZE, 1)
}

/// As many are kept of the size as may be.
fn kept_full() -> Vec<Block> {
    let mut blocks = Block::many(MAPPING, 5);
    drop(blocks.drain(..4));
    blocks
}

/// Nothing is kept for later.
fn keeps_nothing<const SIZE: usize>() -> Vec<Block> {
    A.set_purge_policy(Duration::from_secs(3600), 0);
    one::<SIZE>()
}

/// All that is free goes back with one of the next sixteen blocks.
fn due() -> Vec<Block> {
    A.set_purge_policy(Duration::ZERO, 1 << 30);
    drop(Block::many(RUN, 40));
    Block::many(RUN, 16)
}

/// Nine of ten spans on the stack lie idle, and with the last block another one will.
fn idle_spans() -> Vec<Block> {
    const SPANS: usize = 12;
    let blocks = elsewhere(|| Block::many(8 * KIB, SPANS * 8));
    let mut rounds: Vec<Vec<Block>> = (0..8).map(|_| Vec::new()).collect();
    for (index, block) in blocks.into_iter().enumerate() {
        rounds[index % 8].push(block);
    }
    let last = rounds.pop().unwrap();
    for round in rounds {
        into_spans(round);
    }
    last
}

/// A bit of everything in the cache, and something for a purge elsewhere.
fn everything() -> Vec<Block> {
    let sizes = [64, 5000, 200 * KIB];
    for size in sizes {
        drop(Block::many(size, 10));
    }
    drop(idle_spans());
    kept::<MAPPING>();
    drop(Block::many(RUN, 2));
    drop(Block::many(REGION, 2));
    sizes.map(Block::new).into()
}

const fn way(name: &'static str, operation: Operation, prepare: fn() -> Vec<Block>) -> Way {
    Way { name, operation, place: Main, prepare, room: None, fails: false }
}

const fn at(place: Place, way: Way) -> Way {
    Way { place, ..way }
}

/// With so much address space left.
const fn within(room: usize, fails: bool, way: Way) -> Way {
    Way { room: Some(room), fails, ..way }
}

const fn alloc(size: usize) -> Operation {
    Alloc(aligned(size, 8))
}

const fn zeroed(size: usize) -> Operation {
    AllocZeroed(aligned(size, 8))
}

const fn aligned(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a layout"),
    }
}

/// Blocks of a class: the cache's lists, and the span that it holds.
#[rustfmt::skip]
pub(crate) const CACHE: &[Way] = &[
    way("alloc, list",                          alloc(64),               list::<64>),
    way("alloc, carved",                        alloc(64),               carved::<64>),
    way("alloc, freed elsewhere",               alloc(64),               freed_elsewhere),
    way("alloc, spare list",                    alloc(64),               spare),
    way("alloc, medium",                        alloc(100 * KIB),        list::<{ 100 * KIB }>),
    way("alloc, aligned",                       Alloc(aligned(5000, 4096)), list::<64>),
    way("alloc_zeroed, list",                   zeroed(64),              list::<64>),
    way("alloc_zeroed, medium, carved",         zeroed(50 * KIB),        carved::<{ 50 * KIB }>),
    way("dealloc, list",                        Dealloc,                 list::<64>),
    way("dealloc, list full",                   Dealloc,                 || full(false)),
    way("dealloc, spare list full",             Dealloc,                 || full(true)),
    way("dealloc, medium",                      Dealloc,                 list::<{ 100 * KIB }>),
    way("dealloc, aligned",                     Dealloc,                 || Vec::from_iter(Block::with(aligned(5000, 4096)))),
    way("dealloc, the largest of a class",      Deallocs(3),             || Block::many(256 * KIB, 3)),
    way("realloc, in its class",                Realloc(63),             list::<60>),
    way("realloc, to another class",            Realloc(90),             list::<64>),
    way("realloc, smaller",                     Realloc(500),            list::<700>),
];

/// Blocks of a class: spans, their stack, and the chunks that they come from.
#[rustfmt::skip]
pub(crate) const SPANS: &[Way] = &[
    way("alloc, span of the stack",             alloc(8 * KIB),          || stacked(0)),
    way("alloc, spans with a block each",       alloc(8 * KIB),          stacked_with_one),
    way("alloc, after a span of one's own",     alloc(8 * KIB),          || stacked(8)),
    way("alloc, new span",                      alloc(8 * KIB),          cached),
    way("alloc, new span of several units",     alloc(100 * KIB),        cached),
    way("alloc, new span, written before",      alloc(8 * KIB),          dirty),
    way("alloc_zeroed, new span",               zeroed(64 * KIB),        cached),
    way("alloc_zeroed, new span, written",      zeroed(64 * KIB),        dirty),
    way("alloc, last unit",                     alloc(400),              || crowded(1)),
    way("alloc, idle spans elsewhere",          alloc(20 * KIB),         crowded_and_idle),
    way("alloc, new chunk",                     alloc(20 * KIB),         || crowded(0)),
    way("alloc, new chunk, not where expected", alloc(20 * KIB),         crowded_in),
    within(1, true, way("alloc, no memory",     alloc(20 * KIB),         || crowded(0))),
    within(MIB, false, way("alloc, no memory but what is kept", alloc(20 * KIB), crowded_and_kept)),
    within(1, false, way("alloc, no memory but in lists that were left", alloc(4 * KIB), || crowded_and_left(true))),
    way("dealloc, into a full chunk",           Dealloc,                 || { let mut blocks = crowded(0); let last = blocks.len() - 1; blocks.swap(2, last); blocks }),
    way("dealloc, idle spans",                  Deallocs(2),             idle_spans),
    way("purge",                                Purge,                   everything),
    at(Thread, way("purge, locked memory",      Purge,                   locked)),
];

/// Without a cache: in handlers in the middle of an operation, in a thread's first operation, at its end, and after.
#[rustfmt::skip]
pub(crate) const NO_CACHE: &[Way] = &[
    way("alloc, first of the process",                        alloc(64),        nothing),
    at(Thread, way("alloc, first of a thread",                alloc(64),        nothing)),
    at(Thread, way("dealloc, first of a thread",              Dealloc,          || elsewhere(|| Block::many(64, 1)))),
    at(ThreadEnd, way("a thread's end",                       Nothing,          everything)),
    at(AfterEnd, way("alloc, after the thread's end",         alloc(8 * KIB),   || stacked(8))),
    at(AfterEnd, way("alloc, after the thread's end, new span", alloc(40 * KIB), cached)),
    at(AfterEnd, way("alloc_zeroed, after the thread's end",  zeroed(40 * KIB), cached)),
    at(AfterEnd, way("dealloc, after the thread's end",       Dealloc,          || stacked(8))),
    at(AfterEnd, way("dealloc, after the thread's end, span full", Dealloc,     another_s::<{ 8 * KIB }, 8>)),
    at(AfterEnd, way("dealloc, after the thread's end, a span's last", Dealloc, another_s::<{ 256 * KIB }, 1>)),
    at(Nested, way("alloc, nested",                           alloc(8 * KIB),   || stacked(8))),
    within(1, false, at(Nested, way("alloc, nested, no memory but in lists", alloc(KIB), || crowded_and_left(false)))),
    at(Nested, way("alloc, nested, new span",                 alloc(40 * KIB),  cached)),
    at(Nested, way("dealloc, nested",                         Dealloc,          list::<64>)),
    at(Nested, way("realloc, nested",                         Realloc(90),      list::<64>)),
    at(Left, way("alloc, after an operation that was left",   alloc(64),        list::<64>)),
    at(Left, way("dealloc, after an operation that was left", Dealloc,          list::<64>)),
    at(Left, way("alloc, run, after an operation that was left", alloc(RUN),    cached)),
    at(Left, way("purge, after an operation that was left",   Purge,            list::<64>)),
    at(Nested, way("purge, nested",                           Purge,            || vec![Block::new(64), Block::new(RUN)])),
];

/// Blocks without a class: runs of units and mappings.
#[rustfmt::skip]
pub(crate) const LARGE: &[Way] = &[
    way("alloc, run",                           alloc(RUN),              cached),
    way("alloc, run, written before",           alloc(RUN),              dirty),
    way("alloc, run of a region",               alloc(REGION),           cached),
    way("dealloc, run of a region",             Dealloc,                 one::<REGION>),
    way("realloc, run of a region, longer",     Realloc(2 * REGION),     one::<REGION>),
    way("realloc, run of a region, shorter",    Realloc(REGION),         one::<{ 2 * REGION }>),
    within(3 * MIB, false, way("alloc, no room for a region", alloc(REGION), cached)),
    within(1, true, way("alloc, no memory for a region", alloc(REGION), cached)),
    within(MIB, false, way("alloc, no memory for a region but what is kept", alloc(REGION), kept::<{ 60 * MIB }>)),
    way("dealloc, beside regions",              Dealloc,                 outside::<REGION>),
    way("realloc, beside regions, longer",      Realloc(2 * MIB),        outside::<REGION>),
    way("realloc, beside regions, shorter",     Realloc(REGION),         outside::<{ 2 * MIB }>),
    way("realloc, run to a region",             Realloc(REGION),         one::<RUN>),
    way("alloc, mapping",                       alloc(MAPPING),          cached),
    way("alloc, kept mapping",                  alloc(MAPPING),          kept::<MAPPING>),
    way("alloc, kept mapping, longer",          alloc(MAPPING),          kept::<{ 32 * MIB }>),
    way("alloc, kept mapping, shorter",         alloc(32 * MIB),          kept::<MAPPING>),
    way("alloc, mapping too large to keep",     alloc(80 * MIB),         cached),
    way("alloc, mapping, aligned",              Alloc(aligned(MAPPING, MIB)), cached),
    within(1, true, way("alloc, mapping, no memory", alloc(MAPPING),     cached)),
    within(MIB, false, way("alloc, mapping, no memory but what is kept", alloc(20 * MIB), kept::<{ 60 * MIB }>)),
    within(1, true, way("alloc, kept mapping, no memory for the rest", alloc(32 * MIB), kept::<MAPPING>)),
    way("alloc_zeroed, run",                    zeroed(RUN),             cached),
    way("alloc_zeroed, run, written before",    zeroed(RUN),             dirty),
    way("alloc_zeroed, kept mapping",           zeroed(MAPPING),         kept::<MAPPING>),
    way("dealloc, run",                         Dealloc,                 one::<RUN>),
    way("dealloc, run, more than is kept",      Dealloc,                 keeps_nothing::<RUN>),
    way("dealloc, what is kept is due",         Deallocs(16),            due),
    way("dealloc, mapping",                     Dealloc,                 one::<MAPPING>),
    way("dealloc, mapping, all places taken",   Dealloc,                 kept_full),
    way("dealloc, mapping, more than is kept",  Dealloc,                 keeps_nothing::<MAPPING>),
    way("dealloc, mapping too large to keep",   Dealloc,                 one::<{ 80 * MIB }>),
    way("realloc, run, in its units",           Realloc(RUN + KIB),      one::<RUN>),
    way("realloc, run, longer where it is",     Realloc(500 * KIB),      one::<RUN>),
    way("realloc, run, longer elsewhere",       Realloc(500 * KIB),      || { let mut two = Block::many(RUN, 2); two.swap(0, 1); two }),
    way("realloc, run, shorter",                Realloc(270 * KIB),      one::<{ 600 * KIB }>),
    way("realloc, run to class",                Realloc(100),            one::<RUN>),
    way("realloc, class to run",                Realloc(RUN),            one::<100>),
    way("realloc, region to mapping",           Realloc(MAPPING),        one::<REGION>),
    way("realloc, mapping, as it is",           Realloc(MAPPING - KIB),  one::<{ MAPPING - 9 * KIB }>),
    way("realloc, mapping, longer",             Realloc(2 * MAPPING),    one::<MAPPING>),
    way("realloc, mapping, longer, one is kept", Realloc(2 * MAPPING),   || { kept::<{ 2 * MAPPING }>(); one::<MAPPING>() }),
    way("realloc, mapping, shorter",            Realloc(MAPPING),        one::<{ 2 * MAPPING }>),
];

/// All ways.
pub(crate) fn all() -> impl Iterator<Item = &'static Way> {
    [CACHE, SPANS, NO_CACHE, LARGE].into_iter().flatten()
}

/// Says what the operation's limit is, if it has one: after the last call that may need memory itself.
pub(crate) fn limit(way: &Way) {
    let Some(room) = way.room else { return };
    LIMIT.store(if room == 1 { 1 } else { address_space() + room }, SeqCst);
}

/// How much the process has of it, in bytes.
fn address_space() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4 * KIB
}

/// An operation for handlers to interrupt with the cache in hand, or to leave.
pub(crate) extern "C" fn outer() {
    let layout = layout(64, 8);
    // SAFETY: our block.
    unsafe {
        let block = A.alloc(layout);
        A.dealloc(block, layout);
    }
}
