//! A signal at every instruction of taking a signal (`mask::wait`, `mask::wait_timeout`) and of the calls under a temporary mask
//! (`mask::suspend`, `mask::temporary`): in and outside regions, with a deferral outstanding, in an immediate handler over a region.
//!
//! The story has sent beforehand what the operation waits for. Afterwards: that was taken or handled by the operation, with its own
//! siginfo; every signal was taken or handled once, in a region only where a temporary mask admits it; the logical mask is what it was, the
//! kernel's equals it behind the last region, and regions hold back as ever.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;
mod trace;

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigInfo, SigSet, Signal, critical, mask, region_depth};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, EARLIER, Earlier, Full, Layer, Over, within};
use step::watch::{self, holds_back, set_kernel_mask, stride};
use support::log::{self, Row};
use support::{RT, errno, kernel_mask, manage, send};
use trace::{Script, swept};

/// Enough for every boundary.
const LIMIT: Duration = Duration::from_secs(1800);
/// Of a call that has missed what it waits for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Its immediate handler edits the mask.
const IMMEDIATE: Signal = Signal::URG;
const KINDS: [Signal; 5] = [Signal::USR1, RT, Signal::USR2, Signal::CONT, IMMEDIATE];
/// In the kernel, behind a token, and in a slot, where a region captures it.
const AWAITED: [Signal; 3] = [Signal::USR1, RT, Signal::CONT];
/// Waited for too, and not blocked by the thread in most stories.
const ALSO: Signal = Signal::USR2;
/// What the awaited signal brings.
const VALUE: i32 = 77;

const CONTEXTS: [&[Layer]; 5] = [&[], &[Closure], &[Full], &[Closure, Earlier], &[Closure, Over]];

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operation {
    Wait,
    WaitTimeout,
    /// With this set blocked.
    Suspend(SigSet),
    Temporary(SigSet),
}

use Operation::{Suspend, Temporary, Wait, WaitTimeout};

#[derive(Copy, Clone, Debug)]
struct Story {
    operation: Operation,
    awaited: Signal,
    layers: &'static [Layer],
    /// The thread's mask before the first layer.
    mask: SigSet,
}

fn stories(operations: impl Fn(Signal) -> Vec<Operation>) -> Vec<Story> {
    let mut stories = Vec::new();
    for awaited in AWAITED {
        for operation in operations(awaited) {
            for layers in CONTEXTS {
                let masks = [SigSet::EMPTY, awaited.into(), KINDS.into_iter().collect()];
                // Outside a region the thread itself has to block what it waits for.
                let masks = masks.into_iter().filter(|mask| layers::in_region(layers) || mask.contains(awaited));
                stories.extend(masks.map(|mask| Story { operation, awaited, layers, mask }));
            }
        }
    }
    stories
}

/// How often [`ALSO`] was taken where nobody but the operation itself had it blocked.
static ALSO_TAKEN: AtomicU32 = AtomicU32::new(0);

fn on_any(delivery: &Delivery<'_>) {
    log::record(delivery);
    watch::use_regions();
}

fn on_immediate(delivery: &Delivery<'_>) {
    on_any(delivery);
    watch::use_masks();
}

/// What the operation has brought.
#[derive(Copy, Clone, Default)]
struct Outcome {
    taken: Option<SigInfo>,
    /// It has failed, or ended without cause.
    wrong: bool,
}

impl Outcome {
    fn taken(info: Option<SigInfo>) -> Outcome {
        Outcome { taken: info, wrong: info.is_none() }
    }
}

impl Story {
    fn takes(&self) -> bool {
        matches!(self.operation, Wait | WaitTimeout)
    }

    /// Whether the operation lets in what is blocked or held back.
    fn admits(&self, signal: Signal) -> bool {
        match self.operation {
            Wait | WaitTimeout => false,
            Suspend(set) | Temporary(set) => !set.contains(signal),
        }
    }

    fn perform(&self) -> Outcome {
        let set = SigSet::from(self.awaited).with(ALSO);
        match self.operation {
            Wait => Outcome::taken(Some(mask::wait(set))),
            WaitTimeout => Outcome::taken(mask::wait_timeout(set, PATIENCE)),
            Suspend(set) => {
                mask::suspend(set);
                Outcome::default()
            }
            Temporary(set) => {
                let limit = libc::timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
                // SAFETY: no descriptors, and two live values.
                let result = mask::temporary(set, |mask| unsafe { libc::ppoll(null_mut(), 0, &raw const limit, mask) });
                Outcome { taken: None, wrong: result.is_some_and(|result| result != -1 || errno() != libc::EINTR) }
            }
        }
    }

