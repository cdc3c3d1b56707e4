//! Adoption: handlers that others installed by plain calls, put behind the trampoline and given back.

mod support;

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use sigsafe_core::handler::{AdoptError, Delivery, Handler, InstallError, Registration, adopt};
use sigsafe_core::{SigSet, Signal, critical, mask};
use support::{Disposition, Form, RT, SENT_FAULT, alone, expect_success, fork_child, kernel_mask, log, manage, reap, send, spin_until};

/// Adopts what these tests have installed: it returns.
fn take(signal: Signal) -> Registration {
    // SAFETY: the plain handlers of these tests return, and are functions of this program.
    unsafe { adopt(signal) }.expect("the handler is adopted")
}

fn why_not(signal: Signal) -> AdoptError {
    // SAFETY: as in `take`.
    unsafe { adopt(signal) }.expect_err("there is nothing to adopt")
}

fn tags() -> Vec<i32> {
    log::take().iter().map(|row| row.signal).collect()
}

#[test]
fn an_adopted_handler_is_held_back_by_regions_and_gets_what_the_kernel_gave() {
    alone("an_adopted_handler_is_held_back_by_regions_and_gets_what_the_kernel_gave", || {
        for signal in [Signal::USR1, RT, Signal::CHLD, SENT_FAULT] {
            Disposition::plain().install(signal);
            send::sigqueue(signal, 7);
            let adopted = take(signal);
            send::sigqueue(signal, 7);
            for form in Form::ALL {
                let count = log::count();
                form.run(|| {
                    send::sigqueue(signal, 7);
                    assert_eq!(log::count(), count, "{signal} {form:?}");
                });
                assert_eq!(log::count(), count + 1, "{signal} {form:?}");
            }
            adopted.remove().unwrap();
            critical(|_| send::sigqueue(signal, 7));
            let rows = log::take();
            for (index, row) in rows.iter().enumerate() {
                assert_eq!((row.info, row.mask), (rows[0].info, rows[0].mask), "{signal}");
                assert_eq!(row.in_region, index == rows.len() - 1, "{signal}: only after it was given back");
            }
            assert_eq!(kernel_mask(), SigSet::EMPTY);
        }
    });
}

/// The 32 bytes of the kernel's own struct: handler, flags, restorer, mask.
fn raw(signal: Signal) -> [u64; 4] {
    let mut old = [0u64; 4];
    // SAFETY: the kernel writes the 32 bytes of its own struct.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.number(), null::<u64>(), old.as_mut_ptr(), 8usize) };
    assert_eq!(result, 0);
    old
}

fn install_raw(signal: Signal, new: [u64; 4]) {
    // SAFETY: the kernel reads the 32 bytes of its own struct; no signal comes while it is installed.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal.number(), new.as_ptr(), std::ptr::null_mut::<u64>(), 8usize) };
    assert_eq!(result, 0);
}

extern "C" fn never_called() {
    unreachable!();
}

#[test]
fn giving_back_restores_the_foreign_sigaction_bit_for_bit() {
    alone("giving_back_restores_the_foreign_sigaction_bit_for_bit", || {
        const RESTORER: i32 = 0x0400_0000;
        // One that no libc knows (SA_EXPOSE_TAGBITS).
        const UNKNOWN: i32 = 0x800;
        let flags = [
            libc::SA_SIGINFO,
            libc::SA_ONSTACK,
            libc::SA_RESTART,
            libc::SA_NODEFER,
            libc::SA_RESETHAND,
            libc::SA_NOCLDSTOP,
            libc::SA_NOCLDWAIT,
        ];
        for signal in [Signal::USR1, RT, Signal::CHLD, Signal::SEGV] {
            for chosen in 0..1 << flags.len() {
                let of = |(index, flag): (usize, &i32)| if chosen >> index & 1 == 1 { *flag } else { 0 };
                let chosen = flags.iter().enumerate().map(of).fold(RESTORER | UNKNOWN, |all, flag| all | flag);
                // With bits of libc's own signals, which libc would not set.
                let mask = SigSet::from_bits(0x5a5a_0000_a5a5_5a5a) - SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP);
                let function = never_called as *const () as u64;
                let before = [function, u64::from(chosen as u32), function, mask.bits()];
                install_raw(signal, before);
                assert_eq!(raw(signal), before);
                let adopted = take(signal);
                assert_eq!(adopted.signal(), signal);
                let now = Disposition::of(signal);
                let kept = libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;
                assert_eq!(now.flags, chosen & kept | libc::SA_SIGINFO, "{chosen:#x}");
                adopted.remove().unwrap();
                assert_eq!(raw(signal), before, "{signal}, flags {chosen:#x}");
            }
            Disposition::DEFAULT.install(signal);
        }
    });
}

