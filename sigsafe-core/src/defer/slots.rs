//! The slots of the thread record: captured signals that must not wait in the kernel.
//!
//! | kind | why it cannot wait in the kernel | how it leaves the slot |
//! |---|---|---|
//! | real-time | given back, it would stand behind those sent after it | a *token* of the same number is queued; see below |
//! | sent SEGV BUS FPE ILL TRAP SYS ABRT | it must not be blocked, and unblocked it would come back at once | requeued by the outermost exit |
//! | CONT TSTP TTIN TTOU | sending one discards the others that wait | dispatched by the outermost exit |
//! | what the kernel refused | `RLIMIT_SIGPENDING`, a seccomp filter | dispatched by the outermost exit |
//!
//! **Order of real-time signals.** The slots of one number are a queue, and for each of its entries one token waits in the kernel,
//! behind whatever waited there. As long as the queue is not empty each delivery joins its end and the queue's head is dispatched
//! in its stead; a token brings nothing and takes the head. So the head is always the oldest, wherever the tokens stand.
//!
//! Runs in the trampoline and in an outermost exit. A nested trampoline may run between any two instructions here.

use core::mem::{MaybeUninit, size_of};
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::signal::Signal;
use crate::sys;

/// How many captured signals a thread can keep. One region captures one of them before everything deferrable is blocked; more than
/// one are sent faults, which are never blocked, or trampolines that interrupted each other.
const SLOTS: usize = 3;

/// All that the kernel itself fills of a siginfo's 128 bytes; the rest is zero.
const INFO_WORDS: usize = 6;

/// The `si_code` of a token. Negative, as everything from user space; a foreign process may forge one, which then finds an empty
/// queue and is ignored, or takes a head that would have been taken next anyway.
const TOKEN_CODE: i32 = -0x5167;

/// One captured signal.
///
/// | state | meaning |
/// |---|---|
/// | 0 | empty |
/// | 1 | claimed by a trampoline that is still copying |
/// | 2n | full, waiting for the outermost exit; n is its place in the order of capture |
/// | 2n + 1, n > 0 | full, and a token for it waits in the kernel |
#[derive(Debug)]
struct Slot {
    state: AtomicU32,
    /// The process that captured it: a fork's child has not been sent its parent's signals (POSIX, fork).
    process: AtomicU32,
    info: [AtomicU64; INFO_WORDS],
}

const EMPTY: u32 = 0;
const CLAIMED: u32 = 1;

#[derive(Debug)]
pub(crate) struct Slots([Slot; SLOTS]);

/// A siginfo out of a slot, whole again.
pub(crate) struct Captured(MaybeUninit<libc::siginfo_t>);

impl Captured {
    pub(crate) fn info(&self) -> &libc::siginfo_t {
        // SAFETY: all 128 bytes were written, 48 from the slot and the rest zero; every field is an integer or pointer.
        unsafe { self.0.assume_init_ref() }
    }

    pub(crate) fn info_mut(&mut self) -> *mut libc::siginfo_t {
        self.0.as_mut_ptr()
    }
}

fn words_of(info: &libc::siginfo_t) -> [u64; INFO_WORDS] {
    const { assert!(size_of::<libc::siginfo_t>() == 128) };
    // SAFETY: a siginfo has 128 initialised bytes, aligned to eight: the kernel wrote them.
    unsafe { ptr::from_ref(info).cast::<[u64; INFO_WORDS]>().read() }
}

impl Slot {
    fn signal(&self) -> i32 {
        // si_signo is the first int on every Linux ABI, the low half on little endian, which both supported ones are.
        self.info[0].load(Ordering::Relaxed) as u32 as i32
    }

    fn fill(&self, info: &libc::siginfo_t) {
        for (word, value) in self.info.iter().zip(words_of(info)) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn copy_out(&self) -> Captured {
        let mut captured = Captured(MaybeUninit::zeroed());
        let words: *mut u64 = captured.0.as_mut_ptr().cast();
        for (index, word) in self.info.iter().enumerate() {
            // SAFETY: six words lie within the 128 bytes, which are aligned to eight.
            unsafe { words.add(index).write(word.load(Ordering::Relaxed)) };
        }
        captured
    }
}

impl Slots {
    fn full(&self) -> impl Iterator<Item = (&Slot, u32)> {
        self.0.iter().filter_map(|slot| match slot.state.load(Ordering::Relaxed) {
            EMPTY | CLAIMED => None,
            state => Some((slot, state)),
        })
    }

    /// Whether a slot waits for the outermost exit.
    pub(crate) fn waiting(&self) -> bool {
        self.full().any(|(_, state)| state & 1 == 0)
    }

    /// Whether `signal` is in a slot.
    pub(crate) fn contains(&self, signal: Signal) -> bool {
        self.full().any(|(slot, _)| slot.signal() == signal.number())
    }

