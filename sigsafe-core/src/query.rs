//! Questions about the calling thread, for handlers and for assertions.

use core::sync::atomic::Ordering;

use crate::record::{depth, get, record};
use crate::sys;

/// Whether the thread is in a critical region of either backend.
///
/// In an [immediate](crate::handler::Handler::immediate) or fault handler this speaks of the interrupted code too.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
#[inline]
pub fn in_region() -> bool {
    record().in_region()
}

/// How many regions the thread is in.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn region_depth() -> u32 {
    let r = record();
    let regions = [&r.scoped, &r.held, &r.full].map(depth).into_iter().fold(0, u64::wrapping_add);
    u32::try_from(regions).unwrap_or(u32::MAX)
}

/// Whether a managed handler is running on the thread. After a handler left by `longjmp` this is no longer reliable.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn in_handler() -> bool {
    handler_depth() != 0
}

/// How many managed handlers are running on the thread, each interrupted by the next.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn handler_depth() -> u32 {
    get(&record().handlers)
}

/// How many handler runs on this thread a region had held back, since the thread started.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn deferrals() -> u64 {
    record().deferrals.load(Ordering::Relaxed)
}

/// How many signals on this thread had to be kept when every slot was taken, since the thread started: they went back to the kernel,
/// where real-time signals may lose their order and a sent fault is blocked until the region ends.
///
/// Async-signal safety: may be called from a handler. Cost: no system call.
pub fn overflows() -> u64 {
    get(&record().overflows).into()
}

/// A number of this thread's own, below 2^30 and not zero; found out once. In the child of a fork it stays what it was in the parent, on
/// purpose: locks that were held over the fork carry it. No other thread of the child gets the same.
#[doc(hidden)]
#[inline]
pub fn thread_id() -> u32 {
    let r = record();
    match get(&r.thread_id) {
        0 => {
            let id = sys::new_thread_number();
            // SIGNAL: a handler in between may have stored the number that it was given.
            match r.thread_id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => id,
                Err(first) => first,
            }
        }
        id => id,
    }
}