static NUMBERS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn old_style(number: i32) {
    NUMBERS.fetch_add(number as usize, Ordering::Relaxed);
}

#[test]
fn an_old_style_handler_is_adopted() {
    alone("an_old_style_handler_is_adopted", || {
        for signal in [Signal::USR1, RT, Signal::CONT] {
            let number = signal.number() as usize;
            // SAFETY: the handler touches an atomic.
            assert_ne!(unsafe { libc::signal(signal.number(), old_style as *const () as usize) }, libc::SIG_ERR);
            let adopted = take(signal);
            NUMBERS.store(0, Ordering::Relaxed);
            send::tgkill(signal);
            assert_eq!(NUMBERS.load(Ordering::Relaxed), number);
            critical(|_| {
                send::tgkill(signal);
                assert_eq!(NUMBERS.load(Ordering::Relaxed), number);
            });
            assert_eq!(NUMBERS.load(Ordering::Relaxed), 2 * number);
            adopted.remove().unwrap();
            assert_eq!(Disposition::of(signal).handler, old_style as *const () as usize);
        }
    });
}

extern "C" fn raise_itself_once(number: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    log::note(1);
    if RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        send::tgkill(Signal::new(number).unwrap());
    }
    log::note(2);
}

#[test]
fn its_mask_and_no_defer_are_kept() {
    alone("its_mask_and_no_defer_are_kept", || {
        let plain =
            |flags: i32, mask| Disposition { handler: raise_itself_once as *const () as usize, flags: flags | libc::SA_SIGINFO, mask };
        for signal in [Signal::USR1, RT] {
            for (disposition, nested) in [
                (plain(0, SigSet::EMPTY), false),
                (plain(libc::SA_NODEFER, SigSet::EMPTY), true),
                (plain(libc::SA_NODEFER, signal.into()), false),
            ] {
                disposition.install(signal);
                let order: &[i32] = if nested { &[-1, -1, -2, -2] } else { &[-1, -2, -1, -2] };
                send::tgkill(signal);
                assert_eq!(tags(), order, "the kernel");
                let adopted = take(signal);
                send::tgkill(signal);
                assert_eq!(tags(), order, "adopted");
                for form in Form::ALL {
                    form.run(|| send::tgkill(signal));
                    assert_eq!(tags(), order, "adopted, {form:?}");
                }
                adopted.remove().unwrap();
            }
        }
        let mask = SigSet::EMPTY.with(Signal::HUP).with(Signal::SEGV).with(RT);
        Disposition { mask, ..Disposition::plain() }.install(Signal::USR2);
        take(Signal::USR2);
        send::tgkill(Signal::USR2);
        critical(|_| send::tgkill(Signal::USR2));
        assert!(log::take().iter().all(|row| row.mask == mask.with(Signal::USR2)));
    });
}

#[test]
fn a_one_shot_is_called_once() {
    alone("a_one_shot_is_called_once", || {
        for signal in [Signal::WINCH, Signal::URG] {
            for deferred in [false, true] {
                Disposition { flags: libc::SA_SIGINFO | libc::SA_RESETHAND, ..Disposition::plain() }.install(signal);
                let adopted = take(signal);
                if deferred {
                    critical(|_| send::tgkill(signal));
                } else {
                    send::tgkill(signal);
                }
                assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
                send::tgkill(signal);
                assert_eq!(tags(), [signal.number()]);
                adopted.remove().expect("it is given back already");
                assert_eq!(Disposition::of(signal), Disposition::DEFAULT);
            }
        }
        let child = fork_child(|| {
            Disposition { flags: libc::SA_SIGINFO | libc::SA_RESETHAND, ..Disposition::plain() }.install(Signal::USR1);
            take(Signal::USR1);
            send::tgkill(Signal::USR1);
            send::tgkill(Signal::USR1);
        });
        let status = reap(child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGUSR1, "{status:#x}");
    });
}

#[test]
fn it_runs_on_the_alternate_stack_if_it_asked_to() {
    alone("it_runs_on_the_alternate_stack_if_it_asked_to", || {
        static ON_STACK: AtomicBool = AtomicBool::new(false);
        extern "C" fn where_am_i(_: i32) {
            // SAFETY: zero is a value of every field.
            let mut stack: libc::stack_t = unsafe { zeroed() };
            // SAFETY: the pointer is to a live value.
            assert_eq!(unsafe { libc::sigaltstack(null(), &raw mut stack) }, 0);
            ON_STACK.store(stack.ss_flags & libc::SS_ONSTACK != 0, Ordering::Relaxed);
        }
        let _stack = sigsafe_core::thread::attach().expect("an alternate stack");
        for on_stack in [false, true] {
            let flags = if on_stack { libc::SA_ONSTACK } else { 0 };
            Disposition { handler: where_am_i as *const () as usize, flags, mask: SigSet::EMPTY }.install(Signal::USR1);
            let adopted = take(Signal::USR1);
            for send in [|| send::tgkill(Signal::USR1), || critical(|_| send::tgkill(Signal::USR1))] {
                ON_STACK.store(!on_stack, Ordering::Relaxed);
                send();
                assert_eq!(ON_STACK.load(Ordering::Relaxed), on_stack);
            }
            adopted.remove().unwrap();
        }
    });
}

