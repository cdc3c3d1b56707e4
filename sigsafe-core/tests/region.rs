//! No managed handler runs in a region, whatever its form; every one runs after it; and the mask is then as it was before.
//!
//! Guards and closures of both backends, in any order, nested, escaping, forgotten and dropped by a panic; and the order of real-time
//! signals that were held back.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sigsafe_core::{
    Backend, DefaultBackend, FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, deferrals, in_region, mask, region_depth,
};
use support::{Disposition, Form, RT, alone, kernel_mask, log, log_runs, send, spin_until};

type Full = MaskGuard<FullSyscall>;
type Deferring = MaskGuard<DefaultBackend>;

/// Sends both kinds of signal and checks that neither is handled here.
fn send_and_expect_none(place: &str) {
    let before = log::count();
    send::kill(Signal::USR1);
    send::sigqueue(RT, 9);
    assert_eq!(log::count(), before, "{place}: a handler ran in the region");
}

/// What was sent has been handled, in no region, and nothing is left of the region.
fn expect_handled_after(place: &str, before: SigSet) {
    let mut rows = log::take();
    rows.sort_by_key(|row| row.signal);
    rows.dedup_by_key(|row| row.signal);
    assert_eq!(rows.iter().map(|row| row.signal).collect::<Vec<_>>(), [libc::SIGUSR1, RT.number()], "{place}");
    assert!(rows.iter().all(|row| !row.in_region), "{place}");
    assert!(!in_region() && region_depth() == 0, "{place}");
    assert_eq!(kernel_mask(), before, "{place}");
}

fn with_handlers(test_name: &str, body: impl FnOnce()) {
    alone(test_name, || {
        log_runs(Signal::USR1);
        log_runs(RT);
        body();
    });
}

#[test]
fn signals_wait_for_the_end_of_a_region_of_every_form() {
    with_handlers("signals_wait_for_the_end_of_a_region_of_every_form", || {
        // The mask that is kept need not be empty.
        mask::block(SigSet::EMPTY.with(Signal::HUP).with(Signal::real_time(9).unwrap()));
        let before = kernel_mask();
        for form in Form::ALL {
            form.run(|| {
                assert!(in_region());
                send_and_expect_none(&format!("{form:?}"));
            });
            expect_handled_after(&format!("{form:?}"), before);
        }
    });
}

#[test]
fn the_mask_of_a_region_without_signals_is_the_same_after_it() {
    with_handlers("the_mask_of_a_region_without_signals_is_the_same_after_it", || {
        mask::block(SigSet::EMPTY.with(Signal::HUP).with(Signal::USR2));
        let before = kernel_mask();
        for form in Form::ALL {
            form.run(|| ());
            assert_eq!(kernel_mask(), before, "{form:?}");
        }
        assert!(log::take().is_empty());
    });
}

#[test]
fn the_mask_is_the_same_after_a_direct_delivery() {
    with_handlers("the_mask_is_the_same_after_a_direct_delivery", || {
        mask::block(SigSet::EMPTY.with(Signal::HUP));
        let before = kernel_mask();
        send::kill(Signal::USR1);
        send::sigqueue(RT, 9);
        expect_handled_after("direct", before);
    });
}

#[test]
fn signals_wait_for_the_outermost_end_of_nested_regions() {
    with_handlers("signals_wait_for_the_outermost_end_of_nested_regions", || {
        let before = kernel_mask();
        for outer in Form::ALL {
            for inner in Form::ALL {
                let place = format!("{inner:?} in {outer:?}");
                outer.run(|| {
                    inner.run(|| send_and_expect_none(&place));
                    assert_eq!(log::count(), 0, "{place}: the inner exit let a signal in");
                    send_and_expect_none(&place);
                    inner.run(|| assert_eq!(log::count(), 0, "{place}"));
                    assert_eq!(log::count(), 0, "{place}");
                });
                expect_handled_after(&place, before);
            }
        }
    });
}

