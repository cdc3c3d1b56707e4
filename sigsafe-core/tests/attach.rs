//! Threads that somebody else made: what attaching changes, and that detaching puts all of it back.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::thread::{self, AltStack, ThreadError};
use sigsafe_core::{SigSet, Signal, mask};
use support::stack::{Setting, foreign_stack, here, on_foreign_thread};
use support::{Form, SIGNALS, alone, errno, kernel_mask, libc_set, log, log_runs, manage, raw_mask, send, set_errno};

/// What a C library's thread has blocked, essential signals among it.
const FOREIGN: SigSet =
    SigSet::EMPTY.with(Signal::IO).with(Signal::TERM).with(Signal::USR2).with(Signal::PROF).with(Signal::SEGV).with(Signal::CHLD);
const ATTACHED: SigSet = SigSet::EMPTY.with(Signal::IO).with(Signal::TERM).with(Signal::USR2);

/// Runs `body` on a foreign thread with that mask and no alternate stack, and checks that it leaves both alone.
fn foreign(body: impl FnOnce() + Send) {
    on_foreign_thread(|| {
        raw_mask(libc::SIG_SETMASK, FOREIGN);
        assert_eq!(Setting::current(), Setting::NONE);
        body();
        assert_eq!((kernel_mask(), Setting::current()), (FOREIGN, Setting::NONE));
    });
}

#[test]
fn a_foreign_thread_keeps_what_it_had_blocked_unless_essential() {
    alone("a_foreign_thread_keeps_what_it_had_blocked_unless_essential", || {
        log_runs(Signal::IO);
        manage(Handler::new(log::record).on_stack(true), Signal::PROF);
        foreign(|| {
            let attached = thread::attach().unwrap();
            assert!(!attached.adopted_alt_stack());
            assert_eq!((kernel_mask(), mask::current()), (ATTACHED, ATTACHED));
            send::tgkill(Signal::IO);
            send::tgkill(Signal::PROF);
            assert_eq!(log::signals(), [libc::SIGPROF]);
            assert!(mask::pending().contains(Signal::IO));
            attached.detach();
            assert_eq!(log::count(), 1, "detaching let SIGIO in");
        });
    });
}

#[test]
fn detaching_puts_the_mask_back_though_it_was_changed_in_between() {
    alone("detaching_puts_the_mask_back_though_it_was_changed_in_between", || {
        foreign(|| {
            for set in [SigSet::EMPTY, SigSet::FULL, Signal::HUP.into(), Signal::PROF.into()] {
                for change in [mask::set, mask::block, mask::unblock] {
                    let attached = thread::attach().unwrap();
                    change(set);
                    drop(attached);
                    assert_eq!(kernel_mask(), FOREIGN, "{set:?}");
                }
                let attached = thread::attach().unwrap();
                raw_mask(libc::SIG_SETMASK, set);
                drop(attached);
                // What no mask operation speaks of is the business of whoever changed it.
                assert_eq!(kernel_mask() - SigSet::RESERVED, FOREIGN, "{set:?}, by the C library");
                raw_mask(libc::SIG_SETMASK, FOREIGN);
            }
        });
    });
}

#[test]
fn attaching_leaves_libc_s_own_signals_as_they_are() {
    alone("attaching_leaves_libc_s_own_signals_as_they_are", || {
        on_foreign_thread(|| {
            let all = SIGNALS - Signal::KILL.into() - Signal::STOP.into();
            raw_mask(libc::SIG_SETMASK, SigSet::FULL);
            let attached = thread::attach().unwrap();
            assert_eq!(kernel_mask(), all - SigSet::ESSENTIAL);
            drop(attached);
            assert_eq!(kernel_mask(), all);
        });
    });
}

#[test]
fn an_attachment_inside_another_changes_nothing() {
    alone("an_attachment_inside_another_changes_nothing", || {
        foreign(|| {
            let outer = thread::attach().unwrap();
            let stack = Setting::current();
            // The thread may change its mask while it is attached; that is not undone by the inner one.
            mask::block(Signal::PROF.into());
            let inner = thread::attach().unwrap();
            assert_eq!(kernel_mask(), ATTACHED.with(Signal::PROF));
            mask::block(Signal::HUP.into());
            drop(inner);
            assert_eq!(kernel_mask(), ATTACHED.with(Signal::PROF).with(Signal::HUP));
            assert_eq!(Setting::current(), stack);
            drop(outer);
        });
    });
}

