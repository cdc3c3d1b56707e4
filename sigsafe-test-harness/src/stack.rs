//! Signal stacks for the working threads: far more than std's own, which is meant for one short handler.
//!
//! They lie in the program's own memory, below all that the kernel maps for threads, so that `in_allocator`, which compares
//! stack pointers, knows a handler on one of them from the operation that it has interrupted. A thread that takes the place of one that
//! has ended takes its stack as well.

use std::cell::UnsafeCell;
use std::io;
use std::ptr;

use crate::plan::MAX_THREADS;

/// Far more than the collector and the kernel's frames take.
const BYTES: usize = 256 << 10;

#[repr(align(4096))]
struct Stack(UnsafeCell<[u8; BYTES]>);

// SAFETY: only the kernel and the code that it runs on the stack touch the memory, and a stack has one thread at a time.
unsafe impl Sync for Stack {}

static STACKS: [Stack; MAX_THREADS as usize] = [const { Stack(UnsafeCell::new([0; BYTES])) }; MAX_THREADS as usize];

/// Gives the calling thread the signal stack of number `index`. No other thread may have it.
///
/// # Errors
///
/// The failure of `sigaltstack`.
pub(crate) fn give(index: u32) -> io::Result<()> {
    let description = libc::stack_t { ss_sp: STACKS[index as usize].0.get().cast(), ss_flags: 0, ss_size: BYTES };
    // SAFETY: the memory is this thread's for its life, the description is live for the call, and a null pointer for the old one
    // is allowed. No handler runs on the old stack: the thread is in ordinary context.
    let result = unsafe { libc::sigaltstack(&raw const description, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_stacks_lie_below_the_threads() {
        let here = 0_u8;
        let highest = STACKS.last().unwrap().0.get().addr() + BYTES;
        assert!(highest < ptr::from_ref(&here).addr());
    }
}
