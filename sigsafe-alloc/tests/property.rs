//! Arbitrary programs of allocations, frees, changes of size and purges, on threads that come and go, with handlers that do the same
//! between operations and, on x86_64, at any instruction inside them; checked against a model ([`heap`]) of who has which bytes.
//!
//! `PROPTEST_CASES` sets the number of programs. A failing one is printed in its smallest form and kept with its seed beside this
//! file, to be tried first from then on.

#![cfg(target_os = "linux")]

mod heap;
mod program;
#[cfg(target_arch = "x86_64")]
mod step;

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use heap::{A, Heap};
use program::{Op, Size, Step, Which};
use proptest::prelude::*;
use sigsafe_test_harness::isolate::isolated_within;

/// So many blocks at most: each operation looks at all of them.
const MOST: usize = 2000;

/// Handlers that were to run inside an operation, those that did, and those that found it with the cache in hand.
#[derive(Default)]
struct Counts {
    drawn: AtomicU64,
    ran: AtomicU64,
    in_hand: AtomicU64,
}

/// In memory that the processes of all programs share.
static COUNTS: AtomicPtr<Counts> = AtomicPtr::new(null_mut());

thread_local! {
    // Borrowed only outside of the allocator, where no handler lands.
    static HEAP: RefCell<Heap> = RefCell::default();
    /// So many threads are under way: this one, and those that wait for it to end.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What the next handler does.
    static HANDLER: Cell<Vec<Step>> = const { Cell::new(Vec::new()) };
    /// What has failed in a handler.
    static FAILURE: Cell<Option<Box<dyn Any + Send>>> = const { Cell::new(None) };
}

fn counts() -> &'static Counts {
    // SAFETY: set before the first program, and never unmapped.
    unsafe { &*COUNTS.load(Relaxed) }
}

fn heap<R>(act: impl FnOnce(&mut Heap) -> R) -> R {
    HEAP.with_borrow_mut(act)
}

/// Where a call of the allocator is interrupted, if it is.
#[derive(Copy, Clone)]
enum At {
    Nowhere,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the trap flag is x86_64's"))]
    Boundary(u64),
}

impl At {
    /// One call of the allocator.
    fn call<R>(self, operation: impl FnOnce() -> R) -> R {
        match self {
            At::Nowhere => operation(),
            #[cfg(target_arch = "x86_64")]
            At::Boundary(at) => {
                let (result, stepped) = step::during(at, on_boundary, operation);
                counts().drawn.fetch_add(1, Relaxed);
                counts().ran.fetch_add(stepped.runs, Relaxed);
                counts().in_hand.fetch_add(stepped.inside, Relaxed);
                fail_as_the_handler_did();
                result
            }
            #[cfg(not(target_arch = "x86_64"))]
            At::Boundary(_) => operation(),
        }
    }
}

/// Unwinds no further than to the interrupted code.
fn on_boundary() {
    let steps = HANDLER.take();
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| steps.into_iter().for_each(run))) {
        FAILURE.set(Some(failure));
    }
}

fn fail_as_the_handler_did() {
    if let Some(failure) = FAILURE.take() {
        resume_unwind(failure);
    }
}

extern "C" fn on_user_signal(_: i32) {
    on_boundary();
}

/// Performs an operation. It is a single call of the allocator, or several of which the first is the one to interrupt.
fn perform(op: &Op, at: At) {
    match *op {
        Op::Alloc { size, align, zeroed } => {
            let layout = Layout::from_size_align(size, align).unwrap();
            let block = at.call(|| heap::alloc(layout, zeroed));
            if zeroed {
                heap::check_zero(block, layout);
            }
            heap(|heap| heap.add(block, layout));
        }
        Op::Many { size, count } => {
            let layout = Layout::from_size_align(size, 8).unwrap();
            for index in 0..count.min(MOST.saturating_sub(heap(|heap| heap.len()))) {
                let block = if index == 0 { at } else { At::Nowhere }.call(|| heap::alloc(layout, false));
                heap(|heap| heap.add(block, layout));
            }
        }
        Op::Dealloc(which) => {
            if let Some(block) = heap(|heap| heap.take(which)) {
                at.call(|| heap::dealloc(block));
            }
        }
        Op::DeallocMany { all } => {
            let mut at = at;
            for index in (0..heap(|heap| heap.len())).rev() {
                if (all || index % 2 == 0)
                    && let Some(block) = heap(|heap| heap.take(Which::Numbered(index)))
                {
                    at.call(|| heap::dealloc(block));
                    at = At::Nowhere;
                }
            }
        }
        Op::Realloc { which, size } => {
            if let Some(block) = heap(|heap| heap.take(which)) {
                let size = match size {
                    Size::Bytes(size) => size,
                    // A block that grows again and again does not become the machine's memory.
                    Size::Percent(percent) => (block.layout.size() * percent / 100).clamp(1, 4 << 20),
                };
                let layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                let moved = at.call(|| heap::realloc(block, size));
                heap::check_moved(moved, block, size);
                heap(|heap| heap.add(moved, layout));
            }
        }
        Op::Purge => {
            at.call(|| A.purge());
        }
        Op::Bound(bytes) => at.call(|| A.set_purge_policy(Duration::from_secs(3600), bytes)),
    }
}

