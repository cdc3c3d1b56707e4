//! Faults in regions: their handlers run at once, mend what is wrong, and the region goes on and still holds back what it should.

mod support;

use std::arch::asm;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{Signal, in_region, mask};
use support::seccomp::{self, Filter};
use support::{Form, alone, expect_success, fork_child, kernel_mask, log, log_runs, manage, send};

static TREASURE: u64 = 0x5161_5afe;

/// Reads eight bytes from `address`, which lies in a known register when that faults.
fn read(address: *const u64) -> u64 {
    let value: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads what the caller vouches for; the null address faults, and the handler puts another one in its place.
    unsafe {
        asm!("mov {value}, [rdi]", value = out(reg) value, inout("rdi") address => _, options(nostack, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("ldr {value}, [x0]", value = out(reg) value, inout("x0") address => _, options(nostack, readonly));
    }
    value
}

/// Puts the address of [`TREASURE`] where the null pointer was; the instruction runs again and succeeds.
fn mend_null(delivery: &Delivery<'_>) {
    log::record(delivery);
    let context = delivery.ucontext().expect("a fault has a context").as_ptr();
    let treasure = (&raw const TREASURE).addr();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the register's place in the live frame.
    unsafe {
        (*context).uc_mcontext.gregs[libc::REG_RDI as usize] = treasure as i64;
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        (*context).uc_mcontext.regs[0] = treasure as u64;
    }
}

#[test]
fn a_null_read_in_a_region_reaches_its_handler_and_the_region_goes_on() {
    alone("a_null_read_in_a_region_reaches_its_handler_and_the_region_goes_on", || {
        manage(Handler::new(mend_null), Signal::SEGV);
        log_runs(Signal::USR1);
        for form in Form::ALL {
            let before = kernel_mask();
            form.run(|| {
                assert_eq!(read(null_mut()), TREASURE);
                let rows = log::rows();
                assert_eq!((rows.len(), rows[0].signal, rows[0].info[2]), (1, libc::SIGSEGV, 0), "{form:?}: at once, with the address");
                assert!(rows[0].code() > 0 && !rows[0].deferred && rows[0].in_region && in_region(), "{form:?}");
                send::tgkill(Signal::USR1);
                // With a signal held back too.
                assert_eq!(read(null_mut()), TREASURE);
                assert_eq!(log::signals(), [libc::SIGSEGV; 2], "{form:?}");
                assert_eq!(mask::current(), before, "{form:?}");
            });
            let signals: Vec<_> = log::take().iter().map(|row| row.signal).collect();
            assert_eq!(signals, [libc::SIGSEGV, libc::SIGSEGV, libc::SIGUSR1], "{form:?}");
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
    });
}

static TRAPPED: AtomicUsize = AtomicUsize::new(0);

/// Answers a system call that the filter has trapped, as sandboxes do.
fn answer(delivery: &Delivery<'_>) {
    TRAPPED.fetch_add(1, Ordering::Relaxed);
    let context = delivery.ucontext().expect("a trap has a context").as_ptr();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the register's place in the live frame.
    unsafe {
        (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = 4711;
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        (*context).uc_mcontext.regs[0] = 4711;
    }
}

#[test]
fn a_trapped_system_call_in_a_region_is_answered_by_its_handler() {
    alone("a_trapped_system_call_in_a_region_is_answered_by_its_handler", || {
        // The filter stays, so it is put on a child.
        expect_success(fork_child(|| {
            manage(Handler::new(answer), Signal::SYS);
            log_runs(Signal::USR1);
            seccomp::install(Filter::Trap, libc::SYS_getppid);
            for form in Form::ALL {
                let before = (kernel_mask(), TRAPPED.load(Ordering::Relaxed));
                form.run(|| {
                    // SAFETY: the call takes nothing.
                    assert_eq!(unsafe { libc::syscall(libc::SYS_getppid) }, 4711, "{form:?}");
                    send::tgkill(Signal::USR1);
                    // SAFETY: as above.
                    assert_eq!(unsafe { libc::syscall(libc::SYS_getppid) }, 4711, "{form:?}");
                    assert_eq!(log::count(), 0, "{form:?}");
                });
                assert_eq!(TRAPPED.load(Ordering::Relaxed), before.1 + 2, "{form:?}");
                assert_eq!((log::take().len(), kernel_mask()), (1, before.0), "{form:?}");
            }
        }));
    });
}

#[test]
fn a_fault_tells_its_address_and_a_sent_one_has_none() {
    alone("a_fault_tells_its_address_and_a_sent_one_has_none", || {
        const NOWHERE: usize = 0x1230;
        fn note_address(delivery: &Delivery<'_>) {
            let info = delivery.info();
            log::note(info.address().map_or(1, |address| address as i32));
            if info.is_raised() {
                mend_null(delivery);
            }
        }
        manage(Handler::new(note_address), Signal::SEGV);
        let at = std::ptr::without_provenance(NOWHERE);
        for form in Form::ALL {
            form.run(|| {
                assert_eq!(read(at), TREASURE);
                send::sigqueue_to(send::thread(), Signal::SEGV, 5);
            });
            let signals: Vec<_> = log::take().iter().map(|row| row.signal).collect();
            assert_eq!(signals, [-(NOWHERE as i32), libc::SIGSEGV, -1], "{form:?}");
        }
    });
}
