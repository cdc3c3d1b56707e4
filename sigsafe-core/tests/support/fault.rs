//! Real faults: a page without access, and a handler that grants it, so that the faulting instruction succeeds when it runs again.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler, Registration};
use sigsafe_core::{Signal, handler};

use super::{log, manage};

const BYTES: usize = 4096;

/// The page that the handler may open.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// A page of which every access faults until the handler has run.
#[derive(Debug)]
pub struct Page(*mut u8);

impl Page {
    pub fn without_access() -> Page {
        // SAFETY: a new mapping touches no memory of anyone's.
        let page = unsafe { libc::mmap(null_mut(), BYTES, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        PAGE.store(page.addr(), Ordering::Relaxed);
        Page(page.cast())
    }

    pub fn address(&self) -> usize {
        self.0.addr()
    }

    /// Writes to the page and reads it back: faults the first time.
    pub fn touch(&self) {
        // SAFETY: the page is mapped; the handler makes it writable.
        unsafe {
            self.0.write_volatile(7);
            assert_eq!(self.0.read_volatile(), 7);
        }
    }
}

/// Opens the page that has faulted. For handlers of SIGSEGV.
pub fn open_page() {
    let page = PAGE.load(Ordering::Relaxed) as *mut libc::c_void;
    // SAFETY: the page is the test's own, mapped and unused by anyone else.
    unsafe { libc::mprotect(page, BYTES, libc::PROT_READ | libc::PROT_WRITE) };
}

fn log_and_open(delivery: &Delivery<'_>) {
    log::record(delivery);
    if delivery.info().is_raised() {
        open_page();
    }
}

/// A SIGSEGV handler that logs, and after a real fault opens the page.
pub fn manage_page_faults() -> Registration {
    manage_faults_with(log_and_open)
}

/// A SIGSEGV handler of the test's own.
pub fn manage_faults_with(function: handler::HandlerFn) -> Registration {
    manage(Handler::new(function), Signal::SEGV)
}
