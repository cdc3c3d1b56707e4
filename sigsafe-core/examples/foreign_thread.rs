//! A foreign thread: a C library calls back on a thread of its own, whose signal mask is the library's business.
//!
//! While the callback runs, the thread takes faults and the profiler's signal as this program's own threads do, on an alternate stack.
//! What else the library has blocked stays so, and it finds its thread as it left it.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, mask, thread};

static TICKS: AtomicU32 = AtomicU32::new(0);

fn on_tick(_: &Delivery<'_>) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

/// What the library calls.
extern "C" fn callback() {
    println!("before: {}", mask::current());
    let attached = thread::attach().expect("memory for an alternate stack");
    // SAFETY: the call takes no pointer.
    unsafe { libc::raise(libc::SIGPROF) };
    println!("attached: {}, {} tick", mask::current(), TICKS.load(Ordering::Relaxed));
    assert_eq!((mask::current(), TICKS.load(Ordering::Relaxed)), (Signal::IO.into(), 1));
    attached.detach();
    println!("after: {}", mask::current());
    assert_eq!(mask::current(), SigSet::EMPTY.with(Signal::IO).with(Signal::PROF));
}

/// The library's thread.
extern "C" fn library(_: *mut c_void) -> *mut c_void {
    // SAFETY: zero is the empty set, and the pointers are to it and null.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&mut set, libc::SIGIO);
        libc::sigaddset(&mut set, libc::SIGPROF);
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, null_mut());
    }
    callback();
    null_mut()
}

fn main() {
    // SAFETY: the handler touches one atomic.
    let registration = unsafe { Handler::new(on_tick).on_stack(true).install(Signal::PROF) }.expect("SIGPROF can be handled");
    // SAFETY: zero is a value of the type; the routine returns and takes no argument; the thread is joined once.
    unsafe {
        let mut thread: libc::pthread_t = zeroed();
        assert_eq!(libc::pthread_create(&mut thread, null(), library, null_mut()), 0);
        libc::pthread_join(thread, null_mut());
    }
    registration.remove().expect("nobody has replaced it");
}
