//! Chaining: a handler passes its signal on to what was there before it. A plain C handler below logs depth 0 where a delivery of its own
//! would, and what [`forwarding`] adds is a note before and after.

mod support;

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, mask};
use support::{Disposition, Form, RT, SENT_FAULT, alone, errno, kernel_mask, log, manage, send, set_errno};

/// Passes the signal on between two notes.
fn forwarding<const TAG: i32>(delivery: &Delivery<'_>) {
    log::note(TAG);
    delivery.forward();
    log::note(TAG + 1);
}

fn silent(delivery: &Delivery<'_>) {
    delivery.forward();
}

fn tags() -> Vec<i32> {
    log::take().iter().map(|row| row.signal).collect()
}

#[test]
fn a_managed_handler_below_is_called_with_the_same_delivery() {
    alone("a_managed_handler_below_is_called_with_the_same_delivery", || {
        for signal in [Signal::USR1, RT, SENT_FAULT, Signal::CONT] {
            manage(Handler::new(log::record), signal);
            send::sigqueue(signal, 7);
            manage(Handler::new(silent), signal);
            send::sigqueue(signal, 7);
            Form::ALL.into_iter().for_each(|form| form.run(|| send::sigqueue(signal, 7)));
            let rows = log::take();
            assert_eq!(rows.len(), 2 + Form::ALL.len(), "{signal}");
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(row.info, rows[0].info, "{signal}");
                assert_eq!(row.deferred, index > 1, "{signal}");
                assert!(row.context || signal == Signal::CONT, "{signal}");
                assert_eq!((row.depth, row.in_region), (1, false), "{signal}");
            }
        }
    });
}

#[test]
fn a_plain_handler_below_is_called_with_siginfo_and_context() {
    alone("a_plain_handler_below_is_called_with_siginfo_and_context", || {
        static SEEN: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
        extern "C" fn below(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
            for (place, value) in SEEN.iter().zip([number as usize, info.addr(), context.addr()]) {
                place.store(value, Ordering::Relaxed);
            }
        }
        fn above(delivery: &Delivery<'_>) {
            delivery.forward();
            let context = delivery.ucontext().expect("the kernel's").as_ptr().addr();
            let wanted = [delivery.signal().number() as usize, delivery.raw_info().as_ptr().addr(), context];
            assert_eq!(SEEN.each_ref().map(|place| place.swap(0, Ordering::Relaxed)), wanted);
            log::note(1);
        }
        for signal in [Signal::USR1, RT] {
            Disposition { handler: below as *const () as usize, ..Disposition::plain() }.install(signal);
            manage(Handler::new(above), signal);
            send::tgkill(signal);
            critical(|_| send::tgkill(signal));
            assert_eq!(tags(), [-1, -1]);
        }
    });
}

static NUMBER: AtomicI32 = AtomicI32::new(0);

extern "C" fn old_style(number: i32) {
    NUMBER.store(number, Ordering::Relaxed);
    set_errno(libc::ENOANO);
}

#[test]
fn an_old_style_handler_below_gets_the_number_and_errno_is_kept() {
    alone("an_old_style_handler_below_gets_the_number_and_errno_is_kept", || {
        fn above(delivery: &Delivery<'_>) {
            set_errno(libc::EDOM);
            delivery.forward();
            assert_eq!(errno(), libc::EDOM);
        }
        Disposition { handler: old_style as *const () as usize, flags: 0, mask: SigSet::EMPTY }.install(Signal::USR1);
        manage(Handler::new(above), Signal::USR1);
        set_errno(libc::ERANGE);
        send::tgkill(Signal::USR1);
        assert_eq!((NUMBER.load(Ordering::Relaxed), errno()), (libc::SIGUSR1, libc::ERANGE));
    });
}

/// The masks of an upper handler before it forwards, of the lower one, and of the upper one afterwards.
fn masks_over(install_lower: impl FnOnce()) -> [SigSet; 3] {
    static AROUND: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    fn above(delivery: &Delivery<'_>) {
        AROUND[0].store(kernel_mask().bits(), Ordering::Relaxed);
        delivery.forward();
        AROUND[1].store(kernel_mask().bits(), Ordering::Relaxed);
    }
    install_lower();
    manage(Handler::new(above).mask(SigSet::from(Signal::ALRM)), Signal::USR1);
    send::tgkill(Signal::USR1);
    let rows = log::take();
    assert_eq!(rows.len(), 1);
    let [before, after] = AROUND.each_ref().map(|word| SigSet::from_bits(word.load(Ordering::Relaxed)));
    [before, rows[0].mask, after]
}

