//! Installing and removing handlers in one thread: who is refused, what a removal restores, and what `restart` does.

mod support;

use std::sync::atomic::{AtomicI32, Ordering};

use sigsafe_core::handler::{Delivery, Handler, InstallError};
use sigsafe_core::{SigSet, Signal, critical};
use support::{Disposition, RT, alone, log, log_runs, manage, mapped_pages, send, spin_until};

#[test]
fn removal_restores_the_default_and_ignoring() {
    alone("removal_restores_the_default_and_ignoring", || {
        for signal in [Signal::USR1, Signal::SEGV, Signal::CHLD, RT] {
            for before in [Disposition::DEFAULT, Disposition::IGNORE] {
                before.install(signal);
                let registration = log_runs(signal);
                assert_ne!(Disposition::of(signal), before);
                assert_eq!(registration.signal(), signal);
                registration.remove().unwrap();
                assert_eq!(Disposition::of(signal), before, "{signal}");
            }
        }
    });
}

#[test]
fn removal_restores_a_plain_handler_with_its_mask_and_flags() {
    alone("removal_restores_a_plain_handler_with_its_mask_and_flags", || {
        let before = Disposition {
            flags: libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_NODEFER | libc::SA_ONSTACK,
            mask: SigSet::EMPTY.with(Signal::HUP).with(RT),
            ..Disposition::plain()
        };
        before.install(Signal::USR1);
        let registration = log_runs(Signal::USR1);
        send::tgkill(Signal::USR1);
        assert_eq!(log::take()[0].depth, 1, "the managed one");
        registration.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), before);
        send::tgkill(Signal::USR1);
        assert_eq!(log::take()[0].depth, 0, "the plain one");
    });
}

#[test]
fn a_dropped_registration_leaves_the_handler_installed() {
    alone("a_dropped_registration_leaves_the_handler_installed", || {
        _ = log_runs(Signal::USR1);
        send::tgkill(Signal::USR1);
        assert_eq!(log::take().len(), 1);
    });
}

fn refused(number: i32) -> InstallError {
    let signal = Signal::new(number).unwrap();
    let before = (!SigSet::EMPTY.with(Signal::KILL)).contains(signal).then(|| raw_disposition(number));
    // SAFETY: the handler touches atomics alone.
    let error = unsafe { Handler::new(log::record).install(signal) }.expect_err("nobody can have a handler for this");
    assert_eq!(before, (!SigSet::EMPTY.with(Signal::KILL)).contains(signal).then(|| raw_disposition(number)));
    error
}

/// The handler word of a signal, by the kernel itself: libc denies that its own signals exist.
fn raw_disposition(number: i32) -> u64 {
    let mut old = [0u64; 4];
    // SAFETY: the kernel writes the 32 bytes of its own struct.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, std::ptr::null::<u64>(), old.as_mut_ptr(), 8usize) };
    assert_eq!(result, 0);
    old[0]
}

#[test]
fn what_cannot_be_caught_is_refused() {
    alone("what_cannot_be_caught_is_refused", || {
        assert_eq!(refused(libc::SIGKILL), InstallError::Uncatchable(Signal::KILL));
        assert_eq!(refused(libc::SIGSTOP), InstallError::Uncatchable(Signal::STOP));
        assert_eq!(refused(libc::SIGKILL).to_string(), "SIGKILL cannot be caught");
    });
}

#[test]
fn what_libc_keeps_for_itself_is_refused() {
    alone("what_libc_keeps_for_itself_is_refused", || {
        for number in 32..libc::SIGRTMIN() {
            assert_eq!(refused(number), InstallError::Reserved(Signal::new(number).unwrap()));
            assert_eq!(refused(number).to_string(), format!("SIG{number} is reserved for the C library"));
        }
    });
}

fn tagged<const TAG: i32>(_: &Delivery<'_>) {
    log::note(TAG);
}

/// The tag of the handler that a delivery reaches now, direct and deferred.
fn reached(signal: Signal) -> i32 {
    send::tgkill(signal);
    critical(|_| send::tgkill(signal));
    let tags = log::signals();
    log::take();
    assert!(tags.len() == 2 && tags[0] == tags[1], "{tags:?}");
    -tags[0]
}

