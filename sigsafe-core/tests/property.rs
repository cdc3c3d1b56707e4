//! Arbitrary programs of regions, signals and mask changes, run by the engine with real signals and by a model that knows only the
//! POSIX rule; both must tell the same story.
//!
//! Each program runs on a thread of its own, since a forgotten guard leaves its thread in a region for good. Signals are sent by
//! the thread to itself, so that everything is in one order.
//!
//! `PROPTEST_CASES` sets the number of programs. A failing one is printed in its smallest form and kept with its seed beside this
//! file, to be tried first from then on.

mod model;
mod program;

use std::cell::RefCell;
use std::mem::{forget, take, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use model::{BUDGET, Model};
use program::{Backend, CAST, Event, Op, Program, Set};
use proptest::prelude::*;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{DeferredCounter, FullSyscall, MaskGuard, SigSet, Signal, critical_with, in_region, mask, region_depth};
use sigsafe_test_harness::isolate::isolated_within;

/// Held by `Box<dyn ...>`, so that a list can mix the backends.
trait Guard {}
impl<B: sigsafe_core::Backend> Guard for MaskGuard<B> {}
type Guards = Vec<Box<dyn Guard>>;

#[derive(Default)]
struct Run {
    handlers: Vec<Vec<Op>>,
    log: Vec<Event>,
    sent: u32,
}

thread_local! {
    // Borrowed only between two signals: the thread sends them itself.
    static RUN: RefCell<Run> = RefCell::default();
}

fn signal(index: usize) -> Signal {
    CAST[index].name.parse().unwrap()
}

fn signals(set: Set) -> SigSet {
    (0..CAST.len()).filter(|index| set & 1 << index != 0).map(signal).collect()
}

fn indices(set: SigSet) -> Set {
    (0..CAST.len()).filter(|index| set.contains(signal(*index))).fold(0, |bits, index| bits | 1 << index)
}

fn log(event: Event) {
    RUN.with_borrow_mut(|run| run.log.push(event));
}

fn new_guard(backend: Backend) -> Box<dyn Guard> {
    match backend {
        Backend::Deferred => Box::new(MaskGuard::<DeferredCounter>::new()),
        Backend::Full => Box::new(MaskGuard::<FullSyscall>::new()),
    }
}

fn closure<R>(backend: Backend, body: impl FnOnce() -> R) -> R {
    match backend {
        Backend::Deferred => critical_with::<DeferredCounter, R>(|_| body()),
        Backend::Full => critical_with::<FullSyscall, R>(|_| body()),
    }
}

/// Sends the signal with its serial number as the value: legacy signals carry one, too, when sent this way.
fn send(index: usize) {
    let serial = RUN.with_borrow_mut(|run| {
        run.sent += 1;
        run.sent
    });
    if serial > BUDGET {
        return;
    }
    #[repr(C)]
    struct Queued {
        signo: i32,
        errno: i32,
        code: i32,
        padding: i32,
        pid: i32,
        uid: u32,
        value: u64,
        rest: [u64; 12],
    }
    let info = Queued {
        signo: signal(index).number(),
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: std::process::id() as i32,
        uid: 7,
        value: serial.into(),
        rest: [0; 12],
    };
    const { assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>()) };
    // SAFETY: the kernel reads the 128 bytes of `info`.
    let result = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), info.signo, &raw const info) };
    assert_eq!(result, 0);
}

fn on_signal(delivery: &Delivery<'_>) {
    let index = (0..CAST.len()).find(|index| signal(*index) == delivery.signal()).unwrap();
    if !CAST[index].immediate {
        assert!(!in_region(), "{} was handled in a region", CAST[index].name);
    }
    let info = delivery.info();
    // SAFETY: sent with a value.
    let (value, uid) = unsafe { (info.as_raw().si_value().sival_ptr.addr() as u32, info.as_raw().si_uid()) };
    assert_eq!(uid, 7);
    log(Event::Begin { index, serials: vec![value] });
    let ops = RUN.with_borrow(|run| run.handlers[index].clone());
    let mut guards = Guards::new();
    execute(&ops, &mut guards);
    log(Event::End { index });
    // What a handler has not dropped by now it must forget.
    guards.into_iter().for_each(forget);
}

