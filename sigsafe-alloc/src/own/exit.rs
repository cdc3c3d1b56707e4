//! How the end of a thread is noticed.
//!
//! A thread gets a cache only if its end will be noticed, or else the blocks in there would be nobody's. The default is a pthread key,
//! whose destructor gives the cache back; what knows of threads' ends by other means takes its place ([`ThreadExit`]).
//!
//! [`arm`] runs in any context, when a thread is about to get a cache.

use core::ffi::c_void;
use core::mem;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::thread;

/// A way to notice that a thread ends. For libraries that see threads start and end anyway, say because they wrap `pthread_create`, and for
/// programs in which a pthread key is not to be used up or does not do: hand the implementation to [`notice_thread_ends_by`].
///
/// ```
/// use std::cell::Cell;
///
/// use sigsafe_alloc::thread_exit::{ThreadExit, notice_thread_ends_by, thread_ends};
///
/// thread_local!(static WILL_TELL: Cell<bool> = const { Cell::new(false) });
///
/// struct Wrapped;
///
/// impl ThreadExit for Wrapped {
///     fn arm() -> bool {
///         WILL_TELL.get()
///     }
/// }
///
/// /// What each thread of this program runs.
/// fn start(routine: impl FnOnce()) {
///     WILL_TELL.set(true);
///     routine();
///     WILL_TELL.set(false);
///     // SAFETY: no handler, and nothing that this thread has interrupted.
///     unsafe { thread_ends() };
/// }
///
/// notice_thread_ends_by::<Wrapped>();
/// std::thread::spawn(|| start(|| drop(vec![1, 2, 3]))).join().unwrap();
/// ```
pub trait ThreadExit {
    /// Sees to it that [`thread_ends`] is called at the calling thread's end; `false` if that is not possible, or not yet. Then the
    /// thread works without a cache, and the next operation asks again.
    ///
    /// It is called by an operation of a thread that has no cache to use: mostly by its first, seldom later, and also in a
    /// handler that has interrupted this very function. So it must not wait, nor allocate by `SigSafeAlloc`, and `errno` must stay as it is.
    ///
    /// Async-signal safety: must be callable from a handler. Cost: the implementation's, about once a thread.
    fn arm() -> bool;
}

/// Has the ends of threads noticed by `E` from here on. Threads that have a cache already go on as before.
///
/// Without this the library makes a pthread key in a constructor. Whoever does not want that calls this in a constructor that runs
/// earlier: on ELF systems one that lies in `.init_array.00101`, say.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn notice_thread_ends_by<E: ThreadExit>() {
    HOOK.store(E::arm as fn() -> bool as *mut c_void, Ordering::Release);
}

/// Says that the calling thread ends: its cache goes back. What it still allocates and frees, in destructors that come later,
/// goes to the spans. For implementations of [`ThreadExit`]; once it has been called for a thread, calls have no effect.
///
/// # Safety
///
/// The thread must not be in the middle of an operation of the allocator, so that this is not for signal handlers. Operations that
/// have been left by `longjmp` do not count.
///
/// Async-signal safety: must not be called from a handler. Cost: a system call for each stretch of memory
/// that is due to go back, and `rt_sigprocmask` where signals were held back.
pub unsafe fn thread_ends() {
    thread::retire();
}

/// A `fn() -> bool`, [`ThreadExit::arm`]. Null before the library's constructor has run, and for good if there is no key that will do.
static HOOK: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Whether the calling thread's end will be noticed.
pub(super) fn arm() -> bool {
    let hook = HOOK.load(Ordering::Acquire);
    // SAFETY: not null, so a function of this type: nothing else is stored there.
    !hook.is_null() && unsafe { mem::transmute::<*mut c_void, fn() -> bool>(hook) }()
}

/// The default.
struct Key;

/// Made by the constructor, or never read.
static KEY: AtomicUsize = AtomicUsize::new(0);

impl ThreadExit for Key {
    fn arm() -> bool {
        let key = KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
        // SAFETY: the key exists and is never deleted; its value says no more than that there is one.
        unsafe { libc::pthread_setspecific(key, (&raw const KEY).cast()) == 0 }
    }
}

extern "C" fn at_thread_end(_: *mut c_void) {
    thread::retire();
}

/// glibc has room for the values of so many keys in a thread's own block, and allocates for those of others.
const KEYS_WITH_ROOM: usize = if cfg!(target_env = "gnu") { 32 } else { usize::MAX };

/// Makes the key, before `main` and so outside of every handler: that may take a lock.
extern "C" fn start() {
    tell_where_operations_are();
    if !HOOK.load(Ordering::Acquire).is_null() {
        return;
    }
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: writes a key on this stack; the destructor takes any value.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(at_thread_end)) } != 0 {
        return;
    }
    if key as usize >= KEYS_WITH_ROOM {
        // SAFETY: nobody has seen it.
        unsafe { libc::pthread_key_delete(key) };
        return;
    }
    KEY.store(key as usize, Ordering::Relaxed);
    notice_thread_ends_by::<Key>();
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
static CONSTRUCTOR: extern "C" fn() = start;