#[test]
fn a_chain_is_removed_from_its_top() {
    alone("a_chain_is_removed_from_its_top", || {
        for signal in [Signal::USR1, RT] {
            let first = manage(Handler::new(tagged::<1>), signal);
            let second = manage(Handler::new(tagged::<2>), signal);
            let third = manage(Handler::new(tagged::<3>), signal);
            assert_eq!(reached(signal), 3);
            third.remove().unwrap();
            assert_eq!(reached(signal), 2);
            second.remove().unwrap();
            assert_eq!(reached(signal), 1);
            first.remove().unwrap();
            assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
        }
    });
}

#[test]
fn removing_what_another_has_replaced_gives_the_registration_back() {
    alone("removing_what_another_has_replaced_gives_the_registration_back", || {
        let first = manage(Handler::new(tagged::<1>), Signal::USR1);
        let second = manage(Handler::new(tagged::<2>), Signal::USR1);
        let replaced = first.remove().expect_err("the second one lies over it");
        assert_eq!(replaced.to_string(), "another handler was installed for SIGUSR1 over this one");
        let first = replaced.into_registration();
        assert_eq!(reached(Signal::USR1), 2);
        second.remove().unwrap();
        assert_eq!(reached(Signal::USR1), 1);
        first.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

#[test]
fn a_plain_sigaction_over_a_managed_handler_is_left_alone() {
    alone("a_plain_sigaction_over_a_managed_handler_is_left_alone", || {
        let registration = manage(Handler::new(tagged::<1>), Signal::USR1);
        let ours = Disposition::of(Signal::USR1);
        Disposition::plain().install(Signal::USR1);
        let registration = registration.remove().expect_err("the plain one lies over it").into_registration();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::plain());
        // The foreign code puts back what it found, as sigaction's callers do.
        ours.install(Signal::USR1);
        assert_eq!(reached(Signal::USR1), 1);
        registration.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

#[test]
fn a_managed_handler_over_a_foreign_one_over_a_managed_one() {
    alone("a_managed_handler_over_a_foreign_one_over_a_managed_one", || {
        let first = manage(Handler::new(tagged::<1>), Signal::USR1);
        let ours = Disposition::of(Signal::USR1);
        Disposition::plain().install(Signal::USR1);
        let second = manage(Handler::new(tagged::<2>), Signal::USR1);
        assert_eq!(reached(Signal::USR1), 2);
        second.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::plain());
        ours.install(Signal::USR1);
        send::tgkill(Signal::USR1);
        assert_eq!(log::signals(), [-1], "the first one, whom the foreign code restored");
        first.remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

#[test]
fn installing_the_same_handlers_again_takes_no_memory() {
    alone("installing_the_same_handlers_again_takes_no_memory", || {
        let round = || {
            let first = manage(Handler::new(tagged::<1>), Signal::USR1);
            let second = manage(Handler::new(tagged::<2>).restart(true), Signal::USR1);
            second.remove().unwrap();
            first.remove().unwrap();
        };
        (0..10).for_each(|_| round());
        let before = mapped_pages();
        (0..10_000).for_each(|_| round());
        assert_eq!(mapped_pages(), before);
        assert_eq!(Disposition::of(Signal::USR1), Disposition::DEFAULT);
    });
}

static TARGET: AtomicI32 = AtomicI32::new(0);

/// Starts a thread that waits in `read` on `pipe`, and returns when the kernel says that it sleeps there.
fn read_in_thread(pipe: i32) -> std::thread::JoinHandle<(isize, i32)> {
    TARGET.store(0, Ordering::Relaxed);
    let reader = std::thread::spawn(move || {
        TARGET.store(send::thread(), Ordering::Release);
        let mut byte = 0u8;
        // SAFETY: the pointer is to one live byte.
        let got = unsafe { libc::read(pipe, (&raw mut byte).cast(), 1) };
        (got, support::errno())
    });
    wait_until_asleep();
    reader
}

/// Waits until the target sleeps in `read`: the system call's number is the first field.
fn wait_until_asleep() {
    spin_until(|| {
        let target = TARGET.load(Ordering::Acquire);
        let call = std::fs::read_to_string(format!("/proc/self/task/{target}/syscall")).unwrap_or_default();
        target != 0 && call.split(' ').next() == Some(&libc::SYS_read.to_string())
    });
}

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: the pointer is to two live ints.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

#[test]
fn restart_restarts_a_system_call_and_its_absence_interrupts_it() {
    alone("restart_restarts_a_system_call_and_its_absence_interrupts_it", || {
        let [read_end, write_end] = pipe();
        for signal in [Signal::USR1, RT] {
            manage(Handler::new(log::record).restart(false), signal);
            let reader = read_in_thread(read_end);
            send::tgkill_to(TARGET.load(Ordering::Relaxed), signal);
            assert_eq!(reader.join().unwrap(), (-1, libc::EINTR));
            log::take();

            manage(Handler::new(log::record).restart(true), signal);
            let reader = read_in_thread(read_end);
            for runs in 1..=3 {
                send::tgkill_to(TARGET.load(Ordering::Relaxed), signal);
                spin_until(|| log::count() == runs);
                wait_until_asleep();
            }
            // SAFETY: the pointer is to one live byte.
            assert_eq!(unsafe { libc::write(write_end, [0u8].as_ptr().cast(), 1) }, 1);
            assert_eq!(reader.join().unwrap().0, 1);
            log::take();
        }
    });
}

fn install_another(delivery: &Delivery<'_>) {
    log::record(delivery);
    let registration = manage(Handler::new(tagged::<7>), Signal::USR2);
    send::tgkill(Signal::USR2);
    if registration.remove().is_err() {
        log::note(8);
    }
}

#[test]
fn a_handler_installs_and_removes_handlers() {
    alone("a_handler_installs_and_removes_handlers", || {
        manage(Handler::new(install_another), Signal::USR1);
        send::tgkill(Signal::USR1);
        critical(|_| send::tgkill(Signal::USR1));
        assert_eq!(log::signals(), [libc::SIGUSR1, -7, libc::SIGUSR1, -7]);
        assert_eq!(Disposition::of(Signal::USR2), Disposition::DEFAULT);
    });
}

#[test]
fn a_foreign_handler_that_has_gone_does_not_come_back() {
    alone("a_foreign_handler_that_has_gone_does_not_come_back", || {
        log_runs(Signal::USR1);
        let ours = Disposition::of(Signal::USR1);
        Disposition::plain().install(Signal::USR1);
        manage(Handler::new(log::record), Signal::USR1).remove().unwrap();
        // As a library does it that saved what it found.
        ours.install(Signal::USR1);
        manage(Handler::new(log::record), Signal::USR1).remove().unwrap();
        assert_eq!(Disposition::of(Signal::USR1), ours);
        send::tgkill(Signal::USR1);
        assert_eq!(log::count(), 1);
    });
}

#[test]
fn a_one_shot_that_has_run_and_been_removed_is_found_again() {
    alone("a_one_shot_that_has_run_and_been_removed_is_found_again", || {
        let round = || {
            let registration = manage(Handler::new(log::record).reset_hand(true), Signal::USR1);
            send::tgkill(Signal::USR1);
            registration.remove().unwrap();
            log::take();
        };
        round();
        let pages = mapped_pages();
        (0..5000).for_each(|_| round());
        assert_eq!(mapped_pages(), pages);
    });
}

/// A token would go to somebody who knows nothing of it, or be discarded, and its signal come back with the next handler.
#[test]
fn a_kept_real_time_signal_meets_what_is_there_at_the_region_s_end() {
    alone("a_kept_real_time_signal_meets_what_is_there_at_the_region_s_end", || {
        for (below, handled) in [(Disposition::IGNORE, &[][..]), (Disposition::plain(), &[1])] {
            below.install(RT);
            let registration = log_runs(RT);
            critical(|_| {
                send::sigqueue_to(send::thread(), RT, 1);
                registration.remove().unwrap();
            });
            assert_eq!(log::values(), handled);
            log::take();
            let registration = log_runs(RT);
            send::sigqueue_to(send::thread(), RT, 2);
            assert_eq!(log::values(), [2]);
            log::take();
            registration.remove().unwrap();
        }
    });
}
