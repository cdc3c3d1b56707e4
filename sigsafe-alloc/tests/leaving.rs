//! Handlers that never return: they leave the allocator in the middle of an operation, as `siglongjmp` does.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod landing;
mod step;

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sigsafe_alloc::{SigSafeAlloc, in_allocator};
use sigsafe_core::Signal;
use sigsafe_core::handler::Handler;
use sigsafe_test_harness::isolate::isolated;
use sigsafe_test_harness::step::child;

use landing::{LEFT, leavable, leave};

static A: SigSafeAlloc = SigSafeAlloc;

/// SIGPROF's, installed by plain `sigaction`: leaves what it finds inside the allocator.
extern "C" fn on_timer(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context of this delivery.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    if in_allocator() && ARMED.swap(0, SeqCst) == 1 {
        leave(context);
    }
}

static ARMED: AtomicU32 = AtomicU32::new(0);
static SEED: AtomicUsize = AtomicUsize::new(1);

/// Allocates and frees until it is left.
extern "C" fn churn() {
    let mut blocks = [(null_mut::<u8>(), Layout::new::<u64>()); 64];
    ARMED.store(1, SeqCst);
    let mut seed = SEED.fetch_add(1, SeqCst);
    loop {
        seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let (block, layout) = &mut blocks[(seed >> 33) % 64];
        if !block.is_null() {
            // SAFETY: our block.
            unsafe { A.dealloc(*block, *layout) };
        }
        *layout = Layout::from_size_align(1 + (seed >> 40) % 3000, 8).unwrap();
        // SAFETY: the size is not zero.
        *block = unsafe { A.alloc(*layout) };
        assert!(!black_box(*block).is_null());
    }
}

fn install_timer() {
    // SAFETY: zero is a value of every field; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_timer as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGPROF, &raw const action, null_mut()), 0);
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer = zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
        let every = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        assert_eq!(libc::timer_settime(timer, 0, &raw const times, null_mut()), 0);
    }
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

fn managed() -> sigsafe_core::handler::Registration {
    // SAFETY: the handler touches an atomic.
    unsafe { Handler::new(|_| HANDLED.store(HANDLED.load(SeqCst) + 1, SeqCst)).install(Signal::USR1) }.unwrap()
}

/// Raises a managed signal and waits for its handler.
#[inline(never)]
fn a_managed_signal_is_delivered(left: u32) {
    let before = HANDLED.load(SeqCst);
    let start = Instant::now();
    // SAFETY: a signal that has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
    while HANDLED.load(SeqCst) == before {
        assert!(start.elapsed() < Duration::from_millis(10), "not delivered after the allocator had been left {left} times");
    }
}

#[test]
fn after_a_thousand_operations_that_were_left_signals_arrive_and_the_cache_is_back() {
    isolated("after_a_thousand_operations_that_were_left_signals_arrive_and_the_cache_is_back", || {
        let _registration = managed();
        step::install();
        let instructions = || step::during(u64::MAX, || {}, || leavable(one_pair)).1.boundaries;
        one_pair();
        let before = instructions();
        install_timer();
        while LEFT.load(SeqCst) < 1000 {
            leavable(churn);
            // No operation has come after the one that was left.
            a_managed_signal_is_delivered(LEFT.load(SeqCst));
        }
        // The path of lists again, to the instruction: the one without a cache is several times as long.
        assert_eq!((0..8).map(|_| instructions()).min(), Some(before));
        assert!(!in_allocator());
        A.verify().unwrap();
        let stats = A.stats();
        println!("{stats:?}");
        // An operation that is left takes its cache with it until the thread ends, and the spans that this holds: 300 KB here, where each
        // uses some fifty classes. The test's own blocks are lost as well.
        let left = LEFT.load(SeqCst) as usize;
        assert!(stats.caches <= left + 1 && stats.spans <= left * (512 << 10), "{stats:?}");
    });
}

