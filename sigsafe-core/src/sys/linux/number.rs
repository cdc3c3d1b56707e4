//! A number for each thread, for the words of locks. Runs in any context.
//!
//! The kernel's thread id alone does not do. A thread that forks keeps its number in the child, since the locks that it holds carry it;
//! and when it has ended in the parent, as when a daemon is made, the kernel may give its id to a thread of the child. Two threads of one
//! process would then pass for one. So the number has a second part, the *generation*: how many forks lie between the first process
//! of the family that used numbers and this one.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{kernel_thread_id, process_id};

/// `PID_MAX_LIMIT` of 64-bit kernels is 2^22.
const ID_BITS: u32 = 22;
/// Locks keep the two bits above for themselves. Only a fork of a fork of a fork, 256 deep, comes by the same generation again.
const GENERATION_BITS: u32 = 8;

/// The process that asked last, in the upper half, and its generation in the lower. 0: nobody has a number yet.
static LAST: AtomicU64 = AtomicU64::new(0);

/// This thread's: no other thread of the process has it, whichever its ancestors were. To be asked for once on each thread.
pub(crate) fn new_thread_number() -> u32 {
    let id = kernel_thread_id() & ((1 << ID_BITS) - 1);
    let generation = if mutant!("thread-id-alone") { 0 } else { generation() };
    ((generation % (1 << GENERATION_BITS)) << ID_BITS) | id
}

fn generation() -> u32 {
    let process = process_id();
    let mut last = LAST.load(Ordering::Relaxed);
    // SIGNAL: one instruction writes both halves, so a handler in between finds the generation before or the one after.
    while (last >> 32) as u32 != process {
        let next = if last == 0 { 0 } else { (last as u32).wrapping_add(1) };
        match LAST.compare_exchange(last, u64::from(process) << 32 | u64::from(next), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return next,
            Err(now) => last = now,
        }
    }
    last as u32
}
