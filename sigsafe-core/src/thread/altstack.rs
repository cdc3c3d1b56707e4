//! Alternate signal stacks: memory with a guard page below it, and `sigaltstack` undone exactly.
//!
//! A handler with `SA_ONSTACK` runs there, which is the only way to handle a stack overflow, and what code with small stacks needs
//! (Go's, stackful coroutines). Runs in the thread itself; all of it is plain system calls and may run in a handler.

use core::ffi::c_int;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, zeroed};
use core::ops::Range;
use core::ptr::{NonNull, null, null_mut};

use super::ThreadError;
use crate::sys;

/// How much of a signal's frame the kernel may need at most for one delivery. A constant of the headers is too small where the
/// processor has AVX-512 or AMX state to save, so Linux tells it at run time.
fn frame_bytes() -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: the call reads a table that the process was started with; it needs no memory. Where it finds nothing it says so in `errno`.
    let told = sys::errno::keeping_errno(|| unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) }) as usize;
    #[cfg(not(target_os = "linux"))]
    let told = 0;
    told.max(MIN_BYTES)
}

/// Of `<signal.h>`, where libc's Rust crate has it; 32 KiB is the largest of any system.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd", target_vendor = "apple"))]
const MIN_BYTES: usize = libc::MINSIGSTKSZ;
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd", target_vendor = "apple")))]
const MIN_BYTES: usize = 32 << 10;

/// Handlers that interrupt each other: each puts a frame of its own on the stack.
const FRAMES: usize = 4;

/// What handlers may use of a stack of ours, beside their frames: enough to format, take locks and walk a stack. It is address space
/// until it is touched.
const DEFAULT_ROOM: usize = 64 << 10;

/// What a foreign stack must offer beside one frame to be adopted. std's own, of 8 KiB, does not.
const ADOPTABLE_ROOM: usize = 16 << 10;

/// Memory for an alternate signal stack, with a guard page below: a handler that overflows it faults and corrupts nothing.
///
/// Its size is four frames of the kernel's (`AT_MINSIGSTKSZ`, which is large where the processor has much state to save) and the room
/// that handlers have for themselves, 64 KiB unless another is asked for. Memory is used as it is touched. It is
/// unmapped on drop.
///
/// Async-signal safety: every method may be called from a handler. Cost: two system calls to make one, one to drop it, one to
/// [install](AltStack::install) it.
#[derive(Debug)]
pub struct AltStack {
    mapping: NonNull<u8>,
    mapped: usize,
    /// The lowest byte that is not of the guard page.
    bottom: usize,
    top: usize,
}

// SAFETY: the memory is private to the value, whichever thread has it.
unsafe impl Send for AltStack {}
// SAFETY: a shared reference tells numbers alone.
unsafe impl Sync for AltStack {}

impl AltStack {
    /// The room that handlers have in a stack of [`new`](AltStack::new).
    pub const DEFAULT_ROOM: usize = DEFAULT_ROOM;

    /// A stack of the usual size.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Memory`].
    pub fn new() -> Result<AltStack, ThreadError> {
        AltStack::with_room(DEFAULT_ROOM)
    }

    /// A stack with `room` bytes for handlers, beside the kernel's frames.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Memory`].
    pub fn with_room(room: usize) -> Result<AltStack, ThreadError> {
        // SAFETY: the call takes no pointer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let usable = (FRAMES * frame_bytes()).checked_add(room).and_then(|bytes| bytes.checked_next_multiple_of(page));
        let mapped = usable.and_then(|bytes| bytes.checked_add(page)).ok_or(ThreadError::Memory(libc::ENOMEM))?;
        let errno = sys::errno();
        let stack = map(mapped, page);
        sys::set_errno(errno);
        stack
    }

    /// The smallest stack that [`init`](super::init) and [`attach`](super::attach) adopt: one frame of the kernel's and 16 KiB.
    pub fn smallest_adopted() -> usize {
        frame_bytes() + ADOPTABLE_ROOM
    }

    /// The addresses that handlers may use, without the guard page.
    pub fn range(&self) -> Range<usize> {
        self.bottom..self.top
    }

    /// Makes it the calling thread's alternate stack until the result is dropped.
    ///
    /// In a handler it lasts until that handler returns at the latest, since the kernel then puts back the settings that the handler was
    /// entered with: drop the result before.
    ///
    /// # Errors
    ///
    /// [`ThreadError::OnAltStack`] in a handler that runs on the alternate stack that the thread has: it cannot be replaced now. (One that
    /// was installed with `SS_AUTODISARM` can.) [`ThreadError::AltStack`] when the system refuses.
    #[doc(alias = "sigaltstack")]
    pub fn install(self) -> Result<InstalledAltStack, ThreadError> {
        let new = setting(self.bottom, self.top - self.bottom, 0);
        let found = exchange(Some(&new)).map_err(|number| match number {
            libc::EPERM if current().ss_flags & libc::SS_ONSTACK != 0 => ThreadError::OnAltStack,
            number => ThreadError::AltStack(number),
        })?;
        Ok(InstalledAltStack { stack: ManuallyDrop::new(self), found, thread: PhantomData })
    }

