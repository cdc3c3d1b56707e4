//! Alternate stacks as the kernel sees them, and threads that nobody but the C library has made.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ops::Range;
use std::ptr::{null, null_mut};

/// The calling thread's `sigaltstack` setting: address, size, flags.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub bottom: usize,
    pub bytes: usize,
    pub flags: i32,
}

impl Setting {
    pub const NONE: Setting = Setting { bottom: 0, bytes: 0, flags: libc::SS_DISABLE };

    /// What the calling thread has. Async-signal-safe.
    pub fn current() -> Setting {
        // SAFETY: zero is a value of every field.
        let mut old: libc::stack_t = unsafe { zeroed() };
        // SAFETY: nothing is installed; the pointer is to a live value.
        assert_eq!(unsafe { libc::sigaltstack(null(), &raw mut old) }, 0);
        Setting { bottom: old.ss_sp.addr(), bytes: old.ss_size, flags: old.ss_flags }
    }

    /// Installs it, as foreign code does. The memory is the caller's to keep. Async-signal-safe.
    pub fn install(self) {
        let new = libc::stack_t { ss_sp: std::ptr::with_exposed_provenance_mut(self.bottom), ss_size: self.bytes, ss_flags: self.flags };
        // SAFETY: the tests name memory that stays mapped.
        assert_eq!(unsafe { libc::sigaltstack(&raw const new, null_mut()) }, 0);
    }

    pub fn range(self) -> Range<usize> {
        self.bottom..self.bottom + self.bytes
    }
}

/// Memory for a stack of foreign code's, mapped for ever.
pub fn foreign_stack(bytes: usize) -> Setting {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping touches no memory of anyone's.
    let memory = unsafe { libc::mmap(null_mut(), bytes, access, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    Setting { bottom: memory.expose_provenance(), bytes, flags: 0 }
}

/// An address on the stack that the caller runs on. Async-signal-safe.
#[inline(never)]
pub fn here() -> usize {
    let local = 0u8;
    std::hint::black_box(&raw const local).addr()
}

/// Runs `body` on a thread of the C library's, which has inherited this one's mask and has no alternate stack. Passes on a panic.
pub fn on_foreign_thread(body: impl FnOnce() + Send) {
    struct Task<F>(Option<F>, std::thread::Result<()>);

    extern "C" fn start<F: FnOnce()>(task: *mut c_void) -> *mut c_void {
        // SAFETY: the creator waits for this thread and uses the task only then.
        let task = unsafe { &mut *task.cast::<Task<F>>() };
        let body = task.0.take().unwrap();
        task.1 = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        null_mut()
    }

    fn start_of<F: FnOnce()>(_: &Task<F>) -> extern "C" fn(*mut c_void) -> *mut c_void {
        start::<F>
    }

    let mut task = Task(Some(body), Ok(()));
    let start = start_of(&task);
    // SAFETY: zero is a value of the type.
    let mut thread: libc::pthread_t = unsafe { zeroed() };
    // SAFETY: the task outlives the thread, which is joined below.
    assert_eq!(unsafe { libc::pthread_create(&raw mut thread, null(), start, (&raw mut task).cast()) }, 0);
    // SAFETY: joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, null_mut()) }, 0);
    if let Err(panic) = task.1 {
        std::panic::resume_unwind(panic);
    }
}
