//! The slots of the thread record: captured signals that must not wait in the kernel.
//!
//! | kind | why it cannot wait in the kernel | how it leaves the slot |
//! |---|---|---|
//! | real-time | given back, it would stand behind those sent after it | a *token* of the same number is queued; see below |
//! | sent SEGV BUS FPE ILL TRAP SYS ABRT | it must not be blocked, and unblocked it would come back at once | requeued by the outermost exit |
//! | CONT | sending it again would discard stops that were sent after it | dispatched by the outermost exit |
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

use crate::defer::vfork;
use crate::signal::Signal;
use crate::sigset::SigSet;

/// How many captured signals a thread can keep. One region captures one of them before everything deferrable is blocked; more than
/// one are sent faults, which are never blocked, or trampolines that interrupted each other.
const SLOTS: usize = 3;

/// All that the kernel itself fills of a siginfo's 128 bytes; the rest is zero.
const INFO_WORDS: usize = 6;

/// The `si_code` of a token. Negative, as everything from user space; a foreign process may forge one, which then finds an empty
/// queue and is ignored, or takes a head that would have been taken next anyway.
const TOKEN_CODE: i32 = -0x5167;

/// The place of `si_pid` in a siginfo, in words of four bytes: after three ints, at the next multiple of eight.
const PROCESS_WORD: usize = 4;

/// One captured signal.
///
/// | state | meaning |
/// |---|---|
/// | 0 | empty |
/// | 1 | claimed by somebody who is still copying |
/// | 2n | full, waiting for the outermost exit; n is its place in the order of capture |
/// | 2n + 1, n > 0 | full, and the kernel has the rest: a token for a real-time signal; for any other the signal itself, of which this is a copy in case that its siginfo gets lost there, to be given up when the room is needed |
#[derive(Debug)]
struct Slot {
    state: AtomicU32,
    /// The process that captured it: a fork's child has not been sent its parent's signals (POSIX, fork).
    process: AtomicU32,
    info: [AtomicU64; INFO_WORDS],
}

const EMPTY: u32 = 0;
const CLAIMED: u32 = 1;
const IN_KERNEL: u32 = 1;

/// A token that is about to be queued.
pub(crate) struct Promise<'s>(&'s Slot);

impl Promise<'_> {
    /// The kernel has refused it: the signal waits for an exit again.
    pub(crate) fn revoke(self) {
        self.0.state.fetch_and(!IN_KERNEL, Ordering::Relaxed);
    }
}

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

/// What a signal that joins the queue brings.
pub(crate) enum Exchanged {
    Head(Captured),
    /// There was no queue.
    Empty,
    /// A handler in between has taken all of it.
    Taken,
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

