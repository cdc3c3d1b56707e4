//! A thread that waits for a lock and is about to run a handler has another waiter woken in its place.

use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{Signal, Waiting};
use sigsafe_test_harness::isolate::{isolated, isolated_within};

static WORD: AtomicU32 = AtomicU32::new(1);
static SLEEPER: AtomicI32 = AtomicI32::new(0);
static WOKEN: AtomicBool = AtomicBool::new(false);

/// Parks once, until a wake comes: the word never changes.
fn sleep_on_word() {
    // SAFETY: asks for this thread's number.
    SLEEPER.store(unsafe { libc::gettid() }, SeqCst);
    // SAFETY: FUTEX_WAIT reads the static word.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, WORD.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 1, null::<libc::timespec>()) };
    assert_eq!(result, 0);
    WOKEN.store(true, SeqCst);
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn sleeps() -> bool {
    let state = std::fs::read_to_string(format!("/proc/self/task/{}/stat", SLEEPER.load(SeqCst))).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// A handler that waits, as for another lock, for the very thread whose wake the interrupted code has had.
fn on_usr1(_: &Delivery<'_>) {
    until(|| WOKEN.load(SeqCst));
}

#[test]
fn a_wake_is_passed_on_before_a_handler_runs() {
    isolated_within("a_wake_is_passed_on_before_a_handler_runs", Duration::from_secs(10), || {
        // SAFETY: the handler reads an atomic and yields.
        unsafe { Handler::new(on_usr1).install(Signal::USR1).unwrap() };
        let sleeper = thread::spawn(sleep_on_word);
        until(|| SLEEPER.load(SeqCst) != 0 && sleeps());
        // As a lock does it: this thread has been woken and has not tried again.
        let waiting = Waiting::announce(&WORD);
        // SAFETY: sends a signal that has a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        drop(waiting);
        sleeper.join().unwrap();
    });
}

#[test]
fn a_second_wait_passes_on_the_first_one() {
    isolated("a_second_wait_passes_on_the_first_one", || {
        let sleeper = thread::spawn(sleep_on_word);
        until(|| SLEEPER.load(SeqCst) != 0 && sleeps());
        let other = AtomicU32::new(0);
        let outer = Waiting::announce(&WORD);
        // As in a handler that nobody manages.
        let inner = Waiting::announce(&other);
        until(|| WOKEN.load(SeqCst));
        drop(inner);
        drop(outer);
        sleeper.join().unwrap();
    });
}