extern "C" fn one_pair() {
    let layout = Layout::new::<[u64; 5]>();
    // SAFETY: our block.
    unsafe {
        let block = A.alloc(layout);
        A.dealloc(block, layout);
    }
}

#[test]
fn left_at_every_instruction_of_a_pair() {
    isolated("left_at_every_instruction_of_a_pair", || {
        let _registration = managed();
        step::install();
        one_pair();
        let ((), whole) = step::during(u64::MAX, || {}, || leavable(one_pair));
        for at in 1..=whole.boundaries {
            let ((), stepped) = step::during_and_leave(at, leave, || leavable(one_pair));
            assert_eq!(stepped.runs, 1, "boundary {at}");
            a_managed_signal_is_delivered(at as u32);
            A.verify().unwrap_or_else(|violation| panic!("boundary {at}: {violation}"));
        }
        println!("{} boundaries, left {} times, {:?}", whole.boundaries, LEFT.load(SeqCst), A.stats());
        assert!(u64::from(LEFT.load(SeqCst)) > 30);
    });
}

extern "C" fn purge() {
    A.purge();
}

#[test]
fn a_purge_that_is_left_keeps_no_more_than_a_span_from_the_others() {
    isolated("a_purge_that_is_left_keeps_no_more_than_a_span_from_the_others", || {
        // Eight blocks make a span of four units.
        const SPANS: usize = 80;
        const SPAN: usize = 256 << 10;
        let layout = Layout::from_size_align(32 << 10, 8).unwrap();
        let free = |block: *mut u8| {
            // SAFETY: our block.
            unsafe { A.dealloc(block, layout) };
        };
        // Spans of which one block each is in use, on their stack.
        let spans_in_use = || -> Vec<*mut u8> {
            // SAFETY: the size is not zero.
            let blocks: Vec<_> = (0..8 * SPANS).map(|_| unsafe { A.alloc(layout) }).collect();
            let (kept, freed): (Vec<_>, Vec<_>) = blocks.into_iter().enumerate().partition(|(index, _)| index % 8 == 3);
            freed.into_iter().for_each(|(_, block)| free(block));
            // What lies in the cache goes back to the spans.
            A.purge();
            kept.into_iter().map(|(_, block)| block).collect()
        };
        step::install();
        let kept = spans_in_use();
        let ((), whole) = step::during(u64::MAX, || {}, || leavable(purge));
        kept.into_iter().for_each(free);
        A.purge();
        let mut lost = A.stats().spans / SPAN;
        assert_eq!(lost, 0);
        for at in (1..=whole.boundaries).step_by(1 + whole.boundaries as usize / 30) {
            let kept = spans_in_use();
            step::during_and_leave(at, leave, || leavable(purge));
            kept.into_iter().for_each(free);
            A.purge();
            let now = A.stats().spans / SPAN;
            assert!(now <= lost + 1, "left at boundary {at}: {} spans are lost", now - lost);
            lost = now;
            A.verify().unwrap_or_else(|violation| panic!("boundary {at}: {violation}"));
        }
        println!("left at 30 of {} boundaries: {lost} spans are lost", whole.boundaries);
        assert!(lost > 0, "no boundary between a pop and a push");
    });
}

/// A block of this size, and none of it is left.
fn pair_of(size: usize) {
    let layout = Layout::from_size_align(size, 8).unwrap();
    // SAFETY: our block.
    unsafe {
        let block = A.alloc(layout);
        assert!(!block.is_null());
        A.dealloc(block, layout);
    }
}

const RUN: usize = 300 << 10;

extern "C" fn run() {
    pair_of(RUN);
}

extern "C" fn region() {
    pair_of(3 << 20);
}

extern "C" fn mapping() {
    pair_of(20 << 20);
}

extern "C" fn resized() {
    let layout = Layout::from_size_align(RUN, 8).unwrap();
    // SAFETY: our block.
    unsafe {
        let block = A.alloc_zeroed(layout);
        let block = A.realloc(block, layout, 2 * RUN);
        assert!(!block.is_null());
        A.dealloc(block, Layout::from_size_align(2 * RUN, 8).unwrap());
    }
}

