//! What holds on every system: full-mask regions, handlers without deferral, and a thread record that is made where it is first asked
//! for. `scripts/portable.sh` runs it on Linux as other systems would.

mod support;

use std::cell::RefCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{
    Backend, DefaultBackend, FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, handler_depth, in_region, mask,
};
use support::{alone, kernel_mask};

static RUNS: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicI32 = AtomicI32::new(-1);

fn raise(signal: Signal) {
    // SAFETY: every signal that is sent here has a handler.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

/// Installs a plain function behind sigsafe's back.
fn unmanaged(signal: Signal, handler: extern "C" fn(i32)) {
    // SAFETY: zero is a value of every field; the handler touches atomics and regions.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(signal.number(), &action, null_mut()), 0);
    }
}

#[test]
fn the_default_backend_is_the_cheapest_that_there_is() {
    let expected = if cfg!(any(deferral, target_os = "dragonfly")) { "deferred" } else { "full" };
    assert_eq!(DefaultBackend::NAME, expected);
}

#[test]
fn a_full_region_holds_back_a_handler_that_nobody_manages() {
    extern "C" fn handler(_: i32) {
        RUNS.fetch_add(1, SeqCst);
    }
    alone("a_full_region_holds_back_a_handler_that_nobody_manages", || {
        unmanaged(Signal::USR1, handler);
        critical_with::<FullSyscall, _>(|_| {
            raise(Signal::USR1);
            assert_eq!(RUNS.load(SeqCst), 0);
            assert!(mask::pending().contains(Signal::USR1));
            assert!(!mask::current().contains(Signal::USR1), "the thread itself has blocked nothing");
        });
        assert_eq!(RUNS.load(SeqCst), 1);
        assert_eq!(kernel_mask(), SigSet::EMPTY);
    });
}

#[test]
fn the_first_thing_that_a_thread_does_may_be_a_region_in_a_handler() {
    extern "C" fn handler(_: i32) {
        let guard = MaskGuard::<FullSyscall>::new();
        SEEN.store(in_region().into(), SeqCst);
        drop(guard);
        RUNS.fetch_add(u32::from(!in_region()), SeqCst);
    }
    alone("the_first_thing_that_a_thread_does_may_be_a_region_in_a_handler", || {
        unmanaged(Signal::USR2, handler);
        for _ in 0..50 {
            SEEN.store(-1, SeqCst);
            let errno = std::thread::spawn(|| {
                // SAFETY: this thread's errno, before and after.
                unsafe { *libc::__errno_location() = libc::EXDEV };
                raise(Signal::USR2);
                std::io::Error::last_os_error().raw_os_error()
            });
            assert_eq!(errno.join().unwrap(), Some(libc::EXDEV));
            assert_eq!(SEEN.load(SeqCst), 1);
        }
        assert_eq!(RUNS.load(SeqCst), 50);
    });
}

#[test]
fn a_guard_in_a_thread_local_ends_with_the_thread() {
    std::thread_local!(static KEPT: RefCell<Option<MaskGuard>> = const { RefCell::new(None) });
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            // Dropped before this one, whose region was entered first: the order of the destructors is the reverse of first use.
            SEEN.store(in_region().into(), SeqCst);
            critical(|_| RUNS.fetch_add(u32::from(in_region()), SeqCst));
        }
    }
    std::thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
    alone("a_guard_in_a_thread_local_ends_with_the_thread", || {
        std::thread::spawn(|| {
            LAST.with_borrow_mut(|last| *last = Some(Last));
            KEPT.with_borrow_mut(|kept| *kept = Some(MaskGuard::new()));
            assert!(in_region());
        })
        .join()
        .unwrap();
        assert_eq!(RUNS.load(SeqCst), 1);
        assert!((0..=1).contains(&SEEN.load(SeqCst)));
    });
}

