//! The log of handler runs: a fixed array that handlers append to and the main flow reads.
//!
//! A row is claimed by one addition and written with relaxed stores; the last store says that it is whole. So a handler may append at any
//! instruction, and a test may read while another thread's handlers append.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sigsafe_core::handler::Delivery;
use sigsafe_core::{SigSet, handler_depth, in_region};

use super::kernel_mask;

/// The bytes of a siginfo that the kernel fills, as words.
pub type Info = [u64; 6];

/// One handler run, or one [`note`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The signal's number; for a note, minus its tag.
    pub signal: i32,
    pub info: Info,
    /// The kernel's mask while the handler ran.
    pub mask: SigSet,
    pub deferred: bool,
    pub context: bool,
    pub in_region: bool,
    pub depth: u32,
}

impl Row {
    pub fn code(&self) -> i32 {
        self.info[1] as i32
    }
    pub fn sender(&self) -> i32 {
        self.info[2] as i32
    }
    pub fn uid(&self) -> u32 {
        (self.info[2] >> 32) as u32
    }
    /// A timer's overrun count lies where a sender's user id does.
    pub fn overrun(&self) -> i32 {
        (self.info[2] >> 32) as i32
    }
    pub fn value(&self) -> i32 {
        self.info[3] as i32
    }
}

const ROWS: usize = 256;
const WORDS: usize = 11;
static LOG: [[AtomicU64; WORDS]; ROWS] = [const { [const { AtomicU64::new(0) }; WORDS] }; ROWS];
static USED: AtomicUsize = AtomicUsize::new(0);

fn append(signal: i32, info: Info, flags: [bool; 3], depth: u32) {
    let row = &LOG[USED.fetch_add(1, Ordering::Relaxed) % ROWS];
    let [a, b, c, d, e, f] = info;
    let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
    let words = [signal as u64, a, b, c, d, e, f, kernel_mask().bits(), flags, u64::from(depth)];
    for (word, value) in row.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
    // Release: pairs with the acquire load in `rows`, on another thread.
    row[WORDS - 1].store(1, Ordering::Release);
}

fn words_of(info: &libc::siginfo_t) -> Info {
    // SAFETY: a siginfo has 128 initialised bytes, aligned to eight: the kernel or the library wrote them all.
    unsafe { std::ptr::from_ref(info).cast::<Info>().read() }
}

/// The handler that most tests install: appends a row and returns.
pub fn record(delivery: &Delivery<'_>) {
    let flags = [delivery.was_deferred(), delivery.ucontext().is_some(), in_region()];
    append(delivery.signal().number(), words_of(delivery.info().as_raw()), flags, handler_depth());
}

/// A plain C handler with the same effect, for comparison.
pub extern "C" fn plain(number: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo lives as long as its frame.
    append(number, words_of(unsafe { &*info }), [false, true, in_region()], 0);
}

/// Appends a mark, so that tests see what came before it and what after.
pub fn note(tag: i32) {
    append(-tag, [0; 6], [false, false, in_region()], handler_depth());
}

/// How many handler runs and notes there are.
pub fn count() -> usize {
    USED.load(Ordering::Relaxed)
}

/// All rows so far, in the order of their claims.
pub fn rows() -> Vec<Row> {
    let used = count();
    assert!(used <= ROWS, "{used} rows: the log is too short for this test");
    LOG[..used].iter().map(read).collect()
}

fn read(row: &[AtomicU64; WORDS]) -> Row {
    assert_eq!(row[WORDS - 1].load(Ordering::Acquire), 1, "a row is read while its handler still writes it");
    let word = |index: usize| row[index].load(Ordering::Relaxed);
    let flag = |bit: u32| word(8) >> bit & 1 == 1;
    Row {
        signal: word(0) as i32,
        info: std::array::from_fn(|index| word(1 + index)),
        mask: SigSet::from_bits(word(7)),
        deferred: flag(2),
        context: flag(1),
        in_region: flag(0),
        depth: word(9) as u32,
    }
}

/// The signals of all rows, notes as negative tags.
pub fn signals() -> Vec<i32> {
    rows().iter().map(|row| row.signal).collect()
}

/// The values of all rows.
pub fn values() -> Vec<i32> {
    rows().iter().map(Row::value).collect()
}

/// Reads the rows and empties the log. No handler may be running.
pub fn take() -> Vec<Row> {
    let rows = rows();
    for row in &LOG {
        row[WORDS - 1].store(0, Ordering::Relaxed);
    }
    USED.store(0, Ordering::Relaxed);
    rows
}
