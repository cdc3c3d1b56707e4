//! A sampling profiler whose handler allocates: each tick of SIGPROF makes a record on the heap, of the place that the tick interrupted.
//!
//! The program that it profiles spends nearly all of its time in critical regions, so that nearly every tick is held back until a
//! region ends. The handler learns where the tick arrived all the same, by [`Delivery::program_counter`]: the samples lie in the loop
//! that burns the time, not at the end of the region around it.
//!
//! ```sh
//! cargo run -p sigsafe-alloc --example profiler
//! ```
//!
//! A profiler that must see inside its own handler's allocator would register its handler as immediate, and could then not
//! allocate, unless the program's allocator is `SigSafeAlloc`.

use std::alloc::System;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use sigsafe_alloc::Masked;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{Signal, critical};

/// What makes the heap usable in the handler: each call of the system's allocator is a critical region.
#[global_allocator]
static ALLOCATOR: Masked<System> = Masked::new(System);

/// Where a tick arrived.
struct Sample {
    /// `None` if that is not known: the tick waited in the kernel while another signal was held back.
    place: Option<usize>,
    deferred: bool,
    next: *mut Sample,
}

/// All samples, the latest first. Handlers of one signal do not interrupt each other, and one thread alone takes samples.
static SAMPLES: AtomicPtr<Sample> = AtomicPtr::new(null_mut());
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn take_sample(delivery: &Delivery<'_>) {
    let next = SAMPLES.load(Ordering::Relaxed);
    let sample = Box::new(Sample { place: delivery.program_counter(), deferred: delivery.was_deferred(), next });
    SAMPLES.store(Box::into_raw(sample), Ordering::Relaxed);
    TAKEN.fetch_add(1, Ordering::Relaxed);
}

/// A thousand ticks a second of this process's processor time, or as many as the kernel's clock has.
fn set_timer(interval_us: i64) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval_us };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the pointers are to a live value and null.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, null_mut()) }, 0);
}

/// Burns time: the longest sequence of Collatz among the first `count` numbers. In a section of its own, so that its bounds are known.
#[inline(never)]
#[unsafe(link_section = "profiled_code")]
fn hot_loop(count: u64) -> u64 {
    let mut longest = 0;
    let mut first = 1;
    while first < count {
        let mut number = first;
        let mut length = 0;
        while number != 1 {
            // Without a branch into the library: no overflow check, no division.
            number = if number & 1 == 0 { number >> 1 } else { (number << 1).wrapping_add(number).wrapping_add(1) };
            length += 1;
        }
        longest = if length > longest { length } else { longest };
        first += 1;
    }
    longest
}

unsafe extern "C" {
    // The linker's names for the bounds of the section.
    #[link_name = "__start_profiled_code"]
    static FIRST: u8;
    #[link_name = "__stop_profiled_code"]
    static END: u8;
}

fn is_hot(place: usize) -> bool {
    ((&raw const FIRST).addr()..(&raw const END).addr()).contains(&place)
}

fn main() {
    // SAFETY: the handler allocates, which `Masked` makes safe in a managed handler, and touches atomics.
    unsafe { Handler::new(take_sample).restart(true).install(Signal::PROF) }.expect("SIGPROF can be caught");
    set_timer(1000);
    while TAKEN.load(Ordering::Relaxed) < 200 {
        // The main flow allocates too. A tick in here, or in a region, waits for its end.
        let numbers: Vec<u64> = (0..8).map(|_| critical(|_| hot_loop(black_box(2000)))).collect();
        black_box(numbers);
    }
    set_timer(0);

    // SAFETY: the timer is off, and every sample was a box that nobody else has.
    let mut list = SAMPLES.swap(null_mut(), Ordering::Relaxed);
    let mut counts = [[0; 3]; 2];
    while !list.is_null() {
        // SAFETY: as above; each is taken out of the list once.
        let sample = unsafe { Box::from_raw(list) };
        let place = match sample.place {
            Some(place) if is_hot(place) => 0,
            Some(_) => 1,
            None => 2,
        };
        counts[usize::from(sample.deferred)][place] += 1;
        list = sample.next;
    }
    println!("{:<10} {:>8} {:>9} {:>7}", "samples", "hot loop", "elsewhere", "unknown");
    for (name, [hot, elsewhere, unknown]) in ["at once", "deferred"].into_iter().zip(counts) {
        println!("{name:<10} {hot:>8} {elsewhere:>9} {unknown:>7}");
    }
}
