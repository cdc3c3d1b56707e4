//! A handler that sigsafe knows nothing of, installed by plain `sigaction`, which allocates while the code that it interrupts does the
//! same: nothing is held back.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, mem, ptr};

use sigsafe_alloc::{SigSafeAlloc, in_allocator};

#[global_allocator]
static ALLOCATOR: SigSafeAlloc = SigSafeAlloc;

static RUNS: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn allocate(signal: libc::c_int) {
    let words: Vec<String> = (0..20).map(|word| format!("{signal} {word}")).collect();
    assert!(words[19].ends_with(" 19"));
    RUNS.fetch_add(1, Ordering::Relaxed);
    INSIDE.fetch_add(in_allocator().into(), Ordering::Relaxed);
}

fn main() -> io::Result<()> {
    // SAFETY: zeroed, a `sigaction` is a valid one.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = allocate as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    let period = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the handler allocates, which it may do anywhere, and touches atomics. The pointers are to live values, and null.
    let failed = unsafe {
        libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) != 0
            || libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut round = 0usize;
    while RUNS.load(Ordering::Relaxed) < 200 {
        round += 1;
        kept.push(black_box(vec![round as u8; round % 4096]));
        if kept.len() == 64 {
            kept.clear();
        }
    }
    let (runs, inside) = (RUNS.load(Ordering::Relaxed), INSIDE.load(Ordering::Relaxed));
    println!("{round} vectors; the handler ran {runs} times, {inside} of them in the middle of an operation on the thread's cache");
    Ok(())
}
