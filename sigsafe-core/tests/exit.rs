//! Threads that this crate has made, and that end in a region with a signal of the process held back: another thread handles it.

mod support;

use std::ffi::c_void;
use std::ptr::null_mut;

use sigsafe_core::{Backend, DeferredCounter, FullSyscall, MaskGuard, SigSet, Signal, mask, thread};
use support::{RT, SENT_FAULT, alone, kernel_mask, log, log_runs, send, spin_until};

/// Of each way in which a signal is held back: requeued, kept with a token, kept and requeued at the exit, kept and dispatched.
const KINDS: [Signal; 4] = [Signal::TERM, RT, SENT_FAULT, Signal::CONT];

/// The life of a thread that never leaves its region: it alone has `signal` unblocked, gets it, and ends.
fn end_in_a_region<B: Backend>(signal: Signal) {
    std::mem::forget(MaskGuard::<B>::new());
    mask::unblock(signal.into());
    send::sigqueue(signal, 5);
    spin_until(|| mask::pending().contains(signal));
    assert_eq!(log::count(), 0, "{signal}: it is held back");
}

unsafe extern "C" fn end_raw_in_a_region(number: *mut c_void) -> *mut c_void {
    end_in_a_region::<DeferredCounter>(Signal::new(number.addr() as i32).expect("the number of a signal"));
    null_mut()
}

/// Runs `thread` while the calling thread has the signal blocked, which then unblocks it.
fn handled_by_this_thread(test_name: &str, thread: impl Fn(Signal)) {
    alone(test_name, || {
        for signal in KINDS {
            log_runs(signal);
            mask::block(signal.into());
            thread(signal);
            assert_eq!(log::count(), 0, "{signal}: the thread has ended, and this one has it blocked");
            mask::unblock(signal.into());
            assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [5], "{signal}");
            assert_eq!((kernel_mask(), mask::pending()), (SigSet::EMPTY, SigSet::EMPTY), "{signal}");
        }
    });
}

#[test]
fn a_signal_deferred_on_a_thread_that_ends_is_handled_by_another() {
    handled_by_this_thread("a_signal_deferred_on_a_thread_that_ends_is_handled_by_another", |signal| {
        thread::spawn(move || end_in_a_region::<DeferredCounter>(signal)).unwrap().join().unwrap();
    });
}

#[test]
fn a_signal_blocked_by_a_region_of_a_thread_that_ends_is_handled_by_another() {
    handled_by_this_thread("a_signal_blocked_by_a_region_of_a_thread_that_ends_is_handled_by_another", |signal| {
        thread::spawn(move || end_in_a_region::<FullSyscall>(signal)).unwrap().join().unwrap();
    });
}

#[test]
fn a_signal_deferred_on_a_raw_thread_that_ends_is_handled_by_another() {
    handled_by_this_thread("a_signal_deferred_on_a_raw_thread_that_ends_is_handled_by_another", |signal| {
        let number = std::ptr::without_provenance_mut(signal.number() as usize);
        // SAFETY: the routine returns, and dereferences nothing.
        let thread = unsafe { thread::spawn_raw(end_raw_in_a_region, number, None) }.unwrap();
        // SAFETY: the thread is joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, null_mut()) }, 0);
    });
}
