//! A signal at every instruction of `alloc`, `dealloc` and `realloc`, with an unmanaged handler that allocates, frees and resizes.
//!
//! Each operation runs in every state that has a path of its own: the cache's list empty or full, the spare one there or not, blocks to
//! be had from the span, from another one, from a new one or from a new chunk. Every block is filled, and its bytes are looked at before
//! it is freed, so that a block that two have is seen; after each run `verify` walks the whole heap.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod step;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_test_harness::isolate::isolated_within;

/// Not the program's: only what the test does goes through it.
static A: SigSafeAlloc = SigSafeAlloc;

/// A block with a byte of its own all over.
struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

static MARK: AtomicUsize = AtomicUsize::new(1);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

impl Block {
    fn adopt(at: *mut u8, size: usize) -> Block {
        assert!(!at.is_null(), "no memory for {size} bytes");
        let mark = MARK.fetch_add(1, SeqCst) as u8;
        let block = Block { at, layout: layout(size), mark };
        block.fill();
        block
    }

    fn new(size: usize) -> Block {
        // SAFETY: the size is not zero.
        Block::adopt(unsafe { A.alloc(layout(size)) }, size)
    }

    /// The first and the last bytes are enough: blocks that overlap share one or the other.
    fn ends(&self) -> [(usize, usize); 2] {
        let some = self.layout.size().min(32);
        [(0, some), (self.layout.size() - some, self.layout.size())]
    }

    fn fill(&self) {
        for (from, to) in self.ends() {
            // SAFETY: within our block.
            unsafe { self.at.add(from).write_bytes(self.mark, to - from) };
        }
    }

    fn check(&self) {
        for (from, to) in self.ends() {
            for index in from..to {
                // SAFETY: within our block.
                let byte = unsafe { self.at.add(index).read() };
                if byte != self.mark {
                    sigsafe_core::fatal(&["a block's byte has changed: it has two owners"]);
                }
            }
        }
    }

    fn free(self) {
        self.check();
        // SAFETY: our block.
        unsafe { A.dealloc(self.at, self.layout) };
    }
}

/// What the main flow and the handler give each other. The handler may land anywhere in the main flow's use of the allocator, and nowhere
/// in its use of this.
struct Shared {
    size: usize,
    main_s: Vec<Block>,
    handler_s: Vec<Block>,
}

struct Cell(UnsafeCell<Shared>);
// SAFETY: one thread, and the handler lands outside of every use.
unsafe impl Sync for Cell {}

static SHARED: Cell = Cell(UnsafeCell::new(Shared { size: 64, main_s: Vec::new(), handler_s: Vec::new() }));

fn shared() -> &'static mut Shared {
    // SAFETY: see `Shared`.
    unsafe { &mut *SHARED.0.get() }
}

/// Allocates blocks of the size that is under test and of another, and frees them.
fn allocates() {
    let blocks = [Block::new(shared().size), Block::new(shared().size), Block::new(24)];
    blocks.into_iter().for_each(Block::free);
}

/// Frees a block of the main flow's, and leaves it one to free.
fn exchanges() {
    let shared = shared();
    if let Some(block) = shared.main_s.pop() {
        block.free();
    }
    if shared.handler_s.len() < shared.handler_s.capacity() {
        shared.handler_s.push(Block::new(shared.size));
    }
}

/// Resizes.
fn resizes() {
    let block = Block::new(shared().size);
    let size = 2 * block.layout.size();
    // SAFETY: our block.
    let at = unsafe { A.realloc(block.at, block.layout, size) };
    let block = Block { at, layout: layout(size), mark: block.mark };
    assert!(!at.is_null());
    block.fill();
    block.free();
}

/// Is interrupted by a handler of its own, in the middle of the allocator too.
fn nests() {
    extern "C" fn on_user(_: i32) {
        allocates();
    }
    // SAFETY: a plain handler, then a signal to this thread.
    unsafe {
        libc::signal(libc::SIGUSR2, on_user as *const () as usize);
        let block = Block::new(shared().size);
        libc::raise(libc::SIGUSR2);
        block.free();
    }
}

const HANDLERS: [(&str, fn()); 4] = [("allocates", allocates), ("exchanges", exchanges), ("resizes", resizes), ("nests", nests)];

/// The state before an operation, as blocks that are held until it is over.
type Held = Vec<Block>;

/// A path through the allocator: how to get there, and what is then stepped through.
struct Path {
    name: &'static str,
    size: usize,
    prepare: fn(usize) -> Held,
    operation: fn(usize, &mut Held),
}

fn blocks(size: usize, count: usize) -> Held {
    (0..count).map(|_| Block::new(size)).collect()
}

/// Leaves the list with something in it.
fn warm(size: usize) -> Held {
    blocks(size, 6).drain(3..).for_each(Block::free);
    blocks(size, 1)
}

/// Takes blocks until the list is empty.
fn empty(size: usize) -> Held {
    blocks(size, 300)
}

