//! Thread creation under a storm of SIGPROF: no handler runs on a new thread before its alternate stack and its mask are in place.
//!
//! SIGPROF comes to new threads from their first instruction on: another thread of the process keeps sending it to the thread ids that
//! the kernel is about to give out, and the creator sends it as soon as it has made one, which with one processor is before that thread
//! has run. An interval timer adds what profilers do. The handler, which runs on every thread, checks where
//! it runs and what it has interrupted.

mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::thread::{self, AltStack};
use sigsafe_core::{SigSet, Signal};
use support::stack::{Setting, here};
use support::{EMULATED, alone, kernel_mask, manage, raw_mask, send};

/// An emulator takes tens of seconds for as many.
const CREATIONS: usize = if EMULATED { 2000 } else { 10_000 };

/// What the creator has blocked, and with it every thread.
const MASK: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::USR2);

static CREATOR: AtomicI32 = AtomicI32::new(0);
static LAST_CHILD: AtomicI32 = AtomicI32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static RUNS: AtomicUsize = AtomicUsize::new(0);
static OFF_STACK: AtomicUsize = AtomicUsize::new(0);
static WRONG_MASK: AtomicUsize = AtomicUsize::new(0);

fn check(delivery: &Delivery<'_>) {
    if send::thread() != CREATOR.load(Ordering::Relaxed) {
        RUNS.fetch_add(1, Ordering::Relaxed);
    }
    let stack = Setting::current();
    if !stack.range().contains(&here()) || stack.bytes < AltStack::DEFAULT_ROOM {
        OFF_STACK.fetch_add(1, Ordering::Relaxed);
    }
    let context = delivery.ucontext().unwrap();
    // SAFETY: the kernel's frame holds its eight bytes of mask there.
    let interrupted = unsafe { (&raw const (*context.as_ptr()).uc_sigmask).cast::<u64>().read() };
    if SigSet::from_bits(interrupted) != MASK || kernel_mask() != MASK.with(Signal::PROF) {
        WRONG_MASK.fetch_add(1, Ordering::Relaxed);
    }
}

/// What each new thread does: it stays for a moment, so that the storm reaches it.
fn live() {
    LAST_CHILD.store(send::thread(), Ordering::Relaxed);
    for _ in 0..200 {
        std::hint::spin_loop();
    }
}

/// Sends to the ids that follow that of the last thread which has run. Those that are nobody's, or another process's, are refused by the
/// kernel.
fn send_to_newest() {
    let process = send::process();
    let last = LAST_CHILD.load(Ordering::Relaxed);
    for thread in last + 1..last + 33 {
        // SAFETY: the call takes no pointer.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) };
    }
}

/// The sender's loop.
fn send_to_new_threads() {
    while !STOP.load(Ordering::Relaxed) {
        send_to_newest();
    }
}

/// `create` makes a thread, sends to it, and waits for its end.
fn storm(create: impl Fn()) {
    manage(Handler::new(check).on_stack(true).restart(true), Signal::PROF);
    raw_mask(libc::SIG_SETMASK, MASK.with(Signal::PROF));
    CREATOR.store(send::thread(), Ordering::Relaxed);
    LAST_CHILD.store(send::thread(), Ordering::Relaxed);
    // It inherits SIGPROF blocked.
    let sender = std::thread::spawn(send_to_new_threads);
    // The creator takes the storm too, with the mask that its threads are to have.
    let init = thread::init(MASK).unwrap();
    let tick = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let ticking = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: the pointers are to a live value and null.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const ticking, null_mut()) }, 0);
    for _ in 0..CREATIONS {
        create();
        if OFF_STACK.load(Ordering::Relaxed) + WRONG_MASK.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    STOP.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    drop(init);
    let (runs, off_stack, wrong_mask) =
        (RUNS.load(Ordering::Relaxed), OFF_STACK.load(Ordering::Relaxed), WRONG_MASK.load(Ordering::Relaxed));
    println!("{runs} handler runs on new threads");
    assert_eq!((off_stack, wrong_mask), (0, 0), "handler runs off the alternate stack, and with another mask");
    // Otherwise there was no storm.
    assert!(runs > 100, "{runs} handler runs on new threads");
}

#[test]
fn no_handler_runs_on_a_new_thread_before_its_stack_and_mask_are_in_place() {
    alone("no_handler_runs_on_a_new_thread_before_its_stack_and_mask_are_in_place", || {
        storm(|| {
            let thread = thread::spawn(live).unwrap();
            send_to_newest();
            thread.join().unwrap();
        });
    });
}

#[test]
fn no_handler_runs_on_a_new_raw_thread_before_its_stack_and_mask_are_in_place() {
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        live();
        null_mut()
    }

    alone("no_handler_runs_on_a_new_raw_thread_before_its_stack_and_mask_are_in_place", || {
        storm(|| {
            // SAFETY: the routine returns and takes no argument.
            let thread = unsafe { thread::spawn_raw(start, null_mut(), None) }.unwrap();
            send_to_newest();
            // SAFETY: joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, null_mut()) }, 0);
        });
    });
}
