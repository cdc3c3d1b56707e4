//! Pipes of siginfo records: every write is one record, shorter than `PIPE_BUF`, and so arrives whole or not at all.
//!
//! `write` runs in the handler too; the rest in ordinary thread context. `errno` stays as it was.

use core::ffi::c_int;
use core::mem::{MaybeUninit, size_of};
use core::ptr::null;
#[cfg(any(target_vendor = "apple", target_os = "solaris", target_os = "illumos"))]
use core::ptr::null_mut;
use core::time::Duration;

use crate::mask;
use crate::sigset::SigSet;
use crate::sys;

/// What a pipe carries. A `si_signo` of 0 is no signal and only wakes the reader.
pub(super) type Record = libc::siginfo_t;

pub(super) const RECORD_BYTES: usize = size_of::<Record>();

// POSIX's least PIPE_BUF: a write of that length is atomic.
const _: () = assert!(RECORD_BYTES <= 512);

/// The two descriptors. Neither end blocks, both are closed on `exec`, and neither is standard input, output or error: what a program that
/// has closed those prints all the same must not get here.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pipe {
    pub(super) read: c_int,
    pub(super) write: c_int,
}

/// Runs a call and puts `errno` back. `Err` is what the call left there.
fn keeping_errno(call: impl FnOnce() -> c_int) -> Result<c_int, i32> {
    let before = sys::errno();
    let result = call();
    let error = sys::errno();
    sys::set_errno(before);
    if result == -1 { Err(error) } else { Ok(result) }
}

#[cfg(not(target_vendor = "apple"))]
fn raw_pipe() -> Result<[c_int; 2], i32> {
    let mut ends = [-1; 2];
    // SAFETY: the call writes the two descriptors.
    keeping_errno(|| unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    Ok(ends)
}

/// Without `pipe2` an `exec` of another thread in between inherits the ends.
#[cfg(target_vendor = "apple")]
fn raw_pipe() -> Result<[c_int; 2], i32> {
    let mut ends = [-1; 2];
    // SAFETY: the call writes the two descriptors.
    keeping_errno(|| unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    for end in ends {
        // SAFETY: the descriptor was made above, and these calls on it cannot fail.
        let _ = keeping_errno(|| unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) });
        // SAFETY: as above.
        let _ = keeping_errno(|| unsafe { libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK) });
    }
    Ok(ends)
}

fn close(end: c_int) {
    // SAFETY: the descriptor is this module's, and nobody uses it after this.
    let _ = keeping_errno(|| unsafe { libc::close(end) });
}

/// The same behind the standard three. An `Err` has closed it.
fn above_standard(end: c_int) -> Result<c_int, i32> {
    if end > libc::STDERR_FILENO || mutant!("standard-descriptors") {
        return Ok(end);
    }
    // SAFETY: the call takes no pointer.
    let higher = keeping_errno(|| unsafe { libc::fcntl(end, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) });
    close(end);
    higher
}

impl Pipe {
    pub(super) fn new() -> Result<Pipe, i32> {
        let ends = raw_pipe()?.map(above_standard);
        let pipe = match ends {
            [Ok(read), Ok(write)] => Pipe { read, write },
            [read, write] => {
                read.into_iter().chain(write).for_each(close);
                return Err(read.and(write).err().unwrap_or(libc::EMFILE));
            }
        };
        // `pselect`, where that is what there is, takes no higher ones.
        if cfg!(any(target_vendor = "apple", target_os = "solaris", target_os = "illumos")) && pipe.read >= libc::FD_SETSIZE as c_int {
            pipe.close();
            return Err(libc::EMFILE);
        }
        Ok(pipe)
    }

