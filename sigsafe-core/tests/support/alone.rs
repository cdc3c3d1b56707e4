//! A process of its own in which one thread alone takes signals.
//!
//! A test's body runs in a thread beside the test runner's, which waits for it. A signal to the process goes to whichever thread has it
//! unblocked, so the others are made to block everything first: each is sent a signal whose handler edits the mask that its frame restores.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sigsafe_core::Signal;
use sigsafe_test_harness::isolate::{DEFAULT_LIMIT, isolated_death, isolated_within};

use super::{EMULATED, libc_set, send, spin_until};

static DEAF: AtomicUsize = AtomicUsize::new(0);

/// Runs `body` in a process of its own, under the harness's watchdog, as the only thread that takes signals.
#[track_caller]
pub fn alone(test_name: &str, body: impl FnOnce()) {
    alone_within(test_name, DEFAULT_LIMIT, body);
}

/// As [`alone`], with another limit.
#[track_caller]
pub fn alone_within(test_name: &str, limit: Duration, body: impl FnOnce()) {
    isolated_within(test_name, limit, || {
        deafen_others();
        body();
    });
}

/// As [`alone`], for a body that has to die of `signal` after `message` was written.
#[track_caller]
pub fn alone_until_death(test_name: &str, signal: Signal, message: &str, body: impl FnOnce()) {
    isolated_death(test_name, signal.number(), message, || {
        deafen_others();
        body();
    });
}

/// Runs on the other threads: everything that can be blocked is, from the moment that it returns.
extern "C" fn deafen(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: the kernel's frame holds its eight bytes of mask there, and restores them as this returns.
    unsafe { (&raw mut (*context).uc_sigmask).cast::<u64>().write(u64::MAX) };
    DEAF.fetch_add(1, Ordering::Relaxed);
}

fn deafen_others() {
    // Not the last of them: an emulator keeps some for itself.
    let messenger = libc::SIGRTMIN() + 8;
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = deafen as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    action.sa_mask = libc_set(sigsafe_core::SigSet::FULL);
    // SAFETY: the handler touches its frame and an atomic.
    assert_eq!(unsafe { libc::sigaction(messenger, &raw const action, null_mut()) }, 0);
    let tasks = std::fs::read_dir("/proc/self/task").expect("the list of threads");
    let threads = tasks.map(|task| task.unwrap().file_name().into_string().unwrap().parse::<i32>().unwrap());
    let mut others = 0;
    for thread in threads.filter(|thread| *thread != send::thread() && !(EMULATED && is_deaf(*thread))) {
        send::tgkill_to(thread, Signal::new(messenger).unwrap());
        others += 1;
    }
    spin_until(|| DEAF.load(Ordering::Relaxed) == others);
    action.sa_sigaction = libc::SIG_DFL;
    // SAFETY: no handler is installed.
    assert_eq!(unsafe { libc::sigaction(messenger, &raw const action, null_mut()) }, 0);
}

/// Whether the thread has every real-time signal blocked for good, and with them the messenger: an emulator's own threads do. A thread that
/// has libc's own blocked as well is in the middle of `pthread_create`, and will listen.
fn is_deaf(thread: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("a thread that is there");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("its mask");
    let blocked = u64::from_str_radix(blocked.trim(), 16).expect("in hexadecimal");
    blocked >> 33 == u64::MAX >> 33 && blocked & 0b11 << 31 == 0
}
