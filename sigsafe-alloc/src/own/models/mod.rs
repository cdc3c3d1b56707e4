//! Models of what threads share, by loom: every order in which their accesses can happen, up to a number of preemptions, and every
//! value that the memory model lets a load return. `scripts/models.sh` runs them.
//!
//! What runs is this crate's own code, with loom's atomics ([`atomics`]) and memory of the models' own ([`memory`]) underneath.
//! The blocks and units that a model's threads have are memory that loom watches too, so a missing order shows as well as a second owner.

pub(super) mod atomics;
mod chunks;
mod depot;
mod large;
pub(super) mod memory;
mod spans;
mod stacks;

use std::boxed::Box;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::println;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::chunk;
use super::class::Class;
use super::span::Span;
use super::stack;
use super::verify::{self, Verified};

std::thread_local! {
    /// Whether the threads of a model run one after the other.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` in all its executions. It sets up what its threads share, and has them run [`together`]: only that is explored.
///
/// `LOOM_MAX_PREEMPTIONS` overrides the number of preemptions of an execution.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = builder.max_branches.max(20_000);
    builder.expect_explicit_explore = true;
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let body = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        atomics::start();
        memory::start();
        body();
    });
    atomics::forget();
    // Once in turn, so that the atomics are known.
    IN_TURN.set(true);
    let start = Instant::now();
    let in_turn = body.clone();
    builder.check(move || in_turn());
    IN_TURN.set(false);
    // And again when an execution has failed in which there were others: it may have been for that alone.
    let check = || {
        let body = body.clone();
        builder.check(move || body());
    };
    while let Err(failure) = catch_unwind(AssertUnwindSafe(check)) {
        if !atomics::were_new() {
            resume_unwind(failure);
        }
    }
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions in {:.1?}", start.elapsed());
    assert!(executions > 10, "the threads have hardly met");
}

/// A thread of a model.
type Thread = Box<dyn FnOnce()>;

fn thread(body: impl FnOnce() + 'static) -> Thread {
    Box::new(body)
}

/// Runs the threads to their ends, in the order that this execution explores.
fn together<const N: usize>(threads: [Thread; N]) {
    if IN_TURN.get() {
        threads.into_iter().for_each(|thread| loom::thread::spawn(thread).join().unwrap());
        return;
    }
    loom::explore();
    for thread in threads.map(loom::thread::spawn) {
        thread.join().unwrap();
    }
    loom::stop_exploring();
}

/// The class of blocks of that size, of which a span is to have `capacity`.
fn class(size: usize, capacity: usize) -> Class {
    let class = Class::of_size(size);
    assert_eq!((class.size(), class.capacity()), (size, capacity));
    class
}

/// When all threads are done and all blocks are free: nothing is lost, and nothing is anywhere twice.
fn all_is_back(class: Class) {
    verify::verify_stack(class).unwrap();
    for span in stack::spans(class) {
        verify::verify_span(span, &mut Verified::default()).unwrap();
    }
    let mut left = 64;
    while let Some(span) = stack::pop(class) {
        assert_eq!(span.anchor().count(), span.carved(), "a span has blocks that nobody has");
        span.let_go();
        left -= 1;
        assert!(left != 0, "a stack that does not end");
    }
    for chunk in chunk::all() {
        assert_eq!(chunk.free_units().0, !1, "units that nobody has");
    }
}

/// Frees a block.
fn free(block: *mut u8) {
    memory::gives(block);
    // SAFETY: a block of a span, and the caller's.
    unsafe { super::shared::dealloc(block) };
}

/// A block, from wherever there is one.
fn alloc(class: Class) -> *mut u8 {
    let (block, _) = super::shared::alloc(class);
    assert!(!block.is_null());
    memory::got(block, false);
    block
}

/// A new span, held by the caller, all of whose blocks are out.
fn span_out<const N: usize>(class: Class) -> (&'static Span, [*mut u8; N]) {
    let span = Span::new(class).unwrap();
    let blocks = core::array::from_fn(|_| {
        let block: *mut u8 = span.take_one().unwrap().first.cast();
        memory::got(block, false);
        block
    });
    (span, blocks)
}
