//! Runs in children. A fork's child has the state that its parent has prepared, to the last byte and address, and may spoil it.
//!
//! Thread context. The parent has no other thread.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::path::{Boundary, Path};
use crate::forking::in_child;

/// Of a child that has panicked, as of a Rust program.
const PANICKED: i32 = 101;

/// Seconds that a child may take, on a loaded machine: SIGALRM kills it.
const LIMIT: u32 = 30;

/// Runs `body` in a child, which exits with what that returns. A child that does not end is killed by SIGALRM.
///
/// # Panics
///
/// Where the system cannot make a process.
pub fn run(body: impl FnOnce() -> u8) -> ExitStatus {
    let body = || {
        set_limit(LIMIT);
        body()
    };
    let status = in_child(|| catch_unwind(AssertUnwindSafe(body)).map_or(PANICKED, i32::from));
    ExitStatus::from_raw(status.expect("a child process"))
}

/// Gives this process so many seconds from now on; 0 is no limit.
pub fn set_limit(seconds: u32) {
    // SAFETY: an integer; the default action of SIGALRM ends the process.
    unsafe { libc::alarm(seconds) };
}

/// Values that children share with their parent, all zero at first.
#[derive(Debug)]
pub struct Counters<const N: usize>(&'static [AtomicU64; N]);

impl<const N: usize> Counters<N> {
    /// New ones, which stay for as long as the process and its children live.
    ///
    /// # Panics
    ///
    /// Where the system has no memory.
    #[must_use]
    pub fn new() -> Counters<N> {
        // SAFETY: zeroed memory, aligned to a page, of which nobody else knows.
        Counters(unsafe { &*shared_memory(size_of::<[AtomicU64; N]>()).cast() })
    }

    /// Adds to one.
    pub fn add(&self, index: usize, count: u64) {
        self.0[index].fetch_add(count, SeqCst);
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|value| value.load(SeqCst))
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Counters<N> {
        Counters::new()
    }
}

/// Boundaries that a child may hand back.
const MOST: usize = 1 << 20;

/// The way that `body` learns in a child.
///
/// # Panics
///
/// Where the child fails.
pub fn way(body: impl FnOnce() -> Path) -> Path {
    let [size, head] = [size_of::<[usize; 2]>() + MOST * size_of::<Boundary>(), size_of::<[usize; 2]>()];
    // Once, and before anything under test: where memory is mapped may depend on what is mapped already.
    static MEMORY: OnceLock<usize> = OnceLock::new();
    let memory = std::ptr::with_exposed_provenance_mut::<u8>(*MEMORY.get_or_init(|| shared_memory(size).expose_provenance()));
    let counts: *mut [usize; 2] = memory.cast();
    // SAFETY: behind the counts, and aligned as they are.
    let boundaries: *mut Boundary = unsafe { memory.add(head) }.cast();
    let status = run(|| {
        set_limit(10 * LIMIT);
        let Path { boundaries: learnt, sent_at } = body();
        assert!(learnt.len() <= MOST, "a way of {} boundaries", learnt.len());
        // SAFETY: so many fit, and the parent waits.
        unsafe {
            boundaries.copy_from_nonoverlapping(learnt.as_ptr(), learnt.len());
            counts.write([learnt.len(), sent_at]);
        }
        0
    });
    assert!(status.success(), "the way was not learnt: {status}");
    // SAFETY: the child has written them and ended.
    unsafe {
        let [length, sent_at] = counts.read();
        Path { boundaries: std::slice::from_raw_parts(boundaries, length).to_vec(), sent_at }
    }
}

/// Zeroed memory that is this process's and its children's.
fn shared_memory(bytes: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: asks for new memory.
    let memory = unsafe { libc::mmap(null_mut(), bytes, access, libc::MAP_SHARED | libc::MAP_ANON | libc::MAP_NORESERVE, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED, "no memory to share");
    memory.cast()
}