/// Three guards, dropped in the order `order`; signals are sent before the first drop and after each but the last.
fn three_guards<A: Backend, B: Backend, C: Backend>(order: [usize; 3]) {
    let place = format!("{} {} {}, dropped in the order {order:?}", A::NAME, B::NAME, C::NAME);
    let before = kernel_mask();
    let (mut a, mut b, mut c) = (Some(MaskGuard::<A>::new()), Some(MaskGuard::<B>::new()), Some(MaskGuard::<C>::new()));
    assert_eq!(region_depth(), 3);
    for (dropped, index) in order.into_iter().enumerate() {
        send_and_expect_none(&place);
        assert_eq!(region_depth() as usize, 3 - dropped);
        match index {
            0 => a = None,
            1 => b = None,
            _ => c = None,
        }
    }
    drop((a, b, c));
    expect_handled_after(&place, before);
}

#[test]
fn guards_are_dropped_in_any_order_across_backends() {
    with_handlers("guards_are_dropped_in_any_order_across_backends", || {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            three_guards::<DefaultBackend, DefaultBackend, DefaultBackend>(order);
            three_guards::<FullSyscall, FullSyscall, FullSyscall>(order);
            three_guards::<DefaultBackend, FullSyscall, DefaultBackend>(order);
            three_guards::<FullSyscall, DefaultBackend, FullSyscall>(order);
            three_guards::<DefaultBackend, DefaultBackend, FullSyscall>(order);
            three_guards::<FullSyscall, FullSyscall, DefaultBackend>(order);
        }
    });
}

/// A guard that is made in a closure region and outlives it.
fn guard_out_of_closure<C: Backend, G: Backend>() {
    let place = format!("a {} guard out of a {} closure", G::NAME, C::NAME);
    let before = kernel_mask();
    let guard = critical_with::<C, _>(|_| {
        send_and_expect_none(&place);
        MaskGuard::<G>::new()
    });
    assert_eq!(region_depth(), 1, "{place}");
    send_and_expect_none(&place);
    critical_with::<C, _>(|_| send_and_expect_none(&place));
    assert_eq!(log::count(), 0, "{place}");
    drop(guard);
    expect_handled_after(&place, before);
}

#[test]
fn a_guard_returned_from_a_closure_keeps_the_region() {
    with_handlers("a_guard_returned_from_a_closure_keeps_the_region", || {
        guard_out_of_closure::<DefaultBackend, DefaultBackend>();
        guard_out_of_closure::<DefaultBackend, FullSyscall>();
        guard_out_of_closure::<FullSyscall, DefaultBackend>();
        guard_out_of_closure::<FullSyscall, FullSyscall>();
    });
}

#[test]
fn a_guard_from_outside_dropped_in_a_closure_does_not_end_the_closure_s_region() {
    with_handlers("a_guard_from_outside_dropped_in_a_closure_does_not_end_the_closure_s_region", || {
        let before = kernel_mask();
        for form in Form::ALL {
            let (guard, full) = (Deferring::new(), Full::new());
            form.run(|| {
                send_and_expect_none("with both");
                drop(guard);
                drop(full);
                assert!(in_region());
                send_and_expect_none("without");
            });
            expect_handled_after(&format!("{form:?}"), before);
        }
    });
}

#[test]
fn a_panic_ends_the_regions_that_it_unwinds() {
    with_handlers("a_panic_ends_the_regions_that_it_unwinds", || {
        std::panic::set_hook(Box::new(|_| ()));
        let before = kernel_mask();
        for form in Form::ALL {
            let result = catch_unwind(AssertUnwindSafe(|| {
                form.run(|| {
                    let _inner = (Deferring::new(), Full::new());
                    send_and_expect_none("before the panic");
                    panic!("out of the region");
                })
            }));
            assert!(result.is_err());
            expect_handled_after(&format!("{form:?}"), before);
        }
    });
}