/// Leaves an operation with the cache in hand.
fn leave_one() {
    let marked = A.stats().caches_marked;
    for at in 1.. {
        let ((), stepped) = step::during_and_leave(at, leave, || leavable(one_pair));
        assert_eq!(stepped.runs, 1, "the cache is in hand somewhere");
        if A.stats().caches_marked > marked {
            return;
        }
    }
}

/// Sends SIGUSR1, which arrives as the handler returns.
fn raise_at_return(_: &mut libc::ucontext_t) {
    // SAFETY: zero is a set, which is filled; a signal that has a handler. The handler's return puts the mask back.
    unsafe {
        let mut set = zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut());
        libc::raise(libc::SIGUSR1);
    }
}

/// Nobody comes by the cache that was left: what its mark holds back is let in all the same.
#[test]
fn what_arrives_in_operations_without_the_cache_is_let_in_at_their_ends() {
    isolated("what_arrives_in_operations_without_the_cache_is_let_in_at_their_ends", || {
        let _registration = managed();
        step::install();
        for operation in [run, region, mapping, resized, purge] {
            one_pair();
            operation();
            leave_one();
            let ((), whole) = step::during(u64::MAX, || {}, || operation());
            assert!(whole.boundaries > 30);
            let mut held_back = 0;
            for at in (1..=whole.boundaries.min(700)).step_by(3) {
                let (before, deferrals) = (HANDLED.load(SeqCst), sigsafe_core::deferrals());
                // Memory that has gone back meanwhile is not zeroed: the way may be shorter than the one that was counted.
                let ((), stepped) = step::during_and_leave(at, raise_at_return, || operation());
                assert_eq!(HANDLED.load(SeqCst), before + stepped.runs as u32, "at boundary {at} of {}", whole.boundaries);
                held_back += sigsafe_core::deferrals() - deferrals;
            }
            println!("{} boundaries, {held_back} held back", whole.boundaries);
            assert!(held_back > 10, "the mark was not there");
            // The thread gets another cache.
            while in_allocator() {
                one_pair();
            }
        }
    });
}

/// The first of the blocks that fill a chunk.
static FIRST: AtomicUsize = AtomicUsize::new(0);
const UNIT: usize = 64 << 10;

extern "C" fn free_first() {
    // SAFETY: our block.
    unsafe { A.dealloc(std::ptr::with_exposed_provenance_mut(FIRST.load(SeqCst)), Layout::from_size_align(16 * UNIT, 8).unwrap()) };
}

#[test]
fn a_free_that_is_left_does_not_hide_its_chunk_from_those_that_come_later() {
    isolated("a_free_that_is_left_does_not_hide_its_chunk_from_those_that_come_later", || {
        step::install();
        let layout = |units: usize| Layout::from_size_align(units * UNIT, 8).unwrap();
        // SAFETY: the size is not zero.
        let alloc = |units| unsafe { A.alloc(layout(units)) };
        // All units of the first chunk but its own.
        let blocks = [16, 16, 16, 15].map(alloc);
        assert_eq!(A.stats().chunks, 64 * UNIT);
        FIRST.store(blocks[0].expose_provenance(), SeqCst);
        for at in 1.. {
            // In a child, since what was left may be lost.
            let ended = child::run(|| {
                let ((), stepped) = step::during_and_leave(at, leave, || leavable(free_first));
                // SAFETY: our block.
                unsafe { A.dealloc(blocks[1], layout(16)) };
                alloc(16);
                assert_eq!(A.stats().chunks, 64 * UNIT, "what was freed is not found");
                u8::from(stepped.runs == 0)
            });
            match ended.code() {
                Some(0) => {}
                Some(1) if at > 30 => break,
                _ => panic!("boundary {at}: {ended}"),
            }
        }
    });
}
