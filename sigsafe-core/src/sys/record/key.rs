//! The thread record in a page of its own, behind a pthread key.
//!
//! For systems whose TLS is emulated (OpenBSD) or reached by a call that may allocate (macOS). The key is made by whoever comes first
//! and never given back; a thread's page is mapped when the thread asks for the first time, and unmapped at its end.
//!
//! **First use in a handler** therefore costs `mmap`, two mask calls and `pthread_setspecific`, once a thread, and
//! `pthread_key_create`, once a process. POSIX does not list the last two as async-signal-safe. They are in practice for a key that
//! has its place in the thread's block (glibc's first 32, all of macOS's); OpenBSD allocates that place. A thread that enters a
//! region, or asks [`in_region`](crate::in_region), before its first signal has it all behind it.
//!
//! **At a thread's end** the destructors of other keys may still enter and leave regions. So ours puts the record back for as many
//! rounds as POSIX promises, and gives it up in the last. Code that runs after that gets a fresh record, whose page is lost.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::record::RECORD_BYTES;
use crate::sigset::SigSet;
use crate::sys::{self, How};

/// What is mapped for a thread.
#[repr(C)]
struct Page {
    record: [u8; RECORD_BYTES],
    /// How often the destructor has put it back.
    rounds: AtomicU32,
}

/// `_POSIX_THREAD_DESTRUCTOR_ITERATIONS`: what POSIX promises at least, and no system does more.
const ROUNDS: u32 = 4;

/// The key and one, or 0.
static KEY: AtomicUsize = AtomicUsize::new(0);

/// The address of the calling thread's record.
pub(crate) fn record_address() -> *mut u8 {
    let key = key();
    // SAFETY: the key is never deleted.
    let page = unsafe { libc::pthread_getspecific(key) };
    if page.is_null() { new_page(key).cast() } else { page.cast() }
}

fn key() -> libc::pthread_key_t {
    match KEY.load(Ordering::Acquire) {
        0 => new_key(),
        known => (known - 1) as libc::pthread_key_t,
    }
}

#[cold]
fn new_key() -> libc::pthread_key_t {
    let mut fresh: libc::pthread_key_t = 0;
    // SAFETY: writes a key on this stack; the destructor is made for the values that `new_page` sets.
    if unsafe { libc::pthread_key_create(&raw mut fresh, Some(at_thread_end)) } != 0 {
        crate::fatal(&["the system has no thread-specific key left"]);
    }
    // SIGNAL: a handler in between makes a key of its own and wins.
    match KEY.compare_exchange(0, fresh as usize + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(known) => {
            // SAFETY: nobody else has seen this key, and no thread has a value for it.
            unsafe { libc::pthread_key_delete(fresh) };
            (known - 1) as libc::pthread_key_t
        }
    }
}

/// Every signal but the faults, so that no handler comes between the steps below and makes a record of its own.
fn without_handlers<R>(steps: impl FnOnce() -> R) -> R {
    let before = sys::sigprocmask(How::Block, SigSet::RESERVED.union(SigSet::SYNCHRONOUS).complement());
    let result = steps();
    sys::sigprocmask(How::Set, before);
    result
}

#[cold]
fn new_page(key: libc::pthread_key_t) -> *mut c_void {
    without_handlers(|| {
        // SIGNAL: a handler that ran before they were blocked may have made the record.
        // SAFETY: the key is never deleted, here and below.
        let known = unsafe { libc::pthread_getspecific(key) };
        if !known.is_null() {
            return known;
        }
        let page: *mut c_void = sys::map_pages(size_of::<Page>()).cast();
        // SAFETY: as above; the destructor takes such pages.
        if page.is_null() || unsafe { libc::pthread_setspecific(key, page) } != 0 {
            crate::fatal(&["no memory for this thread's record"]);
        }
        page
    })
}

/// The key's destructor. The system has set the thread's value to null before it calls.
extern "C" fn at_thread_end(page: *mut c_void) {
    let key = key();
    without_handlers(|| {
        // SIGNAL: a handler that ran since the value was cleared has made a record, and is done with it.
        // SAFETY: the key is never deleted.
        let other = unsafe { libc::pthread_getspecific(key) };
        if !other.is_null() {
            unmap(other);
        }
        // SAFETY: the value of this key is a page of this type, and this thread's.
        let rounds = unsafe { &(*page.cast::<Page>()).rounds };
        let round = rounds.fetch_add(1, Ordering::Relaxed) + 1;
        let next = if round < ROUNDS { page } else { null_mut() };
        // SAFETY: as above. Where there is no place for the value, the record goes now.
        if unsafe { libc::pthread_setspecific(key, next) } != 0 || next.is_null() {
            unmap(page);
        }
    });
}

fn unmap(page: *mut c_void) {
    // SAFETY: mapped by `new_page` with this size, and no longer anyone's value.
    sys::errno::keeping_errno(|| unsafe { libc::munmap(page, size_of::<Page>()) });
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn a_thread_has_one_record_and_no_two_threads_share_one() {
        let here = record_address();
        assert_eq!(here, record_address());
        assert_eq!(here.addr() % 64, 0);
        // SAFETY: this thread's own page.
        let zeroed = unsafe { core::slice::from_raw_parts(here, RECORD_BYTES) };
        assert!(zeroed.iter().all(|byte| *byte == 0) || cfg!(not(static_record)));
        let there = std::thread::spawn(|| record_address().addr()).join().unwrap();
        assert_ne!(here.addr(), there);
    }

    #[test]
    fn a_thread_that_ends_gives_its_page_back() {
        // Other tests may map something in its place at once, but not each time.
        let gives_back = || {
            let page = std::thread::spawn(|| record_address().addr()).join().unwrap();
            let place = core::ptr::without_provenance_mut::<c_void>(page);
            let mut resident = [0; 16];
            // SAFETY: asks about an address; writes at most one byte for the one page.
            unsafe { libc::mincore(place, 1, resident.as_mut_ptr().cast()) != 0 }
        };
        assert!((0..100).any(|_| gives_back()), "the pages of threads that have ended are still there");
    }

    #[test]
    fn the_destructors_of_later_keys_find_the_record_that_the_thread_had() {
        /// A byte of the record that nothing uses where the record lives here.
        const MARK: usize = RECORD_BYTES - 1;
        static MARKED: AtomicU32 = AtomicU32::new(0);
        extern "C" fn late(_: *mut c_void) {
            // SAFETY: within this thread's record.
            MARKED.store(u32::from(unsafe { record_address().add(MARK).read() }), Ordering::SeqCst);
        }
        // Its key is the lower one, so that its destructor comes first.
        record_address();
        let mut later: libc::pthread_key_t = 0;
        // SAFETY: writes a key on this stack.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut later, Some(late)) }, 0);
        std::thread::spawn(move || {
            // SAFETY: within this thread's record; any value but null has the destructor called.
            unsafe {
                record_address().add(MARK).write(0x5A);
                assert_eq!(libc::pthread_setspecific(later, (&raw const MARKED).cast()), 0);
            }
        })
        .join()
        .unwrap();
        assert_eq!(MARKED.load(Ordering::SeqCst), 0x5A);
    }
}