#[test]
fn an_attachment_that_outlives_the_outermost_does_nothing_more() {
    alone("an_attachment_that_outlives_the_outermost_does_nothing_more", || {
        foreign(|| {
            let outer = thread::attach().unwrap();
            let inner = thread::attach().unwrap();
            drop(outer);
            assert_eq!((kernel_mask(), Setting::current()), (FOREIGN, Setting::NONE));
            // The thread is foreign again, and can be attached again, with `inner` alive.
            let again = thread::attach().unwrap();
            assert_eq!(kernel_mask(), ATTACHED);
            drop(inner);
            assert_eq!(kernel_mask(), ATTACHED);
            drop(again);
        });
    });
}

#[test]
fn attaching_and_detaching_in_regions_is_about_the_logical_mask() {
    alone("attaching_and_detaching_in_regions_is_about_the_logical_mask", || {
        log_runs(Signal::USR1);
        log_runs(Signal::PROF);
        for form in Form::ALL {
            foreign(|| {
                // All of it in one region, with a signal held back before, between and after.
                for place in 0..3 {
                    let send_at = |here| {
                        if here == place {
                            send::tgkill(Signal::USR1);
                        }
                    };
                    form.run(|| {
                        send_at(0);
                        let attached = thread::attach().unwrap();
                        assert_eq!(mask::current(), ATTACHED, "{form:?} {place}");
                        send_at(1);
                        drop(attached);
                        assert_eq!(mask::current(), FOREIGN, "{form:?} {place}");
                        send_at(2);
                    });
                    assert_eq!(log::take().len(), 1, "{form:?} {place}");
                    assert_eq!(kernel_mask(), FOREIGN, "{form:?} {place}");
                }
                // Attached in a region, detached outside, and the other way round.
                let attached = form.run(|| {
                    send::tgkill(Signal::USR1);
                    thread::attach().unwrap()
                });
                assert_eq!(kernel_mask(), ATTACHED, "{form:?}");
                form.run(|| {
                    send::tgkill(Signal::PROF);
                    drop(attached);
                });
                assert_eq!(kernel_mask(), FOREIGN, "{form:?}");
                assert_eq!(log::take().iter().map(|row| row.signal).collect::<Vec<_>>(), [libc::SIGUSR1], "{form:?}");
                // SIGPROF waits, blocked again by the foreign thread.
                assert!(mask::pending().contains(Signal::PROF), "{form:?}");
            });
        }
    });
}

#[test]
fn an_alt_stack_that_is_large_enough_is_adopted() {
    alone("an_alt_stack_that_is_large_enough_is_adopted", || {
        let own = foreign_stack(AltStack::smallest_adopted().next_multiple_of(4096));
        on_foreign_thread(|| {
            own.install();
            let attached = thread::attach().unwrap();
            assert!(attached.adopted_alt_stack());
            assert_eq!(Setting::current(), own);
            drop(attached);
            assert_eq!(Setting::current(), own);
        });
    });
}

#[test]
fn an_alt_stack_that_is_too_small_is_replaced_and_comes_back() {
    alone("an_alt_stack_that_is_too_small_is_replaced_and_comes_back", || {
        attached_with_small_stack(0);
    });
}

#[test]
fn an_alt_stack_that_is_too_small_and_disarms_itself_is_replaced_and_comes_back() {
    alone("an_alt_stack_that_is_too_small_and_disarms_itself_is_replaced_and_comes_back", || {
        attached_with_small_stack(SS_AUTODISARM);
    });
}