/// Frees blocks until the list is full, and the spare one is there.
fn full(size: usize) -> Held {
    let mut held = blocks(size, 700);
    held.drain(1..).rev().for_each(Block::free);
    held
}

/// A span's last block is out, and another span is on the stack.
fn spans(size: usize) -> Held {
    let per_span = (64 << 10) / size;
    let mut held = blocks(size, 3 * per_span);
    held.drain(per_span / 2..per_span + per_span / 2).for_each(Block::free);
    held
}

fn nothing(_: usize) -> Held {
    Held::new()
}

fn alloc(size: usize, held: &mut Held) {
    // SAFETY: the size is not zero.
    let at = unsafe { A.alloc(layout(size)) };
    held.push(Block::adopt(at, size));
}

fn alloc_zeroed(size: usize, held: &mut Held) {
    // SAFETY: the size is not zero.
    let at = unsafe { A.alloc_zeroed(layout(size)) };
    assert!(!at.is_null());
    for index in (0..size).step_by(64).chain([size - 1]) {
        // SAFETY: within our block.
        assert_eq!(unsafe { at.add(index).read() }, 0);
    }
    held.push(Block::adopt(at, size));
}

fn dealloc(_: usize, held: &mut Held) {
    let block = held.pop().unwrap();
    // SAFETY: our block.
    unsafe { A.dealloc(block.at, block.layout) };
}

/// So many that the list overflows, or that a span runs dry, on the way.
fn allocs(size: usize, held: &mut Held) {
    for _ in 0..12 {
        alloc(size, held);
    }
}

fn deallocs(size: usize, held: &mut Held) {
    while held.len() > 1 {
        dealloc(size, held);
    }
}

fn realloc(_: usize, held: &mut Held) {
    let block = held.pop().unwrap();
    let size = block.layout.size() + 1 + block.layout.size() / 2;
    // SAFETY: our block.
    let at = unsafe { A.realloc(block.at, block.layout, size) };
    assert!(!at.is_null());
    // SAFETY: the block has them.
    assert_eq!(unsafe { at.read() }, block.mark);
    held.push(Block::adopt(at, size));
}

fn shrink(_: usize, held: &mut Held) {
    let block = held.pop().unwrap();
    let size = block.layout.size() / 2;
    // SAFETY: our block.
    let at = unsafe { A.realloc(block.at, block.layout, size) };
    assert!(!at.is_null());
    held.push(Block::adopt(at, size));
}

/// New chunks are mapped.
fn chunk(_: usize, held: &mut Held) {
    let before = A.stats().chunks;
    while A.stats().chunks == before {
        held.push(Block::new(1 << 20));
    }
}

const KIB: usize = 1024;

#[rustfmt::skip]
const PATHS: &[Path] = &[
    Path { name: "alloc, list",              size: 64,        prepare: warm,    operation: alloc },
    Path { name: "alloc, list empty",        size: 64,        prepare: empty,   operation: alloc },
    Path { name: "alloc, spare list",        size: 48,        prepare: full,    operation: alloc },
    Path { name: "alloc, span on the stack", size: 8 * KIB,   prepare: spans,   operation: allocs },
    Path { name: "alloc, new span",          size: 32 * KIB,  prepare: empty,   operation: allocs },
    Path { name: "alloc, medium",            size: 100 * KIB, prepare: warm,    operation: alloc },
    Path { name: "alloc, run",               size: 300 * KIB, prepare: warm,    operation: alloc },
    Path { name: "alloc, mapping",           size: 1536 * KIB, prepare: nothing, operation: alloc },
    Path { name: "alloc, kept mapping",      size: 1536 * KIB, prepare: warm,   operation: alloc },
    Path { name: "alloc_zeroed, list",       size: 64,        prepare: warm,    operation: alloc_zeroed },
    Path { name: "dealloc, list",            size: 64,        prepare: warm,    operation: dealloc },
    Path { name: "dealloc, list full",       size: 48,        prepare: full,    operation: dealloc },
    Path { name: "dealloc, spans run full",  size: 8 * KIB,   prepare: spans,   operation: deallocs },
    Path { name: "dealloc, medium",          size: 100 * KIB, prepare: warm,    operation: dealloc },
    Path { name: "dealloc, run",             size: 300 * KIB, prepare: warm,    operation: dealloc },
    Path { name: "dealloc, mapping",         size: 1536 * KIB, prepare: warm,   operation: dealloc },
    Path { name: "realloc, to another class", size: 64,       prepare: warm,    operation: realloc },
    Path { name: "realloc, smaller",         size: 4000,      prepare: warm,    operation: shrink },
    Path { name: "realloc, run",             size: 300 * KIB, prepare: warm,    operation: realloc },
    Path { name: "realloc, run to mapping",  size: 900 * KIB, prepare: warm,    operation: realloc },
    Path { name: "realloc, mapping",         size: 1536 * KIB, prepare: warm,   operation: realloc },
    Path { name: "realloc, mapping smaller", size: 4096 * KIB, prepare: warm,   operation: shrink },
];

