//! The mask operations keep POSIX's rules wherever they are called: outside, in a region of either backend, in a handler, in a handler
//! over a region, and in regions of handlers. All small programs of one operation, with signals before and after it, are run in each place.
//!
//! The rules (POSIX, `pthread_sigmask` and 2.4): the old mask is returned; what is blocked stays pending and is seen; what is let in is
//! handled before the call returns, in a region at its end; SIGKILL and SIGSTOP stay unblocked in silence; to unblock what is not
//! blocked changes nothing; a handler's changes end with it; each signal is handled once.

mod support;

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, mask};
use support::{Form, RT, SENT_FAULT, alone_within, kernel_mask, log, log_runs, manage, send};

/// Where a program runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Place {
    Outside,
    In(Form),
    Handler,
    /// In a region of a handler.
    InHandler(Form),
    /// In the handler of a signal that the region had held back.
    HandlerAfter(Form),
    /// In an immediate handler over the region.
    HandlerOver(Form),
    /// In a region of such a handler.
    InHandlerOver(Form),
}

/// Of the forms one of each backend, and one of both.
const FORMS: [Form; 3] = [Form::Closure, Form::FullGuard, Form::GuardInFullClosure];

/// Runs the program in its handler.
const DEFERRABLE: Signal = Signal::PROF;
/// The same at once, in a region too.
const IMMEDIATE: Signal = Signal::VTALRM;

/// What the handlers run.
static PROGRAM: AtomicPtr<&mut dyn FnMut()> = AtomicPtr::new(null_mut());

fn run_program(_: &Delivery<'_>) {
    // SAFETY: the signal was raised by the thread itself, in `Place::run`, whose caller's closure lives until that returns.
    unsafe { (*PROGRAM.load(Ordering::Relaxed))() };
}

impl Place {
    fn all() -> impl Iterator<Item = Place> {
        let around = |place: fn(Form) -> Place| FORMS.into_iter().map(place);
        [Place::Outside, Place::Handler]
            .into_iter()
            .chain(Form::ALL.into_iter().map(Place::In))
            .chain(around(Place::InHandler))
            .chain(around(Place::HandlerAfter))
            .chain(around(Place::HandlerOver))
            .chain(around(Place::InHandlerOver))
    }

    /// Whether signals wait for the end of a region there.
    fn holds_back(self) -> bool {
        !matches!(self, Place::Outside | Place::Handler | Place::HandlerAfter(_))
    }

    /// Whether the mask goes back to what it was when the place is left.
    fn is_handler(self) -> bool {
        !matches!(self, Place::Outside | Place::In(_))
    }

    /// The mask that a program finds there: a handler's own signal.
    fn mask(self) -> SigSet {
        match self {
            Place::Outside | Place::In(_) => SigSet::EMPTY,
            Place::Handler | Place::InHandler(_) | Place::HandlerAfter(_) => DEFERRABLE.into(),
            Place::HandlerOver(_) | Place::InHandlerOver(_) => IMMEDIATE.into(),
        }
    }

    fn run(self, mut program: impl FnMut()) {
        let in_region = |form: Form, program: &mut dyn FnMut()| form.run(program);
        let in_handler = |signal: Signal, program: &mut dyn FnMut()| {
            let mut program: &mut dyn FnMut() = program;
            PROGRAM.store((&raw mut program).cast(), Ordering::Relaxed);
            send::tgkill(signal);
        };
        match self {
            Place::Outside => program(),
            Place::In(form) => in_region(form, &mut program),
            Place::Handler => in_handler(DEFERRABLE, &mut program),
            Place::InHandler(form) => in_handler(DEFERRABLE, &mut || in_region(form, &mut program)),
            Place::HandlerAfter(form) => {
                let mut program: &mut dyn FnMut() = &mut program;
                PROGRAM.store((&raw mut program).cast(), Ordering::Relaxed);
                form.run(|| send::tgkill(DEFERRABLE));
            }
            Place::HandlerOver(form) | Place::InHandlerOver(form) => form.run(|| {
                if matches!(self, Place::HandlerOver(_)) {
                    in_handler(IMMEDIATE, &mut program);
                } else {
                    in_handler(IMMEDIATE, &mut || critical(|_| program()));
                }
                assert_eq!(log::count(), 0, "{self:?}: the region below holds back");
            }),
        }
    }
}

#[derive(Copy, Clone, Debug)]
enum Operation {
    Block,
    Unblock,
    Set,
}

/// A program: with `start` blocked, `before` is sent, the operation made with `argument`, and `after` sent.
#[derive(Copy, Clone, Debug)]
struct Program {
    start: SigSet,
    before: SigSet,
    operation: Operation,
    argument: SigSet,
    after: SigSet,
}

impl Program {
    /// Every program over two signals.
    fn all(signals: [Signal; 2]) -> impl Iterator<Item = Program> {
        let subset = move |bits: usize| (0..2).filter(|bit| bits >> bit & 1 == 1).map(|bit| signals[bit]).collect::<SigSet>();
        [Operation::Block, Operation::Unblock, Operation::Set].into_iter().flat_map(move |operation| {
            (0..256).map(move |bits| Program {
                start: subset(bits),
                before: subset(bits >> 2),
                operation,
                argument: subset(bits >> 4),
                after: subset(bits >> 6),
            })
        })
    }