#[test]
fn what_cannot_be_adopted_is_refused_with_its_reason() {
    alone("what_cannot_be_adopted_is_refused_with_its_reason", || {
        for before in [Disposition::DEFAULT, Disposition::IGNORE] {
            before.install(Signal::USR1);
            assert_eq!(why_not(Signal::USR1), AdoptError::NoHandler(Signal::USR1));
            assert_eq!(Disposition::of(Signal::USR1), before);
        }
        assert_eq!(AdoptError::NoHandler(RT).to_string(), "there is no handler for SIGRTMIN+3");

        let registration = support::log_runs(Signal::USR1);
        assert_eq!(why_not(Signal::USR1), AdoptError::Managed(Signal::USR1));
        registration.remove().unwrap();
        Disposition::plain().install(Signal::USR1);
        let adopted = take(Signal::USR1);
        assert_eq!(why_not(Signal::USR1), AdoptError::Managed(Signal::USR1), "adopted twice");
        assert_eq!(AdoptError::Managed(RT).to_string(), "the handler of SIGRTMIN+3 is managed already");
        adopted.remove().unwrap();

        assert_eq!(why_not(Signal::KILL), InstallError::Uncatchable(Signal::KILL).into());
        assert_eq!(why_not(Signal::STOP), InstallError::Uncatchable(Signal::STOP).into());
        for number in 32..libc::SIGRTMIN() {
            let signal = Signal::new(number).unwrap();
            assert_eq!(why_not(signal), InstallError::Reserved(signal).into());
            assert_eq!(why_not(signal).to_string(), format!("SIG{number} is reserved for the C library"));
        }
    });
}

#[test]
fn adopted_and_given_back_in_a_handler_and_in_the_child_of_a_fork() {
    alone("adopted_and_given_back_in_a_handler_and_in_the_child_of_a_fork", || {
        fn adopt_another(_: &Delivery<'_>) {
            let adopted = take(Signal::USR2);
            send::tgkill(Signal::USR2);
            adopted.remove().unwrap();
        }
        Disposition::plain().install(Signal::USR2);
        manage(Handler::new(adopt_another), Signal::USR1);
        let round = || {
            send::tgkill(Signal::USR1);
            critical(|_| send::tgkill(Signal::USR1));
            assert_eq!(tags(), [libc::SIGUSR2; 2]);
            assert_eq!(Disposition::of(Signal::USR2), Disposition::plain());
        };
        round();
        expect_success(fork_child(round));
        let adopted = take(Signal::USR2);
        expect_success(fork_child(|| {
            critical(|_| send::tgkill(Signal::USR2));
            assert_eq!(tags(), [libc::SIGUSR2]);
            adopted.remove().unwrap();
            assert_eq!(Disposition::of(Signal::USR2), Disposition::plain());
        }));
    });
}

/// While threads adopt it and give it back, a handler gets every signal once: the default action would kill.
#[test]
fn no_signal_is_lost_while_its_handler_is_adopted_and_given_back() {
    alone("no_signal_is_lost_while_its_handler_is_adopted_and_given_back", || {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn count(_: i32) {
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        let flags = libc::SA_RESTART;
        let foreign = Disposition { handler: count as *const () as usize, flags, mask: Signal::HUP.into() };
        foreign.install(Signal::USR1);
        let start = Barrier::new(3);
        let target = AtomicI32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    mask::block(Signal::USR1.into());
                    start.wait();
                    for _ in 0..3000 {
                        // SAFETY: as in `take`.
                        match unsafe { adopt(Signal::USR1) } {
                            Ok(adopted) => adopted.remove().expect("nobody else removes it"),
                            Err(error) => assert_eq!(error, AdoptError::Managed(Signal::USR1)),
                        }
                    }
                    target.store(-1, Ordering::Release);
                });
            }
            target.store(send::thread(), Ordering::Release);
            start.wait();
            let mut sent = 0;
            while target.load(Ordering::Acquire) > 0 {
                send::tgkill(Signal::USR1);
                critical(|_| send::tgkill(Signal::USR1));
                sent += 2;
                assert_eq!(RUNS.load(Ordering::Relaxed), sent);
            }
        });
        assert_eq!(Disposition::of(Signal::USR1), foreign);
        spin_until(|| mask::pending().is_empty());
    });
}
