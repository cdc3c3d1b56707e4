//! The block of memory that a case shares with its watchdog.
//!
//! The child's threads and handlers write; the watchdog reads at any moment, and still can when the child is dead or
//! stopped. It is a memory file, inherited by number. Every word is an atomic, zero is the right start for each, and each
//! counter has one writer at a time, so that a plain load and store count without a locked instruction.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::fault::{Fault, FaultKind};
use crate::futex;
use crate::plan::MAX_THREADS;

/// Where a case stands. Its numbers are the values of [`Shared::phase`].
///
/// | from | to | who |
/// |---|---|---|
/// | `Starting` | `Running` | the child, when every thread is ready |
/// | `Running` | `Stopping` | the watchdog, when the storm has lasted long enough |
/// | `Stopping` | `Draining` | the child, when its driver sends no more |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Phase {
    Starting = 0,
    Running = 1,
    Stopping = 2,
    Draining = 3,
}

/// Where a thread stands. Its numbers are the values of [`ThreadCounters::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ThreadState {
    Absent = 0,
    Working = 1,
    Done = 2,
}

/// Of [`ThreadCounters::state`], for as long as a driver sends to a working thread: its number is not given up meanwhile.
const BEING_SENT: u32 = 3;

/// What the child writes as its last word when everything was in order.
const SUCCESS_TOKEN: u64 = 0x7369_6773_6166_6531;

/// What one thread counts. Apart from its neighbours' cache lines.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct ThreadCounters {
    /// Operations of the main flow. Written by it.
    pub(crate) operations: AtomicU64,
    /// Handler runs begun. Written by the handler.
    pub(crate) entries: AtomicU64,
    /// Handler runs ended. Written by the handler.
    pub(crate) completions: AtomicU64,
    /// Signals sent to the thread. Written by the driver.
    pub(crate) sent: AtomicU64,
    /// Handler runs that a region had held back. Written by the handler.
    pub(crate) deferrals: AtomicU64,
    /// Handler runs that began inside an operation of `SigSafeAlloc`. Written by the handler.
    pub(crate) inside: AtomicU64,
    /// Threads that have ended under this number and were replaced. Written by who starts the next.
    pub(crate) ended: AtomicU64,
    /// Signals that were under way to a thread as it ended. Written as `ended`.
    pub(crate) lost: AtomicU64,
    /// Forks whose child has ended well. Written by the main flow.
    pub(crate) forks: AtomicU64,
    /// The kernel's number of the thread.
    pub(crate) tid: AtomicU32,
    state: AtomicU32,
}

/// The block itself.
#[repr(C)]
pub(crate) struct Shared {
    phase: AtomicU32,
    /// 0: no fault; 1: being written; 2: complete.
    fault_state: AtomicU32,
    fault_kind: AtomicU32,
    fault_thread: AtomicU32,
    fault_in_handler: AtomicU32,
    fault_numbers: [AtomicU64; 5],
    fault_text: [AtomicU64; TEXT_WORDS],
    token: AtomicU64,
    /// When the storm began, on the monotonic clock.
    pub(crate) started_ns: AtomicU64,
    pub(crate) threads: [ThreadCounters; MAX_THREADS as usize],
}

/// Room for the words of a fault, in words of eight bytes.
const TEXT_WORDS: usize = 16;

/// What a check in the child found, and where.
#[derive(Clone, Debug)]
pub(crate) struct FaultReport {
    /// `None` when the child died while it was reporting.
    pub(crate) fault: Option<Fault>,
    pub(crate) thread: u32,
    pub(crate) in_handler: bool,
    /// What else there is to say.
    pub(crate) text: String,
}