#[test]
fn the_mask_of_the_handler_below_is_blocked_around_it() {
    alone("the_mask_of_the_handler_below_is_blocked_around_it", || {
        let mask = SigSet::EMPTY.with(Signal::HUP).with(RT).with(Signal::SEGV);
        let own = SigSet::EMPTY.with(Signal::USR1).with(Signal::ALRM);
        let managed = masks_over(|| _ = manage(Handler::new(log::record).mask(mask), Signal::USR1));
        assert_eq!(managed, [own, own | mask, own], "managed");
        for flags in [libc::SA_SIGINFO, libc::SA_SIGINFO | libc::SA_NODEFER] {
            let plain = masks_over(|| Disposition { mask, flags, ..Disposition::plain() }.install(Signal::USR1));
            assert_eq!(plain, [own, own | mask, own], "plain: what the upper handler has blocked stays so");
        }
    });
}

#[test]
fn a_handler_that_may_be_interrupted_by_its_own_signal_has_it_blocked_below() {
    alone("a_handler_that_may_be_interrupted_by_its_own_signal_has_it_blocked_below", || {
        for (flags, blocked) in [(0, true), (libc::SA_NODEFER, false)] {
            Disposition { flags: flags | libc::SA_SIGINFO, ..Disposition::plain() }.install(Signal::USR1);
            let above = manage(Handler::new(silent).no_defer(true), Signal::USR1);
            send::tgkill(Signal::USR1);
            assert_eq!(log::take()[0].mask.contains(Signal::USR1), blocked);
            above.remove().unwrap();
        }
    });
}

#[test]
fn mask_changes_of_the_handler_below_end_with_it() {
    alone("mask_changes_of_the_handler_below_end_with_it", || {
        fn block_everything(_: &Delivery<'_>) {
            mask::set(SigSet::FULL);
        }
        for immediate in [false, true] {
            manage(Handler::new(block_everything), Signal::USR1);
            manage(
                Handler::new(|delivery: &Delivery<'_>| {
                    let before = mask::current();
                    delivery.forward();
                    assert_eq!(mask::current(), before);
                    log::note(1);
                })
                .immediate(immediate),
                Signal::USR1,
            );
            let before = kernel_mask();
            for form in Form::ALL {
                form.run(|| send::tgkill(Signal::USR1));
                assert_eq!((kernel_mask(), mask::current()), (before, before), "{form:?}");
            }
            assert_eq!(log::take().len(), Form::ALL.len(), "immediate: {immediate}");
        }
    });
}

#[test]
fn an_immediate_handler_forwards_inside_a_region() {
    alone("an_immediate_handler_forwards_inside_a_region", || {
        manage(Handler::new(log::record), Signal::PROF);
        manage(Handler::new(forwarding::<1>).immediate(true), Signal::PROF);
        support::log_runs(Signal::USR1);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                send::tgkill(Signal::PROF);
                assert_eq!(tags(), [-1, libc::SIGPROF, -2], "{form:?}: at once, and USR1 not");
            });
            assert_eq!(tags(), [libc::SIGUSR1], "{form:?}");
        }
        assert_eq!(kernel_mask(), SigSet::EMPTY);
    });
}

#[test]
fn each_of_a_chain_is_called_once_from_the_top() {
    alone("each_of_a_chain_is_called_once_from_the_top", || {
        for signal in [Signal::USR1, RT, Signal::CONT, Signal::ILL] {
            manage(Handler::new(log::record), signal);
            manage(Handler::new(forwarding::<1>), signal);
            manage(Handler::new(forwarding::<3>).mask(Signal::HUP.into()), signal);
            manage(Handler::new(forwarding::<5>), signal);
            let order = [-5, -3, -1, signal.number(), -2, -4, -6];
            send::tgkill(signal);
            assert_eq!(tags(), order);
            for form in Form::ALL {
                form.run(|| {
                    send::tgkill(signal);
                    assert_eq!(log::count(), 0, "{form:?}");
                });
                assert_eq!(tags(), order, "{form:?}");
            }
        }
    });
}