#[test]
fn a_forgotten_guard_leaves_its_thread_deaf_and_no_other() {
    with_handlers("a_forgotten_guard_leaves_its_thread_deaf_and_no_other", || {
        fn forget<B: Backend>() {
            std::mem::forget(MaskGuard::<B>::new());
            send::tgkill(Signal::USR1);
            drop(critical(|_| Full::new()));
            send::tgkill(RT);
            assert!(log::rows().is_empty() && in_region());
        }
        for forget in [forget::<DefaultBackend>, forget::<FullSyscall>] {
            std::thread::spawn(forget).join().unwrap();
            assert!(!in_region());
            send::tgkill(Signal::USR1);
            assert_eq!(log::take().len(), 1);
            std::thread::spawn(|| send::tgkill(Signal::USR1)).join().unwrap();
            assert_eq!(log::take().len(), 1, "a later thread");
        }
    });
}

#[test]
fn regions_of_two_threads_are_each_their_own() {
    with_handlers("regions_of_two_threads_are_each_their_own", || {
        critical(|_| {
            std::thread::spawn(|| {
                assert!(!in_region());
                send::tgkill(Signal::USR1);
                assert_eq!(log::take().len(), 1, "the other thread is in no region");
                assert_eq!(deferrals(), 0);
            })
            .join()
            .unwrap();
            assert!(in_region());
        });
    });
}

/// A full-mask region holds back handlers that are not managed too, and regions that end inside it do not let them in.
#[test]
fn a_foreign_handler_waits_for_the_end_of_a_full_mask_region() {
    alone("a_foreign_handler_waits_for_the_end_of_a_full_mask_region", || {
        Disposition::plain().install(Signal::USR2);
        for form in [Form::FullClosure, Form::FullGuard] {
            form.run(|| {
                send::tgkill(Signal::USR2);
                for inner in Form::ALL {
                    inner.run(|| ());
                    assert_eq!(log::count(), 0, "{inner:?} in {form:?}");
                }
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
        }
    });
}

/// Sends values 1 to 3 and expects their runs in this order.
fn in_order(place: &str, send: impl Fn(i32)) {
    for form in Form::ALL {
        form.run(|| {
            (1..=3).for_each(&send);
            assert_eq!(log::count(), 0);
        });
        let values: Vec<_> = log::take().iter().map(log::Row::value).collect();
        assert_eq!(values, [1, 2, 3], "{place}, {form:?}");
    }
}

#[test]
fn real_time_signals_run_in_the_order_of_their_sending() {
    with_handlers("real_time_signals_run_in_the_order_of_their_sending", || {
        in_order("to the process", |value| send::sigqueue(RT, value));
        in_order("to the thread", |value| send::sigqueue_to(send::thread(), RT, value));
    });
}

#[test]
fn real_time_signals_of_another_thread_run_in_the_order_of_their_sending() {
    with_handlers("real_time_signals_of_another_thread_run_in_the_order_of_their_sending", || {
        let target = send::thread();
        for form in Form::ALL {
            form.run(|| {
                let from_another = || (1..=3).for_each(|value| send::sigqueue_to(target, RT, value));
                std::thread::scope(|scope| scope.spawn(from_another).join().unwrap());
                spin_until(|| mask::pending().contains(RT));
                assert_eq!(log::count(), 0);
            });
            let values: Vec<_> = log::take().iter().map(log::Row::value).collect();
            assert_eq!(values, [1, 2, 3], "{form:?}");
        }
    });
}

#[test]
fn the_order_of_real_time_signals_outlasts_several_regions() {
    with_handlers("the_order_of_real_time_signals_outlasts_several_regions", || {
        // Blocked, so that the captured one and its token stay where they are while the next regions come and go.
        let old = critical(|_| {
            send::sigqueue(RT, 1);
            mask::block(RT.into())
        });
        critical(|_| send::sigqueue(RT, 2));
        critical(|_| send::sigqueue_to(send::thread(), RT, 3));
        send::sigqueue_to(send::thread(), RT, 4);
        assert_eq!(log::count(), 0);
        mask::set(old);
        let values: Vec<_> = log::take().iter().map(log::Row::value).collect();
        // The kernel prefers what is sent to the thread; the captured one came before them all.
        assert_eq!(values, [1, 3, 4, 2]);
    });
}