#[test]
fn an_immediate_handler_in_a_region_leaves_the_region_as_it_was() {
    fn immediate(_: &Delivery<'_>) {
        assert_eq!(handler_depth(), 1);
        critical_with::<FullSyscall, _>(|_| assert!(in_region()));
        RUNS.fetch_add(1, SeqCst);
    }
    fn held_back(_: &Delivery<'_>) {
        SEEN.store(RUNS.load(SeqCst) as i32, SeqCst);
    }
    alone("an_immediate_handler_in_a_region_leaves_the_region_as_it_was", || {
        // SAFETY: both touch atomics and regions.
        unsafe {
            Handler::new(immediate).immediate(true).install(Signal::USR1).unwrap();
            Handler::new(held_back).install(Signal::USR2).unwrap();
        }
        critical_with::<FullSyscall, _>(|_| {
            raise(Signal::USR2);
            raise(Signal::USR1);
            assert_eq!((RUNS.load(SeqCst), SEEN.load(SeqCst)), (1, -1));
            assert!(in_region());
        });
        assert_eq!(SEEN.load(SeqCst), 1);
        assert_eq!((kernel_mask(), handler_depth()), (SigSet::EMPTY, 0));
    });
}

#[test]
fn the_options_of_a_handler_hold_without_deferral_too() {
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    fn nested(_: &Delivery<'_>) {
        DEPTH.fetch_max(handler_depth(), SeqCst);
        if RUNS.fetch_add(1, SeqCst) == 0 {
            raise(Signal::USR1);
        }
    }
    fn once(delivery: &Delivery<'_>) {
        assert!(!delivery.was_deferred());
        assert_eq!(delivery.info().as_raw().si_signo, delivery.signal().number());
        assert!(mask::current().contains(Signal::TERM) && mask::current().contains(Signal::USR2));
        mask::block(SigSet::from(Signal::INT));
        SEEN.store(7, SeqCst);
    }
    alone("the_options_of_a_handler_hold_without_deferral_too", || {
        // SAFETY: both touch atomics and the mask.
        let (nested, once) = unsafe {
            let once = Handler::new(once).reset_hand(true).mask(SigSet::from(Signal::TERM));
            (Handler::new(nested).no_defer(true).install(Signal::USR1).unwrap(), once.install(Signal::USR2).unwrap())
        };
        raise(Signal::USR1);
        assert_eq!((RUNS.load(SeqCst), DEPTH.load(SeqCst)), (2, 2), "SA_NODEFER");
        raise(Signal::USR2);
        assert_eq!(SEEN.load(SeqCst), 7);
        assert_eq!(kernel_mask(), SigSet::EMPTY, "what a handler blocks ends with it");
        // SAFETY: zero is a value of every field.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: reads the disposition.
        unsafe { libc::sigaction(libc::SIGUSR2, std::ptr::null(), &raw mut now) };
        assert_eq!(now.sa_sigaction, libc::SIG_DFL, "SA_RESETHAND");
        nested.remove().unwrap();
        once.remove().unwrap();
    });
}

#[test]
fn a_fault_in_a_full_region_reaches_its_handler_and_the_region_goes_on() {
    fn repair(_: &Delivery<'_>) {
        critical_with::<FullSyscall, _>(|_| RUNS.fetch_add(1, SeqCst));
        let page = SEEN_PAGE.load(SeqCst) as *mut libc::c_void;
        // SAFETY: the page that the test has mapped.
        assert_eq!(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) }, 0);
    }
    static SEEN_PAGE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    alone("a_fault_in_a_full_region_reaches_its_handler_and_the_region_goes_on", || {
        // SAFETY: a mapping of its own; the handler touches atomics, a region and that mapping.
        unsafe {
            let page = libc::mmap(null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0);
            SEEN_PAGE.store(page as usize, SeqCst);
            Handler::new(repair).install(Signal::SEGV).unwrap();
            critical_with::<FullSyscall, _>(|_| {
                page.cast::<u8>().write_volatile(1);
                assert!(in_region() && kernel_mask().contains(Signal::USR1));
            });
        }
        assert_eq!(RUNS.load(SeqCst), 1);
        assert_eq!((kernel_mask(), in_region()), (SigSet::EMPTY, false));
    });
}
