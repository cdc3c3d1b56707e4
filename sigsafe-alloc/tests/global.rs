//! `Masked<System>` as the program's global allocator, under signals from a second thread, with a handler that allocates.
//!
//! One test in a process of its own: the whole process allocates through the wrapper. The sender waits for each run before it
//! sends again, and no thread starts or ends while signals fly, because libc's own work there is outside every region.

use std::alloc::System;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use sigsafe_alloc::Masked;
use sigsafe_core::Signal;
use sigsafe_core::handler::{Delivery, Handler};

#[global_allocator]
static ALLOCATOR: Masked<System> = Masked::new(System);

/// Enough that many land inside the allocator: the main flow does little else.
const SIGNALS: u32 = 5_000;

static RUNS: AtomicU32 = AtomicU32::new(0);
static BROKEN: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

fn on_signal(_: &Delivery<'_>) {
    let blocks: Vec<Box<[u8]>> = (1..16_usize).map(|i| vec![i as u8; i * 40].into_boxed_slice()).collect();
    let intact = blocks.iter().zip(1..).all(|(block, i)| block.iter().all(|&byte| byte == i));
    if !intact {
        BROKEN.fetch_add(1, SeqCst);
    }
    drop(blocks);
    RUNS.fetch_add(1, SeqCst);
}

#[test]
fn a_handler_may_use_box_and_vec() {
    // SAFETY: `alarm` has no preconditions; SIGALRM has its default action here and ends a process that hangs.
    unsafe { libc::alarm(120) };
    // SAFETY: the handler allocates through the masked global allocator and touches atomics, nothing else.
    unsafe { Handler::new(on_signal).install(Signal::USR1) }.expect("SIGUSR1 can be handled");
    // SAFETY: `pthread_self` has no preconditions.
    // A number, because musl's type is a pointer.
    let main_flow = unsafe { libc::pthread_self() } as usize;

    let sender = std::thread::spawn(move || {
        for sent in 0..SIGNALS {
            // SAFETY: the thread named by `main_flow` joins this one before it ends.
            assert_eq!(unsafe { libc::pthread_kill(main_flow as libc::pthread_t, libc::SIGUSR1) }, 0);
            while RUNS.load(SeqCst) == sent {
                std::thread::yield_now();
            }
        }
        DONE.store(true, SeqCst);
    });

    let mut live: Vec<Vec<usize>> = Vec::new();
    let mut round = 0_usize;
    while !DONE.load(SeqCst) {
        round += 1;
        if round.is_multiple_of(64) {
            std::thread::yield_now(); // On one processor the sender gets its turn here, not when the time slice ends.
        }
        live.push((0..round % 61 + 1).collect());
        if live.len() > 200 {
            let index = round * 31 % live.len();
            let taken = live.swap_remove(index);
            assert!(taken.iter().enumerate().all(|(i, &word)| i == word), "a block of the main flow was overwritten");
        }
    }
    sender.join().expect("the sender does not panic");
    assert_eq!(RUNS.load(SeqCst), SIGNALS);
    assert_eq!(BROKEN.load(SeqCst), 0);
}
