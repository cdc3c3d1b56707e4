//! Other programs start with the mask that was asked for, as the kernel tells of a program that has been started.

mod support;

use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::process::{Command, Stdio};

use sigsafe_core::command::CommandExt;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal};
use support::{Disposition, EMULATED, Form, alone, kernel_mask, log, log_runs, manage, raw_mask, send};

const OWN: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::USR2).with(Signal::PROF);

/// The program is one of the machine's, and so are the numbers that the machine tells of it. An emulator gives the real-time signals others.
const COMPARED: SigSet = if EMULATED { SigSet::from_bits(0x7fff_ffff) } else { SigSet::FULL };

/// A line of `/proc/PID/status` of a program that `prepare` has told how to start, as a set.
fn status_of_child(line: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> SigSet {
    // It lives until its input ends.
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = prepare(&mut command).spawn().unwrap();
    // std's `spawn` returns in the middle of the `exec`; the name is one of the last things that it changes.
    support::spin_until(|| std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "cat\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let bits = status.lines().find_map(|row| row.strip_prefix(line)).unwrap().trim_start_matches(':').trim();
    SigSet::from_bits(u64::from_str_radix(bits, 16).unwrap())
}

#[test]
fn a_program_starts_with_the_mask_that_was_asked_for() {
    alone("a_program_starts_with_the_mask_that_was_asked_for", || {
        raw_mask(libc::SIG_SETMASK, OWN);
        assert_eq!(status_of_child("SigBlk", |command| command.signal_mask_clean()), SigSet::EMPTY);
        assert_eq!(status_of_child("SigBlk", |command| command.signal_mask_logical()), OWN);
        for set in [SigSet::EMPTY, Signal::HUP.into(), OWN] {
            assert_eq!(status_of_child("SigBlk", |command| command.signal_mask(set)), set);
        }
        assert_eq!(kernel_mask(), OWN);
    });
}

#[test]
fn a_program_may_start_with_everything_blocked_that_can_be() {
    alone("a_program_may_start_with_everything_blocked_that_can_be", || {
        let all = SigSet::FULL - SigSet::RESERVED - Signal::KILL.into() - Signal::STOP.into();
        assert_eq!(status_of_child("SigBlk", |command| command.signal_mask(SigSet::FULL)), all);
    });
}

#[test]
fn a_program_started_in_a_region_does_not_inherit_what_the_region_holds_back() {
    alone("a_program_started_in_a_region_does_not_inherit_what_the_region_holds_back", || {
        log_runs(Signal::USR1);
        raw_mask(libc::SIG_SETMASK, OWN);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                // std alone hands on everything: what is to be shown could not be seen otherwise.
                assert_eq!(status_of_child("SigBlk", |command| command) & COMPARED, kernel_mask() & COMPARED, "{form:?}");
                assert_ne!(kernel_mask(), OWN, "{form:?}");
                assert_eq!(status_of_child("SigBlk", |command| command.signal_mask_logical()), OWN, "{form:?}");
                assert_eq!(status_of_child("SigBlk", |command| command.signal_mask_clean()), SigSet::EMPTY, "{form:?}");
                assert_eq!(status_of_child("SigBlk", |command| command.signal_mask(Signal::HUP.into())), Signal::HUP.into(), "{form:?}");
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
            assert_eq!(kernel_mask(), OWN, "{form:?}");
        }
    });
}

#[test]
fn a_program_ignores_what_its_parent_ignores_and_handles_nothing() {
    alone("a_program_ignores_what_its_parent_ignores_and_handles_nothing", || {
        log_runs(Signal::USR1);
        Disposition::IGNORE.install(Signal::HUP);
        let ignored = status_of_child("SigIgn", |command| command.signal_mask_clean());
        assert!(ignored.contains(Signal::HUP) && !ignored.contains(Signal::USR1));
        assert_eq!(status_of_child("SigCgt", |command| command.signal_mask_clean()), SigSet::EMPTY);
        // The parent's own dispositions are as they were.
        send::tgkill(Signal::USR1);
        assert_eq!(log::count(), 1);
        assert_eq!(Disposition::of(Signal::HUP), Disposition::IGNORE);
    });
}

fn say_so(_: &Delivery<'_>) {
    // SAFETY: the buffer is a literal.
    unsafe { libc::write(1, c"handled in the child".as_ptr().cast(), 20) };
}

#[test]
fn no_handler_of_the_parent_s_runs_in_the_child() {
    alone("no_handler_of_the_parent_s_runs_in_the_child", || {
        manage(Handler::new(say_so), Signal::USR1);
        raw_mask(libc::SIG_SETMASK, Signal::USR1.into());
        let (mut output, input) = io::pipe().unwrap();
        let mut command = Command::new("true");
        command.stdout(input);
        // A signal for the child that waits when its mask is emptied.
        let raise = || {
            // SAFETY: the call takes no pointer.
            unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
            Ok(())
        };
        // SAFETY: the closure makes system calls alone.
        unsafe { command.pre_exec(raise) };
        // The child dies of it before it has executed anything, which std's pipe shows as success and the status as what it is.
        let status = command.signal_mask_clean().status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGUSR1));
        drop(command);
        let mut written = String::new();
        output.read_to_string(&mut written).unwrap();
        assert_eq!(written, "");
    });
}