/// Adds one to a counter of which the caller is the only writer.
pub(crate) fn count(counter: &AtomicU64) {
    // SIGNAL: no other context of this thread writes this counter, so that nothing is lost between the load and the store.
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl ThreadCounters {
    pub(crate) fn state(&self) -> ThreadState {
        match self.state.load(Ordering::Acquire) {
            0 => ThreadState::Absent,
            1 | BEING_SENT => ThreadState::Working,
            _ => ThreadState::Done,
        }
    }

    pub(crate) fn set_state(&self, state: ThreadState) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Calls `send` and counts a signal for it, unless the thread is not at work or has just ended. For one driver at a time.
    pub(crate) fn send_while_working(&self, send: impl FnOnce() -> bool) {
        let (working, held) = (ThreadState::Working as u32, BEING_SENT);
        if self.state.compare_exchange(working, held, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        // Counted first: the handler may have returned before `send` does.
        count(&self.sent);
        if !send() {
            self.sent.store(self.sent.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        // The thread's own steps to another state are refused or later: see `stop_working`.
        let _ = self.state.compare_exchange(held, working, Ordering::Release, Ordering::Relaxed);
    }

    /// Takes the number of a working thread away from drivers, once none of them is about to send to it.
    pub(crate) fn stop_working(&self, next: ThreadState) {
        while self.state.compare_exchange(ThreadState::Working as u32, next as u32, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
    }

    /// Whether every signal that was sent to the thread has been handled, or has gone with one that ended.
    pub(crate) fn all_handled(&self) -> bool {
        self.sent.load(Ordering::Relaxed) == self.completions.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Running,
            2 => Phase::Stopping,
            _ => Phase::Draining,
        }
    }

    /// Moves from one phase to a later one, and wakes who waits for it.
    pub(crate) fn advance(&self, from: Phase, to: Phase) {
        let exchanged = self.phase.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire);
        if exchanged.is_ok() {
            futex::wake(&self.phase);
        }
    }

    /// Waits while the phase is `phase`.
    pub(crate) fn wait_out(&self, phase: Phase) {
        futex::wait_while(&self.phase, phase as u32);
    }

    pub(crate) fn succeed(&self) {
        self.token.store(SUCCESS_TOKEN, Ordering::Release);
    }

    pub(crate) fn has_succeeded(&self) -> bool {
        self.token.load(Ordering::Acquire) == SUCCESS_TOKEN
    }

    /// As [`Shared::report`], with words beside the numbers, of which the first 128 bytes are kept.
    pub(crate) fn report_text(&self, thread: u32, fault: Fault, text: &str) {
        for (word, bytes) in self.fault_text.iter().zip(text.as_bytes().chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
        }
        self.report(thread, false, fault);
    }

    /// Keeps the first fault for the watchdog. Async-signal-safe. False when another one came first: it may be half written,
    /// by the very code that this call interrupted, so that its numbers are not waited for.
    pub(crate) fn report(&self, thread: u32, in_handler: bool, fault: Fault) -> bool {
        if self.fault_state.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        // SIGNAL: a handler that finds a fault of its own here is refused above and ends the process. The watchdog then reads
        // state 1 and says that the numbers are lost.
        let numbers = [fault.block, fault.size, fault.offset, fault.expected, fault.found];
        for (word, number) in self.fault_numbers.iter().zip(numbers) {
            word.store(number, Ordering::Relaxed);
        }
        self.fault_kind.store(fault.kind as u32, Ordering::Relaxed);
        self.fault_thread.store(thread, Ordering::Relaxed);
        self.fault_in_handler.store(in_handler.into(), Ordering::Relaxed);
        // Release: its partner is the load in `fault`.
        self.fault_state.store(2, Ordering::Release);
        true
    }

    /// The fault that was reported, if one was.
    pub(crate) fn fault(&self) -> Option<FaultReport> {
        let state = self.fault_state.load(Ordering::Acquire);
        let [block, size, offset, expected, found] = [0, 1, 2, 3, 4].map(|n| self.fault_numbers[n].load(Ordering::Relaxed));
        let kind = FaultKind::from_number(self.fault_kind.load(Ordering::Relaxed));
        let fault = kind.filter(|_| state == 2).map(|kind| Fault { kind, block, size, offset, expected, found });
        let text: Vec<u8> = self.fault_text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let text = String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned();
        (state != 0).then(|| FaultReport {
            fault,
            text,
            thread: self.fault_thread.load(Ordering::Relaxed),
            in_handler: self.fault_in_handler.load(Ordering::Relaxed) != 0,
        })
    }
}

/// A mapping of the block.
pub(crate) struct SharedMap(NonNull<Shared>);

impl SharedMap {
    /// Makes `file` large enough and maps it: the watchdog's side.
    pub(crate) fn create(file: &File) -> io::Result<SharedMap> {
        file.set_len(size_of::<Shared>() as u64)?;
        SharedMap::open(file)
    }

    /// Maps `file`: the child's side.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the file is not of the block's size; the failure of `mmap`.
    pub(crate) fn open(file: &File) -> io::Result<SharedMap> {
        const LENGTH: std::num::NonZeroUsize = std::num::NonZeroUsize::new(size_of::<Shared>()).unwrap();
        if file.metadata()?.len() != LENGTH.get() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(None, LENGTH, access, MapFlags::MAP_SHARED, file.as_fd(), 0)? };
        Ok(SharedMap(start.cast()))
    }

    /// The block for the rest of the process's life.
    pub(crate) fn leak(self) -> &'static Shared {
        let start = self.0;
        std::mem::forget(self);
        // SAFETY: page-aligned memory of the block's size, zeroed at first, which is right for every word; shared access is by
        // atomics only, and nothing unmaps it any more.
        unsafe { start.as_ref() }
    }
}

impl Deref for SharedMap {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: as in `leak`; the mapping lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made, of this length; every borrow of it has ended with `self`. A failure would only
        // leave the memory mapped.
        let _ = unsafe { munmap(self.0.cast(), size_of::<Shared>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::memory_file;

    #[test]
    fn two_mappings_show_the_same_words() {
        let file = memory_file().unwrap();
        let (ours, theirs) = (SharedMap::create(&file).unwrap(), SharedMap::open(&file).unwrap());
        count(&ours.threads[63].operations);
        ours.advance(Phase::Starting, Phase::Running);
        ours.advance(Phase::Starting, Phase::Draining);
        assert_eq!(theirs.threads[63].operations.load(Ordering::Relaxed), 1);
        assert_eq!(theirs.phase(), Phase::Running);
        assert!(!theirs.has_succeeded() && theirs.fault().is_none());
    }

    #[test]
    fn the_first_fault_is_kept() {
        let map = SharedMap::create(&memory_file().unwrap()).unwrap();
        let fault = Fault { kind: FaultKind::Sum, block: 1, size: 2, offset: 3, expected: 4, found: 5 };
        assert!(map.report(6, true, fault));
        assert!(!map.report(7, false, Fault { block: 9, ..fault }));
        let report = map.fault().unwrap();
        assert_eq!(report.text, "");
        assert_eq!((report.fault, report.thread, report.in_handler), (Some(fault), 6, true));
    }

    #[test]
    fn words_go_along_with_a_fault() {
        let map = SharedMap::create(&memory_file().unwrap()).unwrap();
        let fault = Fault { kind: FaultKind::Invariant, block: 1, size: 0, offset: 0, expected: 0, found: 0 };
        map.report_text(0, fault, "a list ends at 0x10");
        assert_eq!(map.fault().unwrap().text, "a list ends at 0x10");
    }

    #[test]
    fn a_thread_that_is_being_sent_to_keeps_its_number() {
        let thread = ThreadCounters::default();
        thread.send_while_working(|| panic!("nobody is at work"));
        thread.set_state(ThreadState::Working);
        thread.send_while_working(|| {
            assert_eq!((thread.state(), thread.all_handled()), (ThreadState::Working, false));
            assert!(thread.state.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err());
            true
        });
        thread.send_while_working(|| false);
        assert_eq!(thread.sent.load(Ordering::Relaxed), 1);
        thread.stop_working(ThreadState::Absent);
        assert_eq!(thread.state(), ThreadState::Absent);
        thread.lost.store(1, Ordering::Relaxed);
        assert!(thread.all_handled());
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        assert!(SharedMap::open(&memory_file().unwrap()).is_err());
    }
}
