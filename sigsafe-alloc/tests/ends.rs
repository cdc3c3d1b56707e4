//! A handler at every instruction of a thread's first operation, and of the end that gives its cache back.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;
mod step;

use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use block::{A, Block, KIB, in_a_child, layout};
use sigsafe_alloc::in_allocator;
use sigsafe_alloc::thread_exit::thread_ends;
use sigsafe_core::Signal;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_test_harness::isolate::isolated_within;

/// Without a look at the contents, so that what is stepped through is the allocator.
fn pair(size: usize) {
    let layout = layout(size, 8);
    // SAFETY: our block.
    unsafe {
        let at = A.alloc(layout);
        assert!(!at.is_null());
        A.dealloc(at, layout);
    }
}

fn pairs() {
    drop((Block::new(64), Block::new(1000)));
    pair(300 * KIB);
}

/// Whether a managed signal is on its way.
static SENT: AtomicBool = AtomicBool::new(false);

/// Sends a managed signal, whose handler uses the allocator.
fn sends() {
    SENT.store(true, SeqCst);
    // SAFETY: a signal that has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
}

fn on_managed(_: &Delivery<'_>) {
    if in_allocator() {
        sigsafe_core::fatal(&["a managed handler runs in the middle of an operation"]);
    }
    pairs();
    SENT.store(false, SeqCst);
}

/// A thread that has used a few classes, and has spans to hold and blocks in its lists.
fn uses_some() {
    let mut blocks: Vec<Block> = [24, 64, 3000, 200 * KIB].into_iter().cycle().take(24).map(Block::new).collect();
    blocks.drain(..8).for_each(drop);
    blocks.reverse();
}

/// For a loaded machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs `step` on a thread, with the handler at boundary `at`, or at each of them if that is 0. 1 if there is such a boundary.
fn run(prepare: fn(), step: fn(), handler: fn(), at: u64) -> usize {
    let thread = thread::spawn(move || {
        prepare();
        let ((), stepped) = step::during(at, handler, step);
        pairs();
        stepped
    });
    let stepped = thread.join().unwrap();
    assert!(!SENT.load(SeqCst), "boundary {at}: the signal has not arrived");
    A.verify().unwrap_or_else(|violation| panic!("boundary {at}: {violation}"));
    A.purge();
    let stats = A.stats();
    assert_eq!((stats.caches, stats.blocks, stats.spans, stats.runs, stats.mapped), (0, 0, 0, 0, 0), "boundary {at}");
    usize::from(stepped.runs != 0)
}

/// Runs `step` with the handler at one boundary at a time, every `stride`, or every `SIGSAFE_SWEEP_STRIDE` if that is set, each in a process
/// where nobody has allocated.
fn at_each_boundary(prepare: fn(), step: fn(), handler: fn(), stride: u64) {
    let asked_for = std::env::var("SIGSAFE_SWEEP_STRIDE").ok();
    let stride = asked_for.map_or(stride, |text| text.parse().expect("SIGSAFE_SWEEP_STRIDE is a number")).max(1);
    let mut at = 1;
    while in_a_child(|| run(prepare, step, handler, at)) == 1 {
        at += stride;
    }
    println!("{at} boundaries, one in {stride}");
    assert!(at > 8 * stride);
}

fn first_operation() {
    pair(64);
}

fn end() {
    // SAFETY: the main flow of the thread is in no operation.
    unsafe { thread_ends() };
}

#[test]
fn a_handler_at_every_boundary_of_a_thread_s_first_operation() {
    isolated_within("a_handler_at_every_boundary_of_a_thread_s_first_operation", LIMIT, || {
        step::install();
        assert_eq!(in_a_child(|| run(|| {}, first_operation, pairs, 0)), 1);
        at_each_boundary(|| {}, first_operation, pairs, 29);
    });
}

#[test]
fn a_handler_at_every_boundary_of_a_thread_s_end() {
    isolated_within("a_handler_at_every_boundary_of_a_thread_s_end", LIMIT, || {
        step::install();
        // (At all of them in one run it would never end: where the handler uses the same spans, an exchange fails and is tried again.)
        at_each_boundary(uses_some, end, pairs, 499);
    });
}

#[test]
fn a_managed_handler_at_every_boundary_of_a_thread_s_first_operation_and_end() {
    isolated_within("a_managed_handler_at_every_boundary_of_a_thread_s_first_operation_and_end", LIMIT, || {
        // SAFETY: the handler uses the allocator and an atomic.
        let _registration = unsafe { Handler::new(on_managed).install(Signal::USR1) }.unwrap();
        step::install_blocking();
        at_each_boundary(|| {}, first_operation, sends, 97);
        at_each_boundary(uses_some, end, sends, 997);
    });
}
