//! A child that shares its parent's memory, and with it the thread record, until it executes another program: vfork's, and posix_spawn's.
//! Its signals are not its parent's, and what the parent holds back is not the child's to take.

mod support;

use std::ffi::c_void;
use std::process::Command;

use sigsafe_core::{SigSet, Signal, mask};
use support::{Form, RT, SENT_FAULT, alone, expect_success, kernel_mask, log, log_runs, send};

/// Of each way in which a signal is held back: requeued, kept with a token, kept and requeued at the exit, kept and dispatched.
const KINDS: [Signal; 4] = [Signal::USR1, RT, SENT_FAULT, Signal::CONT];

/// Runs `body` in a child that shares this memory, on a stack of its own, while this thread waits: vfork, without a second return.
fn vfork_child(mut body: impl FnMut()) -> libc::pid_t {
    extern "C" fn call<F: FnMut()>(body: *mut c_void) -> i32 {
        // SAFETY: the parent's closure, which nobody else touches while the parent waits.
        unsafe { (*body.cast::<F>())() };
        0
    }
    fn entry<F: FnMut()>(_: &F) -> extern "C" fn(*mut c_void) -> i32 {
        call::<F>
    }
    let mut stack = vec![0u128; 16 * 1024];
    let entry = entry(&body);
    // SAFETY: one past the end, where the stack begins.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) };
    // SAFETY: the stack and the closure outlive the child, since the call returns only when that has ended.
    let child = unsafe { libc::clone(entry, top.cast(), libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, (&raw mut body).cast()) };
    assert!(child > 0, "clone");
    child
}

/// A region of the parent holds a signal back while a child of vfork does `in_child`.
fn held_back_by_the_parent(test_name: &str, in_child: impl Fn(Signal)) {
    alone(test_name, || {
        KINDS.into_iter().chain([Signal::BUS]).for_each(|signal| _ = log_runs(signal));
        for signal in KINDS {
            for form in Form::ALL {
                let before = kernel_mask();
                let child = form.run(|| {
                    send::sigqueue(signal, 5);
                    let child = vfork_child(|| in_child(signal));
                    assert!(mask::pending().contains(signal), "{signal} {form:?}: lost");
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                    child
                });
                let rows = log::take();
                assert_eq!(rows.iter().map(log::Row::value).collect::<Vec<_>>(), [5], "{signal} {form:?}");
                assert_eq!((kernel_mask(), mask::pending()), (before, SigSet::EMPTY), "{signal} {form:?}");
                expect_success(child);
            }
        }
    });
}

#[test]
fn a_vfork_child_leaves_what_its_parent_s_region_holds_back() {
    held_back_by_the_parent("a_vfork_child_leaves_what_its_parent_s_region_holds_back", |_| ());
}

#[test]
fn a_vfork_child_that_gets_the_same_signal_leaves_its_parent_s() {
    held_back_by_the_parent("a_vfork_child_that_gets_the_same_signal_leaves_its_parent_s", send::tgkill);
}

#[test]
fn a_vfork_child_that_gets_a_sent_fault_leaves_its_parent_s_signals() {
    // Never blocked: it is captured in the child, in the record that the parent's signals are in.
    held_back_by_the_parent("a_vfork_child_that_gets_a_sent_fault_leaves_its_parent_s_signals", |_| send::tgkill(Signal::BUS));
}

#[test]
fn a_signal_of_a_vfork_child_is_not_handled_by_its_parent() {
    alone("a_signal_of_a_vfork_child_is_not_handled_by_its_parent", || {
        for signal in KINDS {
            log_runs(signal);
            for form in Form::ALL {
                let before = kernel_mask();
                let child = form.run(|| vfork_child(|| send::tgkill(signal)));
                assert_eq!(log::count(), 0, "{signal} {form:?}");
                assert_eq!((kernel_mask(), mask::pending()), (before, SigSet::EMPTY), "{signal} {form:?}");
                form.run(|| send::tgkill(signal));
                assert_eq!(log::take().len(), 1, "{signal} {form:?}: afterwards");
                expect_success(child);
            }
        }
    });
}

/// What a child changes of its own mask is not its parent's.
#[test]
fn the_mask_of_a_vfork_child_is_its_own() {
    alone("the_mask_of_a_vfork_child_is_its_own", || {
        log_runs(Signal::USR1);
        log_runs(Signal::USR2);
        mask::block(Signal::USR2.into());
        for form in Form::ALL {
            let before = kernel_mask();
            let child = form.run(|| {
                vfork_child(|| {
                    support::raw_mask(libc::SIG_SETMASK, SigSet::EMPTY);
                    send::tgkill(Signal::USR1);
                })
            });
            assert_eq!(kernel_mask(), before, "{form:?}");
            assert_eq!(log::take(), [], "{form:?}");
            expect_success(child);
        }
    });
}

/// Neither is what it changes by this crate's functions, where the region that holds back is its parent's.
#[test]
fn mask_operations_of_a_vfork_child_leave_its_parent_s_region_alone() {
    alone("mask_operations_of_a_vfork_child_leave_its_parent_s_region_alone", || {
        log_runs(Signal::USR1);
        mask::block(Signal::USR2.into());
        let operations: [fn(); 4] = [
            || _ = mask::block(Signal::USR1.into()),
            || _ = mask::set(SigSet::FULL),
            || _ = mask::set(SigSet::EMPTY),
            || _ = mask::unblock(Signal::USR2.into()),
        ];
        for operation in operations {
            for form in Form::ALL {
                let child = form.run(|| {
                    send::tgkill(Signal::USR1);
                    vfork_child(operation)
                });
                assert_eq!(log::take().len(), 1, "{form:?}");
                assert_eq!(kernel_mask(), Signal::USR2.into(), "{form:?}");
                expect_success(child);
            }
        }
    });
}

#[test]
fn a_program_started_in_a_region_leaves_what_that_holds_back() {
    alone("a_program_started_in_a_region_leaves_what_that_holds_back", || {
        for signal in KINDS {
            log_runs(signal);
            for form in Form::ALL {
                form.run(|| {
                    send::sigqueue(signal, 5);
                    // By posix_spawn, which glibc makes of a child that shares memory.
                    assert!(Command::new("true").status().unwrap().success());
                    assert_eq!(log::count(), 0, "{signal} {form:?}");
                });
                assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [5], "{signal} {form:?}");
            }
        }
    });
}
