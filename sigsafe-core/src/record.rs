//! The thread record: what this crate keeps for each thread.
//!
//! All zero at the start, with no destructor and no registration, so that it works on any thread, before `main` and after the
//! destructors of thread-locals. Only its own thread reads or writes it, from the main flow and from signal handlers, which lie
//! on the same stack like calls: "concurrency" here is that of one processor. So every word is an atomic with relaxed plain
//! loads and stores, ordered by compiler fences alone.
//!
//! A plain load, add and store of a word is safe against a handler in the middle of it because a handler leaves the *counters*
//! as it found them: the trampoline puts them back. `added` is the exception, since a capture changes it for good; what edits it
//! outside the trampoline uses one read-modify-write instruction.

#[cfg(deferral)]
use core::mem::offset_of;
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::bits::AtomicBits;
use crate::defer::slots::Slots;
use crate::sys;

/// Of `phase`.
#[cfg(deferral)]
pub(crate) const RELEASING: u32 = 1;
/// Of `phase`.
pub(crate) const ADMITTING: u32 = 2;

/// The size that the assembler reserves, in whole cache lines. Other crates hang their own state off pointers, so the record stays small.
pub(crate) const RECORD_BYTES: usize = 320;

#[cfg(deferral)]
/// What regions, flushes and trampolines touch each time lies in the first line, the allocator's words too.
const FIRST_LINE: usize = 64;

/// | word | meaning |
/// |---|---|
/// | `added` | signals that we blocked in the kernel, or that the return of a frame is to block, and that the thread itself had not; non-zero: a deferral is outstanding. The bit of SIGKILL, which nobody can block, says that a slot waits for the outermost exit |
/// | `below` | in a handler that runs although the code below it holds signals back: those signals, which the kernel's mask shows as blocked and the thread has not blocked |
/// | `cache` | the allocator's: see [`allocator`](crate::allocator) |
/// | `releasing` | with the bit of SIGKILL: signals that an outermost exit is about to unblock, and that the kernel's mask shows as blocked until then; without it, nothing (the kernel has written something else there) |
/// | `scoped` | depth of closure regions |
/// | `held` | live deferring guards |
/// | `full` | live full-mask regions, closures and guards alike |
/// | `handlers` | depth of managed handlers |
/// | `phase` | bits: [`RELEASING`], an outermost exit lets signals in, so that whatever is delivered was held back; [`ADMITTING`], a temporary mask is in force, so that whatever is delivered is to run even in a region |
/// | `deferrals` | handler runs that a region had held back |
/// | `waiting` | address of the futex word that the thread waits for, outside any region of its own, or 0 |
/// | `captured_at` | the number of the signal that a region captured last, in the upper byte, and the program counter that it interrupted; 0 when there is none |
/// | `forwarding` | address of the innermost call of a foreign handler that a handler forwards to ([`forward`](crate::handler)), or 0 |
/// | `thread_id` | the thread's number, 0 until asked for; kept over fork on purpose ([`thread_id`](crate::query::thread_id)) |
/// | `owed` | signals that a capture over an operation of the allocator blocks, for that operation's end to let in |
/// | `owed_at` | that operation's mark, about its stack pointer; 0: nothing is owed |
/// | `owed_flushes` | flushes over it since |
/// | `overflows` | captures for which no slot was left |
/// | `attached` | non-zero while this thread, a foreign one, is attached |
/// | `caches` | the allocator's: all caches that the thread has had |
/// | `slots` | captured signals that must not wait in the kernel |
///
/// In a region = `scoped`, `held` or `full` is non-zero. There are two counters besides `full` because a closure stores back the
/// depth that it found: with one, a guard that escapes the closure would be forgotten by it and then underflow. They have 64 bits
/// because guards may be forgotten: a counter of 32 comes round to zero within seconds, and the thread would be open in its regions.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct ThreadRecord {
    pub(crate) added: AtomicBits,
    pub(crate) below: AtomicBits,
    pub(crate) cache: AtomicUsize,
    pub(crate) scoped: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) handlers: AtomicU32,
    pub(crate) phase: AtomicU32,
    pub(crate) deferrals: AtomicU64,
    #[cfg(deferral)]
    pub(crate) releasing: AtomicU64,
    pub(crate) waiting: AtomicUsize,
    pub(crate) captured_at: AtomicU64,
    pub(crate) forwarding: AtomicUsize,
    #[cfg(deferral)]
    pub(crate) owed: AtomicU64,
    #[cfg(deferral)]
    pub(crate) owed_at: AtomicUsize,
    #[cfg(deferral)]
    pub(crate) owed_flushes: AtomicU32,
    pub(crate) thread_id: AtomicU32,
    pub(crate) overflows: AtomicU32,
    pub(crate) attached: AtomicU32,
    pub(crate) caches: AtomicUsize,
    pub(crate) slots: Slots,
}

const _: () = assert!(size_of::<ThreadRecord>() <= RECORD_BYTES && align_of::<ThreadRecord>() == 64);
#[cfg(deferral)]
const _: () = assert!(offset_of!(ThreadRecord, deferrals) <= FIRST_LINE);

/// The calling thread's record. The reference must not leave the thread; nothing here does that.
#[inline(always)]
pub(crate) fn record() -> &'static ThreadRecord {
    // SAFETY: the address is that of this thread's `RECORD_BYTES` zero-initialised bytes, aligned to 64; zero is a value of every field;
    // they are only ever reached as this type of shared atomics, and live as long as the thread does.
    unsafe { &*sys::record_address().cast::<ThreadRecord>() }
}

/// A relaxed load.
#[inline(always)]
pub(crate) fn get(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed)
}

/// A relaxed store.
#[inline(always)]
pub(crate) fn put(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Relaxed);
}

/// A counter of regions.
#[inline(always)]
pub(crate) fn depth(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Stores a counter of regions.
#[inline(always)]
pub(crate) fn set_depth(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

/// Keeps the compiler from moving memory accesses over this point. The processor needs no telling: a handler runs on the same one
/// and sees the interrupted code's accesses in program order.
#[inline(always)]
pub(crate) fn fence() {
    compiler_fence(Ordering::SeqCst);
}

impl ThreadRecord {
    /// Whether the thread is in a critical region of any kind.
    #[inline]
    pub(crate) fn in_region(&self) -> bool {
        depth(&self.scoped) | depth(&self.held) | depth(&self.full) != 0
    }
}