    /// Keeps `info`; `false` when every slot is taken. A legacy signal that is kept already merges with that one, as it would in
    /// the kernel (POSIX leaves the number of deliveries open).
    pub(crate) fn keep(&self, signal: Signal, info: &libc::siginfo_t) -> bool {
        if !signal.is_real_time() && self.contains(signal) {
            return true;
        }
        let process = sys::process_id();
        self.drop_foreign(process);
        for slot in &self.0 {
            // One instruction: a nested trampoline may have claimed the slot since it was looked at.
            if slot.state.compare_exchange(EMPTY, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            // SIGNAL: a nested trampoline finds the slot claimed and takes another; an exit below it finds it neither empty nor
            // full and leaves it alone.
            slot.process.store(process, Ordering::Relaxed);
            slot.fill(info);
            let last = self.full().map(|(_, state)| state >> 1).max().unwrap_or(0);
            slot.state.store((last + 1) << 1, Ordering::Relaxed);
            return true;
        }
        false
    }

    fn oldest(&self, signal: Signal) -> Option<(&Slot, u32)> {
        self.drop_foreign(sys::process_id());
        self.full().filter(|(slot, _)| slot.signal() == signal.number()).min_by_key(|(_, state)| *state)
    }

    /// A token has arrived: takes the head of the queue.
    pub(crate) fn take_oldest(&self, signal: Signal) -> Option<Captured> {
        let (head, state) = self.oldest(signal)?;
        if state & 1 == 0 {
            // The head has no token of its own, so this one was a later entry's, which waits for an exit from now on.
            if let Some((later, _)) = self.full().find(|(slot, state)| slot.signal() == signal.number() && state & 1 == 1) {
                later.state.fetch_and(!1, Ordering::Relaxed);
            }
        }
        let captured = head.copy_out();
        head.state.store(EMPTY, Ordering::Relaxed);
        Some(captured)
    }

    /// A signal has arrived while others of its number are kept: takes the head of the queue and puts `info` at its end, in the
    /// same slot, so that there are still as many tokens as entries.
    pub(crate) fn exchange_oldest(&self, signal: Signal, info: &libc::siginfo_t) -> Option<Captured> {
        let (head, state) = self.oldest(signal)?;
        let captured = head.copy_out();
        let last = self.full().map(|(_, state)| state >> 1).max().unwrap_or(0);
        // SIGNAL: this number is blocked while its trampoline runs, so a nested one touches other slots only.
        head.state.store(CLAIMED, Ordering::Relaxed);
        head.fill(info);
        head.state.store((last + 1) << 1 | (state & 1), Ordering::Relaxed);
        Some(captured)
    }

    /// The oldest slot that waits for the outermost exit and of which `wanted` holds, with its signal.
    pub(crate) fn oldest_waiting(&self, wanted: impl Fn(Signal) -> bool) -> Option<(usize, Signal)> {
        let oldest = |(index, slot): (usize, &Slot)| {
            let state = slot.state.load(Ordering::Relaxed);
            let signal = Signal::new(slot.signal()).ok()?;
            (state > CLAIMED && state & 1 == 0 && wanted(signal)).then_some((state, index, signal))
        };
        self.0.iter().enumerate().filter_map(oldest).min().map(|(_, index, signal)| (index, signal))
    }

    /// Marks a waiting slot as having its token in the kernel. Called before the token is queued.
    pub(crate) fn mark_token(&self, index: usize) {
        self.0[index].state.fetch_or(1, Ordering::Relaxed);
    }

    /// Marks it as waiting again: the kernel refused the token.
    pub(crate) fn unmark_token(&self, index: usize) {
        self.0[index].state.fetch_and(!1, Ordering::Relaxed);
    }

    /// Takes the signal out of a waiting slot.
    pub(crate) fn take(&self, index: usize) -> Captured {
        let captured = self.0[index].copy_out();
        self.0[index].state.store(EMPTY, Ordering::Relaxed);
        captured
    }

    /// Empties slots that another process, the parent of this fork's child, has filled.
    pub(crate) fn drop_foreign(&self, process: u32) {
        for (slot, _) in self.full() {
            if slot.process.load(Ordering::Relaxed) != process {
                slot.state.store(EMPTY, Ordering::Relaxed);
            }
        }
    }
}

/// A token of this number: a siginfo that says nothing but that it is one.
pub(crate) fn token(signal: Signal) -> Captured {
    let mut token = Captured(MaybeUninit::zeroed());
    // SAFETY: the value lies on this stack, and zero is a value of every field.
    unsafe {
        (*token.info_mut()).si_signo = signal.number();
        (*token.info_mut()).si_code = TOKEN_CODE;
    }
    token
}

/// Whether this is a token.
pub(crate) fn is_token(info: &libc::siginfo_t) -> bool {
    info.si_code == TOKEN_CODE
}