    /// One instruction, so that no handler comes in between.
    fn change(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes the signal out of a claimed slot.
    fn empty(&self) -> Captured {
        let captured = self.copy_out();
        self.state.store(EMPTY, Ordering::Relaxed);
        captured
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

    /// Whether nothing at all is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.full().next().is_none()
    }

    /// Whether a slot waits for the outermost exit.
    pub(crate) fn waiting(&self) -> bool {
        self.full().any(|(_, state)| state & IN_KERNEL == 0)
    }

    /// The signals that wait for the outermost exit and nowhere else: for those with a token the kernel speaks.
    pub(crate) fn waiting_signals(&self) -> SigSet {
        self.full().filter(|(_, state)| state & IN_KERNEL == 0).filter_map(|(slot, _)| Signal::new(slot.signal()).ok()).collect()
    }

    /// Keeps `info`; `false` when every slot is taken. A legacy signal that is kept already merges with that one, as it would in
    /// the kernel (POSIX leaves the number of deliveries open).
    pub(crate) fn keep(&self, process: u32, signal: Signal, info: &libc::siginfo_t) -> bool {
        self.drop_foreign(process);
        if !signal.is_real_time() && self.waiting_signals().contains(signal) {
            return true;
        }
        self.fill_empty(process, info, 0) || {
            // A copy is worth less than a signal.
            let copy = self.claim(|signal, state| state & IN_KERNEL != 0 && !signal.is_real_time());
            copy.is_some_and(|(slot, _, _)| {
                slot.empty();
                self.fill_empty(process, info, 0)
            })
        }
    }

    /// Keeps a copy of what has just been given back to the kernel, if there is room.
    pub(crate) fn keep_copy(&self, process: u32, signal: Signal, info: &libc::siginfo_t) {
        self.drop_foreign(process);
        self.take_copy(signal);
        self.fill_empty(process, info, IN_KERNEL);
    }

    /// The copy of a legacy signal that the kernel has delivered by now, and the process that captured it.
    pub(crate) fn take_copy(&self, signal: Signal) -> Option<(Captured, u32)> {
        let (slot, _, _) = self.claim(|kept, state| kept == signal && state & IN_KERNEL != 0 && !kept.is_real_time())?;
        let process = slot.process.load(Ordering::Relaxed);
        Some((slot.empty(), process))
    }

    fn fill_empty(&self, process: u32, info: &libc::siginfo_t, in_kernel: u32) -> bool {
        for slot in &self.0 {
            // One instruction: a nested trampoline may have claimed the slot since it was looked at.
            if !slot.change(EMPTY, CLAIMED) {
                continue;
            }
            // SIGNAL: a nested trampoline finds the slot claimed and takes another; an exit below it finds it neither empty nor
            // full and leaves it alone.
            slot.process.store(process, Ordering::Relaxed);
            slot.fill(info);
            slot.state.store(self.next_state() | in_kernel, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// The oldest full slot of which `wanted` holds, claimed, with the state that it had.
    ///
    /// Claimed by one instruction, and looked for again when that fails: a handler that lands in between may end a region of its
    /// own, whose exit releases the very slot that was found.
    fn claim(&self, wanted: impl Fn(Signal, u32) -> bool) -> Option<(&Slot, u32, Signal)> {
        loop {
            let matching = self.full().filter_map(|(slot, state)| {
                let signal = Signal::new(slot.signal()).ok()?;
                wanted(signal, state).then_some((slot, state, signal))
            });
            let (slot, state, signal) = matching.min_by_key(|(_, state, _)| *state)?;
            if slot.change(state, CLAIMED) {
                if slot.signal() == signal.number() {
                    return Some((slot, state, signal));
                }
                // Emptied and filled again in between, with the same place in the order.
                slot.state.store(state, Ordering::Relaxed);
            }
        }
    }

    fn next_state(&self) -> u32 {
        let last = self.full().map(|(_, state)| state >> 1).max().unwrap_or(0);
        (last + 1) << 1
    }

    /// A token has arrived that `process` has queued: takes the head of the queue.
    pub(crate) fn take_oldest(&self, process: u32, signal: Signal) -> Option<Captured> {
        let (head, state, _) = self.claim(|kept, _| kept == signal)?;
        if head.process.load(Ordering::Relaxed) != process {
            // Another process's signal, in the child of a fork or a vfork; tokens are not inherited, so this one is forged or the
            // child's own.
            head.state.store(state, Ordering::Relaxed);
            return None;
        }
        if state & IN_KERNEL == 0 {
            // The head has no token of its own, so this one was a later entry's, which waits for an exit from now on.
            if let Some((later, _)) = self.full().find(|(slot, state)| slot.signal() == signal.number() && state & IN_KERNEL != 0) {
                later.state.fetch_and(!IN_KERNEL, Ordering::Relaxed);
            }
        }
        Some(head.empty())
    }

    /// The head is taken whose token is still to come: it is a later entry's from now on.
    fn pass_token_on(&self, signal: Signal) {
        // SIGNAL: a handler that lands in here may take the later entry, or give it a token of its own, and then there is a token too
        // many, which brings nothing.
        let later = self.full().find(|(slot, state)| slot.signal() == signal.number() && state & IN_KERNEL == 0);
        if let Some((later, state)) = later {
            later.change(state, state | IN_KERNEL);
        }
    }

    /// A signal has arrived while others of its number are kept: puts `info` at the end of their queue and takes its head, so that there
    /// are still as many tokens as entries.
    pub(crate) fn exchange_oldest(&self, process: u32, signal: Signal, info: &libc::siginfo_t) -> Exchanged {
        self.drop_foreign(process);
        if !self.full().any(|(slot, _)| slot.signal() == signal.number()) {
            return Exchanged::Empty;
        }
        // SIGNAL: at the end of the queue before the head is taken: a handler that lands in between and takes signals itself finds all of
        // them there.
        let placed = !mutant!("newcomer-hidden") && self.fill_empty(process, info, 0);
        let Some((head, state, _)) = self.claim(|kept, _| kept == signal) else {
            // Such a handler has taken them, this one too.
            return if placed { Exchanged::Taken } else { Exchanged::Empty };
        };
        // SIGNAL: the head is in the hands of this frame. For a handler that takes signals the next one is the head.
        let captured = head.copy_out();
        if placed {
            if state & IN_KERNEL != 0 {
                self.pass_token_on(signal);
            }
            head.state.store(EMPTY, Ordering::Relaxed);
        } else {
            // No slot is free: in the head's. A handler that takes signals finds this one neither here nor in the kernel until it is there.
            head.fill(info);
            head.state.store(self.next_state() | (state & IN_KERNEL), Ordering::Relaxed);
        }
        Exchanged::Head(captured)
    }

    /// Takes the oldest signal that waits for the outermost exit and of which `wanted` holds.
    pub(crate) fn take_waiting(&self, wanted: impl Fn(Signal) -> bool) -> Option<(Signal, Captured)> {
        loop {
            let waiting = self.full().filter(|(_, state)| state & IN_KERNEL == 0);
            let signals = waiting.filter_map(|(slot, state)| Some((state, Signal::new(slot.signal()).ok()?)));
            let (_, signal) = signals.filter(|(_, signal)| wanted(*signal)).min_by_key(|(state, _)| *state)?;
            // Of a real-time signal the head, whoever has the token.
            let of_queue = signal.is_real_time() && !mutant!("head-passed-over");
            let Some((slot, state, _)) = self.claim(|kept, state| kept == signal && (state & IN_KERNEL == 0 || of_queue)) else {
                // A handler in between has taken it.
                continue;
            };
            // SIGNAL: as in `exchange_oldest`.
            if state & IN_KERNEL != 0 {
                self.pass_token_on(signal);
            }
            return Some((signal, slot.empty()));
        }
    }

    /// Promises a token to the oldest real-time signal that waits for the outermost exit: to be called before it is queued.
    pub(crate) fn promise_token(&self) -> Option<(Signal, Promise<'_>)> {
        loop {
            let waiting = self.full().filter(|(_, state)| state & IN_KERNEL == 0);
            let signals = waiting.filter_map(|(slot, state)| Some((slot, state, Signal::new(slot.signal()).ok()?)));
            let (slot, state, signal) = signals.filter(|(_, _, signal)| signal.is_real_time()).min_by_key(|(_, state, _)| *state)?;
            // Without claiming it in between: a delivery of this number must find the queue as long as it is.
            if slot.change(state, state | IN_KERNEL) {
                return Some((signal, Promise(slot)));
            }
        }
    }

    /// The signals for which a token was promised.
    pub(crate) fn promised(&self) -> SigSet {
        let in_kernel = self.full().filter(|(_, state)| state & IN_KERNEL != 0);
        in_kernel.filter_map(|(slot, _)| Signal::new(slot.signal()).ok()).filter(|signal| signal.is_real_time()).collect()
    }

    /// Takes the oldest of all that is kept, tokens and copies included, with whether the kernel was given it.
    pub(crate) fn take_any(&self) -> Option<(Signal, Captured, bool)> {
        let (slot, state, signal) = self.claim(|_, _| true)?;
        Some((signal, slot.empty(), state & IN_KERNEL != 0))
    }

    /// No token of this number waits in the kernel any more: its signals wait for an exit again. Whether there are any.
    pub(crate) fn lost_tokens(&self, signal: Signal) -> bool {
        let of_this_number = self.full().filter(|(slot, _)| slot.signal() == signal.number());
        of_this_number.fold(false, |_, (slot, _)| {
            slot.state.fetch_and(!IN_KERNEL, Ordering::Relaxed);
            true
        })
    }

    /// Throws away what is kept of this number.
    pub(crate) fn discard(&self, signal: Signal) {
        while let Some((slot, _, _)) = self.claim(|kept, _| kept == signal) {
            slot.state.store(EMPTY, Ordering::Relaxed);
        }
    }

    /// Empties slots that the parent has filled, if this process is the child of a fork.
    pub(crate) fn drop_foreign(&self, process: u32) {
        for (slot, state) in self.full() {
            let foreign = slot.process.load(Ordering::Relaxed) != process;
            if foreign && !vfork::is_child(process) && !mutant!("fork-keeps-slots") {
                // Fails when a handler in between has emptied the slot; it may also have filled it for this process, in the same place.
                if mutant!("dropped-unseen") {
                    slot.change(state, EMPTY);
                } else if slot.change(state, CLAIMED) {
                    // SIGNAL: a capture in between finds the slot claimed and takes another.
                    let emptied = slot.process.load(Ordering::Relaxed) != process;
                    slot.state.store(if emptied { EMPTY } else { state }, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A token of this number: a siginfo that says nothing but that it is one, and of which process, so that nobody has to ask the system
/// as it arrives.
pub(crate) fn token(process: u32, signal: Signal) -> Captured {
    let mut token = Captured(MaybeUninit::zeroed());
    // SAFETY: the value lies on this stack, and zero is a value of every field.
    unsafe {
        (*token.info_mut()).si_signo = signal.number();
        (*token.info_mut()).si_code = TOKEN_CODE;
        // Where every siginfo that a process sends has its sender.
        token.info_mut().cast::<u32>().add(PROCESS_WORD).write(process);
    }
    token
}

/// The process that has queued this token.
pub(crate) fn process_of_token(info: &libc::siginfo_t) -> u32 {
    // SAFETY: a siginfo is 128 initialised bytes.
    unsafe { ptr::from_ref(info).cast::<u32>().add(PROCESS_WORD).read() }
}

/// Whether this is a token.
pub(crate) fn is_token(info: &libc::siginfo_t) -> bool {
    info.si_code == TOKEN_CODE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(signal: Signal, value: u64) -> libc::siginfo_t {
        let mut info = token(1, signal);
        // SAFETY: the value lies in the fourth of six words, on this stack.
        unsafe { info.info_mut().cast::<u64>().add(3).write(value) };
        *info.info()
    }

    /// Where the kernel has refused a token for a later one: what is taken is the oldest all the same, and its token is the later one's.
    #[test]
    fn the_head_of_the_queue_is_taken_whoever_has_the_token() {
        // SAFETY: zero is a value of every field.
        let slots: Slots = unsafe { core::mem::zeroed() };
        let signal = Signal::real_time(3).unwrap();
        let process = crate::sys::process_id();
        assert!(slots.keep(process, signal, &info(signal, 1)) && slots.keep(process, signal, &info(signal, 2)));
        // The promise is kept.
        let _ = slots.promise_token().unwrap();
        let (_, first) = slots.take_waiting(|wanted| wanted == signal).unwrap();
        assert_eq!(words_of(first.info())[3], 1);
        assert!(!slots.waiting() && slots.promised().contains(signal));
        assert_eq!(words_of(slots.take_oldest(process, signal).unwrap().info())[3], 2);
        assert!(slots.is_empty());
    }
}