fn attached_with_small_stack(flags: i32) {
    manage(Handler::new(note_stack).on_stack(true), Signal::USR1);
    let own = Setting { flags, ..foreign_stack(AltStack::smallest_adopted() - 1) };
    on_foreign_thread(|| {
        own.install();
        set_errno(7);
        let attached = thread::attach().unwrap();
        assert_eq!(errno(), 7);
        assert!(!attached.adopted_alt_stack());
        let ours = Setting::current();
        send::tgkill(Signal::USR1);
        assert!(ours.range().contains(&PLACE.load(Ordering::Relaxed)) && ours.bytes > AltStack::smallest_adopted());
        drop(attached);
        assert_eq!((errno(), Setting::current()), (7, own));
        send::tgkill(Signal::USR1);
        assert!(own.range().contains(&PLACE.load(Ordering::Relaxed)));
    });
}

const SS_AUTODISARM: i32 = i32::MIN;

static PLACE: AtomicUsize = AtomicUsize::new(0);

fn note_stack(_: &Delivery<'_>) {
    PLACE.store(here(), Ordering::Relaxed);
}

/// What the handler of the tests below has seen: 1 for each check that held.
static CHECKS: AtomicUsize = AtomicUsize::new(0);

/// Attaches in a handler, whose `sa_mask` is `ATTACHED` and SIGSEGV.
fn attach_in_handler(delivery: &Delivery<'_>) {
    let found = (kernel_mask(), Setting::current());
    let attached = thread::attach().unwrap();
    let inner = thread::attach().unwrap();
    // A fault that is blocked would kill; what the handler has asked not to be interrupted by stays blocked.
    let own = kernel_mask().contains(delivery.signal()) && !kernel_mask().contains(Signal::SEGV);
    drop(inner);
    let large = Setting::current().bytes >= AltStack::smallest_adopted();
    drop(attached);
    let back = (kernel_mask(), Setting::current()) == found;
    CHECKS.fetch_add(usize::from(own) + usize::from(large) + usize::from(back), Ordering::Relaxed);
}

#[test]
fn a_handler_may_attach_and_ends_as_it_began() {
    alone("a_handler_may_attach_and_ends_as_it_began", || {
        let handler = Handler::new(attach_in_handler).mask(ATTACHED.with(Signal::SEGV));
        for signal in [Signal::PROF, Signal::CHLD, Signal::HUP] {
            manage(handler, signal);
            foreign(|| {
                // On the foreign thread as it is; attached already; and deferred, at the end of each form of region.
                mask::unblock(signal.into());
                send::tgkill(signal);
                assert_eq!(CHECKS.swap(0, Ordering::Relaxed), 3, "{signal}");
                raw_mask(libc::SIG_SETMASK, FOREIGN);
                for form in Form::ALL {
                    let attached = thread::attach().unwrap();
                    mask::unblock(signal.into());
                    let before = kernel_mask();
                    form.run(|| send::tgkill(signal));
                    // Inside another attachment the handler's mask stays as it is, SIGSEGV included.
                    assert_eq!(CHECKS.swap(0, Ordering::Relaxed), 2, "{signal} {form:?}");
                    assert_eq!(kernel_mask(), before, "{signal} {form:?}");
                    drop(attached);
                }
            });
        }
    });
}

static ERROR: AtomicUsize = AtomicUsize::new(0);

/// Tries to attach on an alternate stack that is too small, and changes nothing.
fn attach_on_small_stack(_: &Delivery<'_>) {
    let found = (kernel_mask(), Setting::current());
    let refused = thread::attach().err() == Some(ThreadError::OnAltStack)
        && thread::init(SigSet::EMPTY).err() == Some(ThreadError::OnAltStack)
        && AltStack::new().unwrap().install().err() == Some(ThreadError::OnAltStack);
    ERROR.store(1 + usize::from(refused && (kernel_mask(), Setting::current()) == found), Ordering::Relaxed);
}

#[test]
fn a_handler_on_an_alt_stack_that_is_too_small_is_refused() {
    alone("a_handler_on_an_alt_stack_that_is_too_small_is_refused", || {
        manage(Handler::new(attach_on_small_stack).on_stack(true), Signal::USR1);
        manage(Handler::new(attach_in_handler).on_stack(true).mask(ATTACHED.with(Signal::SEGV)), Signal::HUP);
        on_foreign_thread(|| {
            let small = foreign_stack(AltStack::smallest_adopted() - 1);
            small.install();
            send::tgkill(Signal::USR1);
            assert_eq!(ERROR.load(Ordering::Relaxed), 2);
            assert_eq!(Setting::current(), small);
            // On one that is large enough there is nothing to change.
            foreign_stack(AltStack::smallest_adopted()).install();
            send::tgkill(Signal::HUP);
            assert_eq!(CHECKS.load(Ordering::Relaxed), 3);
        });
    });
}

