//! A managed handler that allocates, on top of a global allocator that knows nothing of signals.

use std::sync::atomic::{AtomicUsize, Ordering};

use std::alloc::System;

use sigsafe_alloc::Masked;
use sigsafe_core::handler::{Delivery, Handler, InstallError};
use sigsafe_core::{Signal, deferrals};

#[global_allocator]
static ALLOCATOR: Masked<System> = Masked::new(System);

static RUNS: AtomicUsize = AtomicUsize::new(0);

fn allocate(delivery: &Delivery<'_>) {
    let words: Vec<String> = (0..20).map(|word| format!("{} {word}", delivery.signal())).collect();
    assert_eq!(words[19], "SIGALRM 19");
    RUNS.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), InstallError> {
    // SAFETY: the handler allocates, which is a region here, and touches an atomic.
    let registration = unsafe { Handler::new(allocate).restart(true).install(Signal::ALRM)? };
    let period = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the pointers are to a live value and null.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut round = 0usize;
    while RUNS.load(Ordering::Relaxed) < 200 {
        kept.push(vec![round as u8; round % 500]);
        if round.is_multiple_of(3) {
            kept.swap_remove(round % kept.len());
        }
        if kept.len() > 1000 {
            kept.clear();
        }
        round += 1;
    }
    assert!(kept.iter().all(|bytes| bytes.windows(2).all(|pair| pair[0] == pair[1])));
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: never, it_value: never };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    println!("{} runs of the handler, {} of them held back by an allocation", RUNS.load(Ordering::Relaxed), deferrals());
    registration.remove().expect("nobody has installed another");
    Ok(())
}