/// A library's handler that passes signals on to what it found.
mod library {
    use super::*;

    static FOUND: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    extern "C" fn handler<const WHICH: usize>(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
        log::note(100 + WHICH as i32);
        // SAFETY: what was found was a handler with SA_SIGINFO.
        let found: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(FOUND[WHICH].load(Ordering::Relaxed)) };
        found(number, info, context);
        log::note(110 + WHICH as i32);
    }

    pub(super) fn install<const WHICH: usize>(signal: Signal) {
        FOUND[WHICH].store(Disposition::of(signal).handler, Ordering::Relaxed);
        Disposition { handler: handler::<WHICH> as *const () as usize, ..Disposition::plain() }.install(signal);
    }
}

#[test]
fn a_foreign_handler_below_that_passes_signals_on_reaches_the_one_below_it() {
    alone("a_foreign_handler_below_that_passes_signals_on_reaches_the_one_below_it", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            manage(Handler::new(log::record), signal);
            library::install::<0>(signal);
            manage(Handler::new(forwarding::<1>), signal);
            library::install::<1>(signal);
            let top = manage(Handler::new(forwarding::<3>), signal);
            let lower = [-100, signal.number(), -110];
            let middle = [&[-101, -1], &lower[..], &[-2, -111]].concat();
            let all = [&[-3], &middle[..], &[-4]].concat();
            send::tgkill(signal);
            assert_eq!(tags(), all);
            for form in Form::ALL {
                form.run(|| send::tgkill(signal));
                assert_eq!(tags(), all, "{form:?}");
            }
            top.remove().unwrap();
            send::tgkill(signal);
            assert_eq!(tags(), middle, "the upper library's handler is the kernel's now");
            Disposition::DEFAULT.install(signal);
        }
    });
}

/// The foreign handler below is interrupted by another signal, which is forwarded to the same one.
#[test]
fn forwards_nest() {
    alone("forwards_nest", || {
        static SENT: AtomicI32 = AtomicI32::new(0);
        extern "C" fn below(number: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
            log::note(number);
            let sent = SENT.swap(0, Ordering::Relaxed);
            if sent != 0 {
                send::tgkill(Signal::new(sent).unwrap());
            }
            log::note(number);
        }
        for signal in [Signal::USR1, Signal::USR2] {
            Disposition { handler: below as *const () as usize, ..Disposition::plain() }.install(signal);
            manage(Handler::new(forwarding::<1>), signal);
        }
        let (one, two) = (libc::SIGUSR1, libc::SIGUSR2);
        SENT.store(two, Ordering::Relaxed);
        send::tgkill(Signal::USR1);
        assert_eq!(tags(), [-1, -one, -1, -two, -two, -2, -one, -2]);
    });
}

#[test]
fn a_handler_dispatched_by_an_exit_gives_a_foreign_one_an_empty_context() {
    alone("a_handler_dispatched_by_an_exit_gives_a_foreign_one_an_empty_context", || {
        extern "C" fn below(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
            let context: *mut libc::ucontext_t = context.cast();
            assert!(!context.is_null());
            // SAFETY: a whole context lies there, with the kernel's eight bytes of mask.
            let (mask, registers) = unsafe {
                let size = size_of::<libc::mcontext_t>();
                (
                    (&raw const (*context).uc_sigmask).cast::<u64>().read(),
                    std::slice::from_raw_parts((&raw const (*context).uc_mcontext).cast::<u8>(), size),
                )
            };
            assert!(registers.iter().all(|byte| *byte == 0));
            assert_eq!(SigSet::from_bits(mask), mask::current());
            log::note(1);
        }
        Disposition { handler: below as *const () as usize, ..Disposition::plain() }.install(Signal::CONT);
        manage(Handler::new(silent), Signal::CONT);
        critical(|_| send::tgkill(Signal::CONT));
        assert_eq!(tags(), [-1]);
    });
}