/// A handler's step, or one of a thread's that handlers do not see.
fn run(step: Step) {
    match step {
        Step::Op(op) => perform(&op, At::Nowhere),
        Step::Handler(steps) => {
            HANDLER.set(steps);
            // SAFETY: a signal to this thread, which has a handler.
            unsafe { libc::raise(libc::SIGUSR1) };
            fail_as_the_handler_did();
        }
        Step::Inside { op, at, handler } => {
            HANDLER.set(handler);
            perform(&op, At::Boundary(at));
            // It may have had no such boundary.
            HANDLER.take().into_iter().for_each(run);
        }
        Step::Thread(steps) => {
            let (heap, depth) = (HEAP.take(), DEPTH.get() + 1);
            let heap = thread::spawn(move || {
                HEAP.set(heap);
                DEPTH.set(depth);
                steps.into_iter().for_each(quiet_after);
                HEAP.take()
            })
            .join()
            .unwrap_or_else(|failure| resume_unwind(failure));
            HEAP.set(heap);
        }
    }
}

/// A step of a thread's main flow; after it nothing is under way.
fn quiet_after(step: Step) {
    let purged = matches!(step, Step::Op(Op::Purge));
    run(step);
    assert!(!sigsafe_alloc::in_allocator());
    let stats = A.stats();
    heap(|heap| heap.check(stats));
    // The cache of the thread that waits for this one keeps its blocks, and so does a second one that a storm of handlers has left.
    if purged && DEPTH.get() == 1 && stats.caches <= 1 {
        heap(|heap| heap.check_purged(stats));
    }
}

/// Runs the program on a thread of its own, and then frees what is left on another one.
fn run_program(program: Vec<Step>) {
    run(Step::Thread(program));
    A.verify().unwrap();
    let rest = [Op::DeallocMany { all: true }, Op::Bound(256 << 20), Op::Purge];
    run(Step::Thread(rest.map(Step::Op).into()));
    let stats = A.stats();
    assert_eq!((stats.spans, stats.caches), (0, 0), "{stats:?}");
    A.verify().unwrap();
}

/// Runs the program in a process of its own, so that each finds an allocator that nobody has used, and one that has been broken breaks no
/// other. What fails is on stderr. Returns how the process ended: 0 if all was well.
fn end_of(program: Vec<Step>) -> i32 {
    // SAFETY: the child runs on, on this thread alone, and goes no further than this function.
    match unsafe { libc::fork() } {
        0 => {
            // A program that does not end is killed, by the time that it has used and not by that of a machine with other work.
            let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
            // SAFETY: reads the limit.
            unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
            let result = catch_unwind(|| run_program(program));
            // SAFETY: ends the child.
            unsafe { libc::_exit(result.is_err().into()) }
        }
        child => {
            let mut status = 0;
            // SAFETY: our child.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status
        }
    }
}

#[test]
fn programs_with_handlers_between_and_inside_operations_keep_the_heap_whole() {
    let config = ProptestConfig { cases: ProptestConfig::default().cases.max(256), ..ProptestConfig::default() };
    let limit = Duration::from_secs(300 + u64::from(config.cases) / 5);
    isolated_within("programs_with_handlers_between_and_inside_operations_keep_the_heap_whole", limit, || {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANON);
        // SAFETY: new memory; zeroed, it is counts.
        let memory = unsafe { libc::mmap(null_mut(), size_of::<Counts>(), access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        COUNTS.store(memory.cast(), Relaxed);
        #[cfg(target_arch = "x86_64")]
        step::install();
        // SAFETY: a plain handler, which finds this test's own code at work.
        unsafe { libc::signal(libc::SIGUSR1, on_user_signal as *const () as usize) };
        proptest!(config, |(program in program::program())| prop_assert_eq!(end_of(program), 0));
        let [drawn, ran, in_hand] = [&counts().drawn, &counts().ran, &counts().in_hand].map(|count| count.load(Relaxed));
        println!("{drawn} operations to interrupt, {ran} handlers inside, {in_hand} of them with the cache in hand");
        if cfg!(target_arch = "x86_64") {
            assert!(ran * 4 > drawn && in_hand * 10 > ran, "{ran} of {drawn}, {in_hand}");
        }
    });
}