    /// The mask afterwards.
    fn mask(&self) -> SigSet {
        match self.operation {
            Operation::Block => self.start.union(self.argument),
            Operation::Unblock => self.start.difference(self.argument),
            Operation::Set => self.argument,
        }
    }

    fn operate(&self) -> SigSet {
        // Nobody blocks these two, and nobody is told.
        let never = SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP);
        match self.operation {
            Operation::Block => mask::block(self.argument.union(never)),
            Operation::Unblock => mask::unblock(self.argument.union(never)),
            Operation::Set => mask::set(self.argument.union(never)),
        }
    }

    fn run_in(&self, place: Place) {
        let holds_back = place.holds_back();
        let step = |point: &str, handled: SigSet, pending: SigSet| {
            let (handled, pending) = if holds_back { (SigSet::EMPTY, pending.union(handled)) } else { (handled, pending) };
            assert_eq!(handled_so_far(), handled, "{self:?} {place:?}, {point}: handled");
            assert_eq!(mask::pending(), pending, "{self:?} {place:?}, {point}: pending");
        };
        let mask = self.mask();
        place.run(|| {
            assert_eq!(mask::current(), place.mask(), "{place:?}: the mask to begin with");
            assert_eq!(mask::set(self.start), place.mask(), "{place:?}: the old mask to begin with");
            send_all(self.before, 1);
            step("before", self.before - self.start, self.before & self.start);
            assert_eq!(self.operate(), self.start, "{self:?} {place:?}: the old mask");
            assert_eq!(mask::current(), mask, "{self:?} {place:?}");
            let waiting = self.before & self.start & mask;
            step("operated", self.before - waiting, waiting);
            send_all(self.after, 2);
            let waiting = waiting | (self.after & mask);
            let sent = self.before | self.after;
            // What was handled once and came again is in both.
            let handled = (self.before - (self.before & self.start & mask)) | (self.after - mask);
            step("after", handled, if holds_back { sent } else { waiting });
            // What is not blocked: no error, no change.
            assert_eq!(mask::unblock(mask.complement()), mask, "{self:?} {place:?}: the old mask of an unblock without effect");
            assert_eq!(mask::block(SigSet::EMPTY), mask, "{self:?} {place:?}: it had none");
            step("unblocked what is not blocked", handled, if holds_back { sent } else { waiting });
        });
        let left = if place.is_handler() { SigSet::EMPTY } else { mask };
        assert_eq!((kernel_mask(), mask::current()), (left, left), "{self:?} {place:?}: the mask that is left");
        mask::set(SigSet::EMPTY);
        assert_eq!((kernel_mask(), mask::pending()), (SigSet::EMPTY, SigSet::EMPTY), "{self:?} {place:?}: what is left");
        self.check_runs(place);
    }

    /// Each signal was handled as often as it was sent; of a legacy signal that came again while it was pending, POSIX leaves that open.
    fn check_runs(&self, place: Place) {
        let rows = log::take();
        for signal in self.before | self.after {
            let values: Vec<i32> = rows.iter().filter(|row| row.signal == signal.number()).map(log::Row::value).collect();
            let mut sent = Vec::new();
            sent.extend(self.before.contains(signal).then_some(1));
            sent.extend(self.after.contains(signal).then_some(2));
            let merged = !signal.is_real_time() && matches!(values[..], [value] if sent.contains(&value));
            assert!(values == sent || merged, "{self:?} {place:?}: {signal} was sent with {sent:?} and handled with {values:?}");
        }
    }
}

fn send_all(set: SigSet, value: i32) {
    for signal in set {
        send::sigqueue_to(send::thread(), signal, value);
    }
}

fn handled_so_far() -> SigSet {
    log::signals().into_iter().map(|signal| Signal::new(signal).expect("no notes")).collect()
}

fn keeps_posix_s_rules_everywhere(test_name: &str, signals: [Signal; 2]) {
    alone_within(test_name, Duration::from_secs(180), || {
        signals.into_iter().for_each(|signal| _ = log_runs(signal));
        manage(Handler::new(run_program), DEFERRABLE);
        manage(Handler::new(run_program).immediate(true), IMMEDIATE);
        for place in Place::all() {
            Program::all(signals).for_each(|program| program.run_in(place));
        }
    });
}

#[test]
fn of_a_requeued_and_a_real_time_signal() {
    keeps_posix_s_rules_everywhere("of_a_requeued_and_a_real_time_signal", [Signal::USR1, RT]);
}

#[test]
fn of_a_sent_fault_and_a_continue() {
    keeps_posix_s_rules_everywhere("of_a_sent_fault_and_a_continue", [SENT_FAULT, Signal::CONT]);
}

#[test]
fn of_a_stop_and_an_alarm() {
    keeps_posix_s_rules_everywhere("of_a_stop_and_an_alarm", [Signal::TSTP, Signal::ALRM]);
}
