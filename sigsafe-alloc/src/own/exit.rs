//! How the end of a thread is noticed.

use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::thread;

/// Asks that the calling thread's cache be given back at its end, by [`thread_ends`]. `false` when that is not possible (yet): then the
/// thread works without a cache.
///
/// Called in any context, by the first operation of the thread; may be called again.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub(super) fn arm() -> bool {
    match KEY.load(Ordering::Acquire) {
        0 => false,
        // SAFETY: the key exists and is never deleted; its value says no more than that there is one.
        key => unsafe { libc::pthread_setspecific((key - 1) as libc::pthread_key_t, (&raw const KEY).cast()) == 0 },
    }
}

/// The key and one, or 0 before the library's constructors have run.
static KEY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn at_thread_end(_: *mut c_void) {
    thread::retire();
}

/// Makes the key, before `main` and so outside of every handler: that may take a lock, and glibc's first 32 keys cost no memory.
extern "C" fn make_key() {
    tell_where_operations_are();
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: writes a key on this stack; the destructor takes any value.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(at_thread_end)) } == 0 {
        KEY.store(key as usize + 1, Ordering::Release);
    }
}

/// All functions that run while a cache is taken lie in a section of their own, for whose ends the linker has names.
fn tell_where_operations_are() {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            #[link_name = "__start_sigsafe_alloc_text"]
            static START: u8;
            #[link_name = "__stop_sigsafe_alloc_text"]
            static END: u8;
        }
        sigsafe_core::allocator::set_text((&raw const START).addr(), (&raw const END).addr());
    }
}

#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static CONSTRUCTOR: extern "C" fn() = make_key;
