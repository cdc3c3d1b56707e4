//! A signal at every instruction at which the child of a fork finds out that a region's captured signal is its parent's: the signal is
//! not the child's, and one that is sent to the child meanwhile is.
//!
//! Each boundary is met in a child of its own.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;

use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{MaskGuard, Signal, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::Stop;
use step::watch::Tally;
use support::{expect_success, fork_child, reap};

const LIMIT: Duration = Duration::from_secs(600);

static HANDLED: AtomicU32 = AtomicU32::new(0);

fn handle(_: &Delivery<'_>) {
    HANDLED.fetch_add(1, SeqCst);
}

/// The boundaries of the operation: what a child finds out for its parent.
#[repr(C)]
struct Found {
    count: usize,
    stops: [Stop; 1000],
}

/// Looks at what waits, and so at the slots.
fn look() {
    mask::pending();
}

#[test]
fn a_signal_of_the_child_s_own_is_not_dropped_with_its_parent_s() {
    isolated_within("a_signal_of_the_child_s_own_is_not_dropped_with_its_parent_s", LIMIT, || {
        step::prepare();
        let parent_s = Signal::real_time(3).unwrap();
        // A fault that somebody sends is captured too, and never blocked.
        for signal in [parent_s, Signal::SEGV, Signal::USR1] {
            // SAFETY: the handler touches an atomic.
            unsafe { Handler::new(handle).install(signal).unwrap() };
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, zeroed, which children share.
        let found: &mut Found =
            unsafe { &mut *libc::mmap(null_mut(), size_of::<Found>(), access, libc::MAP_SHARED | libc::MAP_ANON, -1, 0).cast() };
        step::learn(None, &mut look);
        let mut guard: Option<MaskGuard> = Some(MaskGuard::new());
        step::send(parent_s.number());
        expect_success(fork_child(|| {
            let stops = step::learn(None, &mut look).stops();
            found.count = stops.len();
            found.stops[..stops.len()].copy_from_slice(&stops);
        }));
        assert!(found.count > 20);
        let mut tally = Tally::new();
        for (at, stop) in found.stops[..found.count].iter().enumerate() {
            let status = reap(fork_child(|| {
                assert!(step::run(&[(*stop, libc::SIGSEGV)], &mut look), "not met");
                drop(guard.take());
                // What was handled is the child's own.
                assert_eq!(HANDLED.load(SeqCst), 1);
            }));
            tally.add(status != 0, || format!("status {status:#x}, at {at} of {}", found.count));
        }
        tally.conclude();
    });
}