fn execute(ops: &[Op], guards: &mut Guards) {
    for op in ops {
        match op {
            Op::Enter(backend) => guards.push(new_guard(*backend)),
            Op::Drop(which) if !guards.is_empty() => drop(guards.remove(which % guards.len())),
            Op::Forget(which) if !guards.is_empty() => forget(guards.remove(which % guards.len())),
            Op::Drop(_) | Op::Forget(_) => {}
            Op::Closure { backend, ops, escaping } => {
                let escaped = closure(*backend, || {
                    execute(ops, guards);
                    escaping.map(new_guard)
                });
                guards.extend(escaped);
            }
            Op::Panic { guards: kinds, ops } => {
                let unwound = catch_unwind(AssertUnwindSafe(|| {
                    let mut guards: Guards = kinds.iter().copied().map(new_guard).collect();
                    execute(ops, &mut guards);
                    resume_unwind(Box::new(()));
                }));
                assert!(unwound.is_err());
            }
            Op::Send(index) => send(*index),
            Op::Block(set) => log_mask(|| mask::block(signals(*set))),
            Op::Unblock(set) => log_mask(|| mask::unblock(signals(*set))),
            Op::SetMask(set) => log_mask(|| mask::set(signals(*set))),
            Op::Observe => observe(),
        }
    }
}

/// The returned mask is logged before what the operation lets in, like in the model.
fn log_mask(operation: impl FnOnce() -> SigSet) {
    let place = RUN.with_borrow_mut(|run| {
        run.log.push(Event::Mask(0));
        run.log.len() - 1
    });
    let before = indices(operation());
    RUN.with_borrow_mut(|run| run.log[place] = Event::Mask(before));
}

fn observe() {
    log(Event::Observed { blocked: indices(mask::current()), pending: indices(mask::pending()), regions: region_depth() });
}

fn run_for_real(program: &Program) -> Vec<Event> {
    let registrations: Vec<_> = (0..CAST.len())
        .map(|index| {
            let handler = Handler::new(on_signal).immediate(CAST[index].immediate).mask(signals(program.masks[index]));
            // SAFETY: the signals arrive only where this thread sends them.
            unsafe { handler.install(signal(index)).unwrap() }
        })
        .collect();
    let program = program.clone();
    let log = thread::spawn(move || {
        RUN.with_borrow_mut(|run| run.handlers.clone_from(&program.handlers));
        let mut guards = Guards::new();
        execute(&program.main, &mut guards);
        while !guards.is_empty() {
            drop(guards.remove(0));
        }
        observe();
        RUN.with_borrow_mut(|run| take(&mut run.log))
    })
    .join()
    .unwrap();
    for registration in registrations {
        registration.remove().unwrap();
    }
    log
}

#[test]
fn the_engine_and_the_posix_rule_tell_the_same_story() {
    let config = ProptestConfig { cases: ProptestConfig::default().cases.max(3000), ..ProptestConfig::default() };
    let limit = Duration::from_secs(30 + u64::from(config.cases) / 50);
    isolated_within("the_engine_and_the_posix_rule_tell_the_same_story", limit, || {
        // SAFETY: zero is a value of every field.
        let default: libc::sigaction = unsafe { zeroed() };
        proptest!(config, |(program in program::program())| {
            let (engine, model) = (run_for_real(&program), Model::run(&program));
            prop_assert!(program.same_story(&engine, &model), "engine {:?}\n model {:?}", engine, model);
        });
        // Every handler has been removed again.
        for index in 0..CAST.len() {
            let mut now = default;
            // SAFETY: reads a disposition.
            unsafe { libc::sigaction(signal(index).number(), std::ptr::null(), &mut now) };
            assert_eq!(now.sa_sigaction, libc::SIG_DFL);
        }
    });
}
