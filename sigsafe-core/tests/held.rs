//! A thread that is held between two steps of the library's code, at a system call, while others go on.

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::notifier::Subscription;
use sigsafe_core::{SigInfo, SigSet, Signal};
use support::hold::{self, Hold};
use support::notify::{notifier_thread, receiver};
use support::{Disposition, alone, log, manage, send, spin_until};

/// The handler has found its signal subscribed and has not written it to the pipe. The subscription does not end before it has.
#[test]
fn a_subscription_ends_after_the_handlers_that_are_writing() {
    alone("a_subscription_ends_after_the_handlers_that_are_writing", || {
        let usr1 = SigSet::from(Signal::USR1);
        let receiver = receiver(usr1);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                hold::hold_at(1, libc::SYS_write, Hold::Before);
                send::tgkill(Signal::USR1);
            });
            hold::wait_until_held();
            let ending = scope.spawn(|| {
                receiver.disable(usr1);
                ended.store(true, Ordering::Relaxed);
                receiver.try_recv().map(|info| info.signal())
            });
            // The disposition is put back right before the notifier waits for the handler.
            spin_until(|| Disposition::of(Signal::USR1) == Disposition::DEFAULT);
            let notifier = notifier_thread();
            let before = hold::time_of(notifier);
            // It has not waited, or it has done nothing else for a millisecond.
            spin_until(|| ended.load(Ordering::Relaxed) || hold::time_of(notifier) > before + 1_000_000);
            hold::go_on();
            assert_eq!(ending.join().unwrap(), Some(Signal::USR1), "sent before the end, and delivered by then");
        });
    });
}

/// The handler has found the pipe full. Before it can say so the notifier has emptied the pipe and gone to sleep: it is woken.
#[test]
fn a_signal_that_found_the_pipe_full_is_delivered_though_it_is_empty_by_then() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    static LEAVE: AtomicBool = AtomicBool::new(false);

    fn stay(_: &SigInfo) {
        ENTERED.store(true, Ordering::Relaxed);
        spin_until(|| LEAVE.load(Ordering::Relaxed));
    }

    alone("a_signal_that_found_the_pipe_full_is_delivered_though_it_is_empty_by_then", || {
        let receiver = receiver(Signal::USR1.into());
        let staying = Subscription::new(Signal::USR2.into(), stay).unwrap();
        let notifier = notifier_thread();
        let until_it_sleeps = || spin_until(|| hold::state_of(notifier) == 'S');
        // The notifier stays in the callback while the pipe fills up.
        send::tgkill(Signal::USR2);
        spin_until(|| ENTERED.load(Ordering::Relaxed));
        (0..1000).for_each(|_| send::tgkill(Signal::USR2));
        std::thread::scope(|scope| {
            let held = scope.spawn(|| {
                hold::hold_at(1, libc::SYS_write, Hold::After);
                send::tgkill(Signal::USR1);
            });
            hold::wait_until_held();
            LEAVE.store(true, Ordering::Relaxed);
            // It sleeps only where it waits for something to read.
            until_it_sleeps();
            assert!(receiver.try_recv().is_none(), "the pipe had room");
            hold::go_on();
            held.join().unwrap();
        });
        until_it_sleeps();
        assert_eq!(receiver.try_recv().map(|info| info.signal()), Some(Signal::USR1));
        drop(staying);
    });
}

/// A removal is held between its look at the kernel's disposition and its change of it. An installation by another thread waits, or the
/// removal would undo it.
#[test]
fn a_removal_that_is_held_up_does_not_undo_an_installation() {
    fn note<const TAG: i32>(_: &Delivery<'_>) {
        log::note(TAG);
    }

    alone("a_removal_that_is_held_up_does_not_undo_an_installation", || {
        let signal = Signal::USR1;
        let registration = manage(Handler::new(note::<1>), signal);
        let installer = AtomicI32::new(0);
        let (installed, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let removing = scope.spawn(move || {
                hold::hold_at(2, libc::SYS_rt_sigaction, Hold::Before);
                registration.remove().unwrap();
            });
            hold::wait_until_held();
            scope.spawn(|| {
                installer.store(send::thread(), Ordering::Relaxed);
                manage(Handler::new(note::<2>), signal);
                installed.store(true, Ordering::Relaxed);
                spin_until(|| done.load(Ordering::Relaxed));
            });
            spin_until(|| installer.load(Ordering::Relaxed) != 0);
            let installer = installer.load(Ordering::Relaxed);
            // It has not waited, or it sleeps between two looks at the lock.
            let sleeps = hold::sleeps_of(installer);
            spin_until(|| installed.load(Ordering::Relaxed) || hold::sleeps_of(installer) > sleeps + 2);
            hold::go_on();
            removing.join().unwrap();
            spin_until(|| installed.load(Ordering::Relaxed));
            done.store(true, Ordering::Relaxed);
        });
        assert_ne!(Disposition::of(signal), Disposition::DEFAULT);
        send::tgkill(signal);
        assert_eq!(log::signals(), [-2]);
    });
}