    /// Runs it in the tracee. What is wrong.
    fn tell(&self, script: &Script, second: Option<Signal>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        watch::WRONG.store(0, SeqCst);
        log::take();
        mask::set(self.mask);
        let behind = Cell::new(None);
        within(self.layers, 0, &|| {
            send::sigqueue_to(send::thread(), self.awaited, VALUE);
            let before = (mask::current(), kernel_mask());
            let outcome = swept(|| self.perform());
            behind.set(Some((outcome, log::count(), before, (mask::current(), kernel_mask()))));
        });
        check(kernel_mask() == self.mask && mask::current() == self.mask, "the mask at the end");
        let at_the_end = log::count();

        // What the thread itself has blocked comes now.
        mask::set(SigSet::EMPTY);
        let rows = log::take();
        let Some((outcome, handled, (logical, kernel), (logical_after, kernel_after))) = behind.get() else {
            check(false, "the operation was not reached");
            return wrong;
        };
        check(logical_after == logical, "the mask behind the operation");
        // In a region what has come meanwhile is blocked besides.
        let more = layers::in_region(self.layers) && kernel.is_subset(kernel_after);
        check(kernel_after == kernel || more, "the kernel's mask behind the operation");
        check(!outcome.wrong, "the operation failed");

        let sent = second.filter(|_| script.sent());
        self.judge_awaited(outcome, &rows[..handled], sent, &mut check);
        for signal in KINDS.into_iter().chain([EARLIER]) {
            let times = u32::from(signal == self.awaited)
                + u32::from(Some(signal) == sent)
                + u32::from(signal == EARLIER && self.layers.contains(&Earlier));
            let runs = |rows: &[Row]| rows.iter().filter(|row| row.signal == signal.number()).count() as u32;
            let came = runs(&rows) + u32::from(outcome.taken.is_some_and(|info| info.signal() == signal));
            // A legacy signal that is sent twice may merge into one.
            check(came == times || (came == 1 && times == 2 && !signal.is_real_time()), "a signal is lost or doubled");
            if self.mask.contains(signal) {
                check(self.admits(signal) || runs(&rows[..at_the_end]) == 0, "handled although blocked");
            } else {
                check(runs(&rows) == runs(&rows[..at_the_end]), "handled after the last region");
            }
            let may_run_in_region = signal == IMMEDIATE || self.admits(signal);
            check(may_run_in_region || !rows.iter().any(|row| row.signal == signal.number() && row.in_region), "handled in a region");
        }
        self.judge_after(&mut check);
        wrong
    }

    /// By the end of the operation the awaited signal was taken, or handled; `rows` are the handlers that ran until then.
    fn judge_awaited(&self, outcome: Outcome, rows: &[Row], sent: Option<Signal>, check: &mut impl FnMut(bool, &'static str)) {
        let first = rows.iter().find(|row| row.signal == self.awaited.number());
        let Some(info) = outcome.taken else {
            check(!self.takes(), "nothing was taken");
            check(
                first.is_some_and(|row| row.code() == libc::SI_QUEUE && row.value() == VALUE),
                "the awaited signal was not handled first",
            );
            return;
        };
        let raw = info.as_raw();
        if info.signal() == self.awaited {
            // SAFETY: SI_QUEUE's siginfo carries a value.
            let value = (raw.si_code == libc::SI_QUEUE).then(|| unsafe { raw.si_value() }.sival_ptr.addr());
            check(value == Some(VALUE as usize), "the awaited signal was taken with another siginfo");
            check(first.is_none(), "the awaited signal was handled before it was taken");
        } else {
            check(sent == Some(ALSO) && info.signal() == ALSO && raw.si_code == libc::SI_TKILL, "another signal was taken");
            check(ALSO.number() < self.awaited.number(), "taken before a lower number");
            ALSO_TAKEN.fetch_add(u32::from(self.layers.is_empty() && !self.mask.contains(ALSO)), SeqCst);
        }
    }

    /// Nothing is left, and regions hold back as ever.
    fn judge_after(&self, check: &mut impl FnMut(bool, &'static str)) {
        check(watch::WRONG.load(SeqCst) == 0, "a mask or a depth in a handler");
        check(kernel_mask().is_empty() && mask::pending().is_empty() && !holds_back() && region_depth() == 0, "something is left");
        critical(|_| {
            send::tgkill(Signal::USR2);
            check(log::count() == 0, "the next region holds nothing back");
        });
        check(log::take().len() == 1, "the next signal");
        set_kernel_mask(0);
    }
}

/// Runs the stories that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    layers::install();
    for signal in KINDS.into_iter().chain([EARLIER]) {
        manage(if signal == IMMEDIATE { Handler::new(on_immediate).immediate(true) } else { Handler::new(on_any) }, signal);
    }
    while let Some((index, number)) = script.next() {
        let wrong = stories[index].tell(script, Signal::new(number).ok());
        if !wrong.is_empty() && script.failures.fetch_add(1, SeqCst) < 10 {
            println!("{wrong:?}");
        }
    }
    let taken = ALSO_TAKEN.load(SeqCst);
    assert!(taken > 0 || !stories[0].takes(), "what the operation alone has blocked was never taken");
}

fn sweep(operations: impl Fn(Signal) -> Vec<Operation>) {
    let stories = stories(operations);
    // Of fewer boundaries there may be none at which the operation takes what it alone has blocked.
    trace::sweep(&stories, &KINDS, stride(17).min(17), false, |script| tracee(script, &stories));
}

/// Everything is let in, or the awaited signal alone.
fn admitting(signal: Signal) -> [SigSet; 2] {
    [SigSet::EMPTY, SigSet::from(signal).complement()]
}

#[test]
fn wait_at_every_instruction() {
    isolated_within("wait_at_every_instruction", LIMIT, || sweep(|_| vec![Wait]));
}

#[test]
fn wait_timeout_at_every_instruction() {
    isolated_within("wait_timeout_at_every_instruction", LIMIT, || sweep(|_| vec![WaitTimeout]));
}

#[test]
fn suspend_at_every_instruction() {
    isolated_within("suspend_at_every_instruction", LIMIT, || sweep(|awaited| admitting(awaited).map(Suspend).to_vec()));
}

#[test]
fn temporary_at_every_instruction() {
    isolated_within("temporary_at_every_instruction", LIMIT, || sweep(|awaited| admitting(awaited).map(Temporary).to_vec()));
}