#[test]
fn a_handler_on_an_alt_stack_that_is_too_small_and_disarms_itself_attaches() {
    alone("a_handler_on_an_alt_stack_that_is_too_small_and_disarms_itself_attaches", || {
        manage(Handler::new(attach_in_handler).on_stack(true).mask(ATTACHED.with(Signal::SEGV)), Signal::HUP);
        on_foreign_thread(|| {
            let small = Setting { flags: SS_AUTODISARM, ..foreign_stack(AltStack::smallest_adopted() - 1) };
            small.install();
            send::tgkill(Signal::HUP);
            assert_eq!(CHECKS.load(Ordering::Relaxed), 3);
            assert_eq!(Setting::current(), small);
        });
    });
}

#[test]
fn init_takes_the_captured_mask_and_is_undone_exactly() {
    alone("init_takes_the_captured_mask_and_is_undone_exactly", || {
        foreign(|| {
            for captured in [SigSet::EMPTY, SigSet::FULL, FOREIGN, Signal::HUP.into()] {
                for change in [SigSet::EMPTY, SigSet::FULL, Signal::PROF.into()] {
                    let init = thread::init(captured).unwrap();
                    assert!(!init.adopted_alt_stack());
                    assert_eq!(
                        kernel_mask(),
                        (captured & SIGNALS) - SigSet::ESSENTIAL - SigSet::RESERVED - Signal::KILL.into() - Signal::STOP.into()
                    );
                    assert_eq!(kernel_mask(), mask::current());
                    assert_ne!(Setting::current(), Setting::NONE);
                    mask::set(change);
                    drop(init);
                    assert_eq!((kernel_mask(), Setting::current()), (FOREIGN, Setting::NONE));
                }
            }
        });
    });
}

#[test]
fn a_signal_that_waited_is_delivered_on_the_alt_stack_of_init() {
    alone("a_signal_that_waited_is_delivered_on_the_alt_stack_of_init", || {
        manage(Handler::new(note_stack).on_stack(true), Signal::USR1);
        on_foreign_thread(|| {
            raw_mask(libc::SIG_SETMASK, SigSet::EMPTY.with(Signal::USR1));
            send::tgkill(Signal::USR1);
            let init = thread::init(SigSet::EMPTY).unwrap();
            assert!(Setting::current().range().contains(&PLACE.load(Ordering::Relaxed)), "before the stack was in place");
            drop(init);
        });
    });
}

#[test]
fn inits_that_end_in_any_order_leave_a_thread_that_works() {
    alone("inits_that_end_in_any_order_leave_a_thread_that_works", || {
        manage(Handler::new(note_stack).on_stack(true), Signal::USR1);
        foreign(|| {
            let first = thread::init(SigSet::EMPTY).unwrap();
            let second = thread::init(SigSet::EMPTY).unwrap();
            assert!(second.adopted_alt_stack());
            drop(first);
            send::tgkill(Signal::USR1);
            drop(second);
            raw_mask(libc::SIG_SETMASK, FOREIGN);
        });
    });
}

#[test]
fn capture_says_what_the_thread_itself_has_blocked() {
    alone("capture_says_what_the_thread_itself_has_blocked", || {
        log_runs(Signal::USR1);
        raw_mask(libc::SIG_SETMASK, FOREIGN);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                assert!(kernel_mask().contains(Signal::HUP), "{form:?}: nothing is held back");
                assert_eq!(thread::capture(), FOREIGN, "{form:?}");
            });
        }
        // As POSIX's own pthread_sigmask says outside regions.
        let mut set = libc_set(SigSet::EMPTY);
        // SAFETY: the pointers are null and to a live value.
        assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set) }, 0);
        // SAFETY: libc's set begins with the kernel's eight bytes.
        assert_eq!(thread::capture().bits(), unsafe { (&raw const set).cast::<u64>().read() });
    });
}