/// One run: from a prepared state through the operation, with the handler at boundary `at`, or at all if that is 0.
fn run(path: &Path, handler: fn(), at: u64) -> step::Stepped {
    let state = shared();
    state.size = path.size;
    let few = if path.size > 64 * KIB { 4 } else { 64 };
    state.main_s = blocks(path.size, few);
    state.handler_s = Vec::with_capacity(few);
    let mut held = (path.prepare)(path.size);
    // Its own growth is not what is stepped through, and must not be.
    held.reserve(2000);
    let ((), stepped) = step::during(at, handler, || (path.operation)(path.size, &mut held));
    held.iter().for_each(Block::check);
    held.into_iter().for_each(Block::free);
    let state = shared();
    state.main_s.drain(..).for_each(Block::free);
    state.handler_s.drain(..).for_each(Block::free);
    stepped
}

fn verified(what: &str) {
    if let Err(violation) = A.verify() {
        panic!("{what}: {violation}");
    }
}

/// Every how many boundaries: `SIGSAFE_SWEEP_STRIDE`, 1 for all of them.
fn stride(default: u64) -> usize {
    std::env::var("SIGSAFE_SWEEP_STRIDE").ok().map_or(default, |stride| stride.parse().expect("SIGSAFE_SWEEP_STRIDE is a number")) as usize
}

/// For the slowest, at full density on a loaded machine.
const LIMIT: Duration = Duration::from_secs(3600);

#[test]
fn a_handler_at_every_boundary_of_one_run() {
    isolated_within("a_handler_at_every_boundary_of_one_run", LIMIT, || {
        step::install();
        for path in PATHS {
            for (name, handler) in HANDLERS {
                let stepped = run(path, handler, 0);
                verified(&format!("{}, {name}", path.name));
                assert!(stepped.runs >= stepped.boundaries.min(20), "{}: {stepped:?}", path.name);
            }
        }
    });
}

#[test]
fn a_handler_at_one_boundary_at_a_time() {
    isolated_within("a_handler_at_one_boundary_at_a_time", LIMIT, || {
        step::install();
        let (mut sent, mut inside) = (0, 0);
        for path in PATHS {
            let boundaries = run(path, || {}, u64::MAX).boundaries;
            // Long operations, which repeat what they do, get a sample unless all are asked for.
            let stride = stride(1 + boundaries / 8);
            for (name, handler) in HANDLERS {
                let mut inside_here = 0;
                for at in (1..=boundaries).step_by(stride) {
                    let stepped = run(path, handler, at);
                    sent += stepped.runs;
                    inside_here += stepped.inside;
                    if at % 8 == 1 || stride == 1 {
                        verified(&format!("{}, {name} at boundary {at}", path.name));
                    }
                }
                inside += inside_here;
                verified(&format!("{}, {name}", path.name));
            }
            println!("{}: {boundaries} boundaries, every {stride}", path.name);
        }
        println!("{sent} handler runs, {inside} of them while the cache was in hand");
        assert!(inside * 20 > sent, "{inside} of {sent}");
    });
}

#[test]
fn a_new_chunk_at_every_boundary() {
    isolated_within("a_new_chunk_at_every_boundary", LIMIT, || {
        step::install();
        let path = Path { name: "alloc, new chunk", size: 64, prepare: nothing, operation: chunk };
        for (name, handler) in HANDLERS {
            run(&path, handler, 0);
            verified(name);
        }
    });
}

static MANAGED_RUNS: AtomicUsize = AtomicUsize::new(0);
static HELD_BACK: AtomicUsize = AtomicUsize::new(0);

/// Sends a managed signal, which arrives at the boundary.
fn sends() {
    HELD_BACK.fetch_add(usize::from(sigsafe_alloc::in_allocator()), SeqCst);
    // SAFETY: a signal that has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
}

#[test]
fn a_managed_handler_never_runs_while_the_cache_is_in_hand() {
    isolated_within("a_managed_handler_never_runs_while_the_cache_is_in_hand", LIMIT, || {
        fn on_signal(_: &sigsafe_core::handler::Delivery<'_>) {
            MANAGED_RUNS.fetch_add(1, SeqCst);
            if sigsafe_alloc::in_allocator() {
                sigsafe_core::fatal(&["a managed handler runs in the middle of an operation"]);
            }
        }
        // SAFETY: the handler touches atomics.
        let _registration = unsafe { sigsafe_core::handler::Handler::new(on_signal).install(sigsafe_core::Signal::USR1) }.unwrap();
        step::install_blocking();
        for path in PATHS {
            let boundaries = run(path, || {}, u64::MAX).boundaries;
            for at in (1..=boundaries).step_by(stride(1 + boundaries / 60)) {
                let before = MANAGED_RUNS.load(SeqCst);
                let sent = run(path, sends, at).runs as usize;
                assert_eq!(MANAGED_RUNS.load(SeqCst), before + sent, "{} at boundary {at}", path.name);
            }
            verified(path.name);
        }
        assert!(HELD_BACK.load(SeqCst) > 50, "{HELD_BACK:?}");
    });
}