    /// Takes room for a `T` away from the top, before the stack is in use. Null never: the stack is larger than any such value.
    pub(super) fn reserve<T>(&mut self) -> NonNull<T> {
        const { assert!(size_of::<T>() <= 1 << 10 && align_of::<T>() <= 64) };
        // The top stays aligned to 64 as the mapping's end is.
        self.top -= size_of::<T>().next_multiple_of(64);
        // SAFETY: the top lies in the mapping, at least one page above its start.
        unsafe { self.mapping.add(self.top - self.mapping.as_ptr().addr()).cast() }
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let errno = sys::errno();
        // SAFETY: the mapping is this value's own, and no thread has it as its alternate stack: whoever installs it keeps the value.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
        sys::set_errno(errno);
    }
}

/// An alternate stack in force. The drop puts back the settings that it replaced and unmaps it.
///
/// It must be dropped by the thread that installed it, and in the same handler run if it was in one. Where the memory may still be
/// in use it stays mapped: when the drop runs on the stack itself, and when somebody has installed another stack over it and not
/// taken it away, since his own undoing will name this one.
///
/// Async-signal safety: may be dropped in a handler. Cost: two system calls to drop it.
#[derive(Debug)]
#[must_use = "the stack is taken away again as soon as this is dropped"]
pub struct InstalledAltStack {
    stack: ManuallyDrop<AltStack>,
    found: Setting,
    /// Of one thread.
    thread: PhantomData<*const ()>,
}

impl InstalledAltStack {
    /// The addresses that handlers may use, without the guard page.
    pub fn range(&self) -> Range<usize> {
        self.stack.range()
    }
}

impl Drop for InstalledAltStack {
    fn drop(&mut self) {
        let ours = exchange(Some(&self.found.0)).is_ok_and(|before| before.0.ss_sp.addr() == self.stack.bottom);
        // SIGNAL: a handler from here on runs on the stack that was there before, or on the thread's own.
        if ours {
            // SAFETY: dropped once, here; no thread has the memory as its alternate stack any more.
            unsafe { ManuallyDrop::drop(&mut self.stack) };
        }
    }
}

/// Sees to it that the thread has an alternate stack which is large enough: adopts the one that is there (`None`), or installs one.
///
/// One that is there and too small is replaced for the time, and put back by the drop like any other setting.
pub(super) fn ensure() -> Result<Option<InstalledAltStack>, ThreadError> {
    let there = current();
    if there.ss_flags & libc::SS_DISABLE == 0 && there.ss_size >= AltStack::smallest_adopted() {
        return Ok(None);
    }
    if there.ss_flags & libc::SS_ONSTACK != 0 {
        return Err(ThreadError::OnAltStack);
    }
    AltStack::new()?.install().map(Some)
}

/// `stack_t`, as the kernel reported it.
struct Setting(libc::stack_t);

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting(stack) = self;
        write!(f, "{:?}+{:#x} flags {:#x}", stack.ss_sp, stack.ss_size, stack.ss_flags)
    }
}

fn setting(bottom: usize, bytes: usize, flags: c_int) -> libc::stack_t {
    // SAFETY: `stack_t` is plain data for which zero is a value.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    stack.ss_sp = core::ptr::with_exposed_provenance_mut(bottom);
    stack.ss_size = bytes;
    stack.ss_flags = flags;
    stack
}

/// The calling thread's alternate stack.
fn current() -> libc::stack_t {
    // Asking cannot fail; under a filter that refuses even this, there is none to be adopted.
    exchange(None).map_or_else(|_| setting(0, 0, libc::SS_DISABLE), |found| found.0)
}

/// Whether the calling code, whose stack pointer is `here`, runs on the thread's alternate stack and `there` lies outside of that. Then
/// neither address says which code was called first.
#[cfg(deferral)]
pub(crate) fn separates(here: usize, there: usize) -> bool {
    let stack = current();
    let place = stack.ss_sp.addr()..stack.ss_sp.addr().saturating_add(stack.ss_size);
    place.contains(&here) && !place.contains(&there)
}

/// `sigaltstack`: reads, and with `new` replaces, the setting. The error is the system's number.
fn exchange(new: Option<&libc::stack_t>) -> Result<Setting, c_int> {
    let errno = sys::errno();
    let mut old = setting(0, 0, 0);
    // SAFETY: both pointers are null or to live values. The memory that `new` names is a stack's that is kept until it is taken away,
    // or what the thread had before.
    let result = unsafe { libc::sigaltstack(new.map_or(null(), core::ptr::from_ref), &raw mut old) };
    let number = sys::errno();
    sys::set_errno(errno);
    if result != 0 {
        return Err(number);
    }
    if new.is_some() {
        // What the kernel says of the moment and takes for no setting.
        old.ss_flags &= !libc::SS_ONSTACK;
    }
    Ok(Setting(old))
}

/// Maps `bytes`, of which the first page is not accessible. Changes `errno`.
fn map(bytes: usize, page: usize) -> Result<AltStack, ThreadError> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new private mapping touches no memory of anyone's.
    let mapping = unsafe { libc::mmap(null_mut(), bytes, access, flags, -1, 0) };
    let Some(address) = NonNull::new(mapping.cast::<u8>()).filter(|_| mapping != libc::MAP_FAILED) else {
        return Err(ThreadError::Memory(sys::errno()));
    };
    let bottom = mapping.expose_provenance();
    let stack = AltStack { mapping: address, mapped: bytes, bottom: bottom + page, top: bottom + bytes };
    // SAFETY: the first page of the mapping that has just been made, which nobody uses.
    if unsafe { libc::mprotect(mapping, page, libc::PROT_NONE) } != 0 {
        return Err(ThreadError::Memory(sys::errno()));
    }
    Ok(stack)
}