    /// Room for `records`, whatever part of a page has been read already. Elsewhere than on Linux a pipe has the size that it has.
    #[cfg(target_os = "linux")]
    pub(super) fn reserve(self, records: usize) -> Result<(), i32> {
        const PAGE: usize = 4096;
        // A page is free again when all of it has been read.
        let bytes = records.saturating_mul(RECORD_BYTES).saturating_add(2 * PAGE - 1) / PAGE * PAGE;
        let bytes = c_int::try_from(bytes).map_err(|_| libc::EINVAL)?;
        // SAFETY: the call takes no pointer.
        keeping_errno(|| unsafe { libc::fcntl(self.write, libc::F_SETPIPE_SZ, bytes) }).map(drop)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn reserve(self, _records: usize) -> Result<(), i32> {
        Ok(())
    }

    /// Whether there was room for the record. Async-signal-safe.
    pub(super) fn write(self, record: &Record) -> bool {
        // SAFETY: the kernel reads the bytes of one live record.
        let written = keeping_errno(|| unsafe { libc::write(self.write, core::ptr::from_ref(record).cast(), RECORD_BYTES) as c_int });
        written == Ok(RECORD_BYTES as c_int)
    }

    /// Fills the front of `records`. How many there were.
    pub(super) fn read(self, records: &mut [MaybeUninit<Record>]) -> usize {
        // SAFETY: the kernel writes at most the slice's bytes.
        let bytes = keeping_errno(|| unsafe { libc::read(self.read, records.as_mut_ptr().cast(), size_of_val(records)) as c_int });
        // Writes are whole records, so reads of a multiple of their size are too.
        bytes.map_or(0, |bytes| bytes as usize / RECORD_BYTES)
    }

    /// Whether the descriptors still lead to the two ends of a pipe, for a reader that found it empty.
    pub(super) fn is_open(self) -> bool {
        let mut probe = libc::pollfd { fd: self.read, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry; it does not wait.
        let result = keeping_errno(|| unsafe { libc::poll(&raw mut probe, 1, 0) });
        let lost = probe.revents & (libc::POLLNVAL | libc::POLLERR | libc::POLLHUP) != 0;
        // SAFETY: the call takes no pointer.
        let writable = keeping_errno(|| unsafe { libc::fcntl(self.write, libc::F_GETFD) });
        result.is_ok() && !lost && writable.is_ok()
    }

    /// How many records wait.
    pub(super) fn waiting(self) -> usize {
        let mut bytes: c_int = 0;
        // SAFETY: the call writes one int.
        let result = keeping_errno(|| unsafe { libc::ioctl(self.read, libc::FIONREAD as _, &raw mut bytes) });
        result.map_or(0, |_| bytes as usize / RECORD_BYTES)
    }

    /// Waits until something can be read, a handler interrupts, or `limit` is over.
    pub(super) fn poll(self, limit: Option<Duration>) {
        // Rounded up, or the last wait of several would spin.
        let milliseconds = limit.map_or(-1, |limit| c_int::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX));
        let mut entry = libc::pollfd { fd: self.read, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        let _ = keeping_errno(|| unsafe { libc::poll(&raw mut entry, 1, milliseconds) });
    }

    /// Waits until something can be read or a handler has run, with `blocked` as the mask.
    pub(super) fn wait(self, blocked: SigSet) {
        poll_with(Some(self.read), blocked);
    }

    pub(super) fn close(self) {
        [self.read, self.write].into_iter().for_each(close);
    }
}

/// Lets one signal in that waits and is not in `blocked`, if there is one.
pub(super) fn admit(blocked: SigSet) {
    poll_with(None, blocked);
}

/// `ppoll`: of a descriptor without limit, or of nothing for no time. The kernel lets in what waits only if nothing can be read, and only
/// until a handler runs whose mask has the rest blocked.
#[cfg(not(any(target_vendor = "apple", target_os = "solaris", target_os = "illumos")))]
fn poll_with(descriptor: Option<c_int>, blocked: SigSet) {
    let mut entry = libc::pollfd { fd: descriptor.unwrap_or(-1), events: libc::POLLIN, revents: 0 };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let limit = if descriptor.is_some() { null() } else { &raw const at_once };
    // SAFETY: all pointers are null or to live values.
    let _ = keeping_errno(|| unsafe { mask::temporary(blocked, |mask| libc::ppoll(&raw mut entry, 1, limit, mask)).unwrap_or(0) });
}

/// As above, by `pselect`, where there is no `ppoll`.
#[cfg(any(target_vendor = "apple", target_os = "solaris", target_os = "illumos"))]
fn poll_with(descriptor: Option<c_int>, blocked: SigSet) {
    // SAFETY: zero is the empty set.
    let mut readable: libc::fd_set = unsafe { core::mem::zeroed() };
    if let Some(descriptor) = descriptor {
        // SAFETY: `Pipe::new` refuses descriptors that the set has no room for.
        unsafe { libc::FD_SET(descriptor, &raw mut readable) };
    }
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let limit = if descriptor.is_some() { null() } else { &raw const at_once };
    let count = descriptor.map_or(0, |descriptor| descriptor + 1);
    let wait = |mask: &libc::sigset_t| {
        // SAFETY: all pointers are null or to live values.
        unsafe { libc::pselect(count, &raw mut readable, null_mut(), null_mut(), limit, mask) }
    };
    let _ = keeping_errno(|| mask::temporary(blocked, wait).unwrap_or(0));
}

/// A record that says nothing but a signal's number, or nothing at all.
pub(super) fn bare(number: c_int) -> Record {
    // SAFETY: zero is a value of every field.
    let mut record: Record = unsafe { core::mem::zeroed() };
    record.si_signo = number;
    record
}
