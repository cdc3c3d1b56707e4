//! A signal at every instruction of the notifier's `enable` and `disable`, up to their return, which means that the change is in force; in
//! and outside regions, with the signal blocked by the thread and not.
//!
//! Afterwards: the masks are what they were; what is subscribed is delivered, and what is not has its disposition back; the signal
//! went to one of the two, once; other signals were handled once, outside regions.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;
mod trace;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::notifier::Subscription;
use sigsafe_core::{SigInfo, SigSet, Signal, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, EARLIER, Earlier, Full, Guard, Layer, within};
use step::watch::{self, handled, holds_back, set_kernel_mask, stride};
use support::{Disposition, RT, kernel_mask, send, spin_until};
use trace::{Script, swept};

const LIMIT: Duration = Duration::from_secs(1800);

/// Enabled and disabled. Ignored while it is not subscribed.
const TARGET: Signal = Signal::USR1;
const IMMEDIATE: Signal = Signal::USR2;
const KINDS: [Signal; 4] = [TARGET, RT, IMMEDIATE, Signal::PROF];
const CONTEXTS: [&[Layer]; 5] = [&[], &[Closure], &[Guard], &[Closure, Earlier], &[Full]];

#[derive(Copy, Clone, Debug)]
struct Story {
    enables: bool,
    layers: &'static [Layer],
    /// The thread's mask before the first layer.
    mask: SigSet,
}

static CALLS: AtomicU32 = AtomicU32::new(0);
/// Of these, the ones for the last signal of a story.
static LAST_CALLS: AtomicU32 = AtomicU32::new(0);
const LAST_VALUE: usize = 77;

fn on_target(info: &SigInfo) {
    CALLS.fetch_add(1, SeqCst);
    let raw = info.as_raw();
    // SAFETY: SI_QUEUE's siginfo carries a value.
    if raw.si_code == libc::SI_QUEUE && unsafe { raw.si_value() }.sival_ptr.addr() == LAST_VALUE {
        LAST_CALLS.fetch_add(1, SeqCst);
    }
}

fn on_immediate(delivery: &Delivery<'_>) {
    watch::on_any_time(delivery);
    watch::use_masks();
}

impl Story {
    /// Runs it in the tracee. What is wrong.
    fn tell(&self, script: &Script, signal: Option<Signal>, subscription: &Subscription) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        [&watch::WRONG, &CALLS, &LAST_CALLS].into_iter().chain(&watch::HANDLED).for_each(|count| count.store(0, SeqCst));
        let target = SigSet::from(TARGET);
        if !self.enables {
            subscription.enable(target).unwrap();
        }
        mask::set(self.mask);
        let masks = Cell::new(None);
        within(self.layers, 0, &|| {
            let before = (mask::current(), kernel_mask());
            if self.enables {
                swept(|| subscription.enable(target)).unwrap();
            } else {
                swept(|| subscription.disable(target));
            }
            masks.set(Some((before, (mask::current(), kernel_mask()))));
        });
        match masks.get() {
            None => check(false, "the operation was not reached"),
            Some(((logical, kernel), (logical_after, kernel_after))) => {
                check(logical == logical_after, "the mask behind the operation");
                let in_region = layers::in_region(self.layers);
                check(kernel == kernel_after || (in_region && kernel.is_subset(kernel_after)), "the kernel's mask behind it");
            }
        }
        check(kernel_mask() == self.mask && mask::current() == self.mask, "the mask at the end");
        check((Disposition::of(TARGET) == Disposition::IGNORE) != self.enables, "the disposition at the end");
        check(subscription.signals().contains(TARGET) == self.enables, "what is subscribed at the end");

        let hit = script.sent() && signal == Some(TARGET);
        if self.enables {
            // Process-directed; where this thread has it blocked, it is the notifier that takes it.
            send::sigqueue(TARGET, LAST_VALUE as i32);
            spin_until(|| LAST_CALLS.load(SeqCst) == 1);
        }
        let waits = hit && self.mask.contains(TARGET) && mask::pending().contains(TARGET);
        mask::set(SigSet::EMPTY);
        if waits && self.enables {
            spin_until(|| CALLS.load(SeqCst) == 2);
        }
        let calls = CALLS.load(SeqCst) - u32::from(self.enables);
        check(calls <= u32::from(hit), "a call for nothing");
        check(!waits || calls == u32::from(self.enables), "what waited met another disposition than that in force");
        for other in KINDS.into_iter().filter(|kind| *kind != TARGET) {
            check(handled(other) == u32::from(script.sent() && signal == Some(other)), "another signal is lost or doubled");
        }
        check(handled(EARLIER) == u32::from(self.layers.contains(&Earlier)), "the earlier signal is lost");
        check(watch::WRONG.load(SeqCst) == 0, "a handler in a region, or a mask or a depth in a handler");
        check(mask::pending().is_empty() && !holds_back(), "something is left");
        set_kernel_mask(0);
        if self.enables {
            subscription.disable(target);
            check(Disposition::of(TARGET) == Disposition::IGNORE, "the disposition after all");
        }
        wrong
    }
}

/// Runs the stories that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    layers::install();
    for signal in KINDS.into_iter().filter(|kind| *kind != TARGET) {
        let handler = if signal == IMMEDIATE { Handler::new(on_immediate).immediate(true) } else { Handler::new(watch::on_deferrable) };
        // SAFETY: the handlers touch atomics, regions and masks.
        unsafe { handler.install(signal) }.unwrap();
    }
    Disposition::IGNORE.install(TARGET);
    // The other signal keeps the notifier's thread there.
    let subscription = Subscription::new(SigSet::from(Signal::WINCH), on_target).unwrap();
    while let Some((index, number)) = script.next() {
        let wrong = stories[index].tell(script, Signal::new(number).ok(), &subscription);
        if !wrong.is_empty() && script.failures.fetch_add(1, SeqCst) < 10 {
            println!("{wrong:?}");
        }
    }
}

fn sweep(enables: bool) {
    let masks = [SigSet::EMPTY, SigSet::EMPTY.with(TARGET).with(Signal::PROF)];
    let stories = CONTEXTS.into_iter().flat_map(|layers| masks.map(|mask| Story { enables, layers, mask })).collect::<Vec<_>>();
    trace::sweep(&stories, &KINDS, stride(11), false, |script| tracee(script, &stories));
}

#[test]
fn enable_at_every_instruction() {
    isolated_within("enable_at_every_instruction", LIMIT, || sweep(true));
}

#[test]
fn disable_at_every_instruction() {
    isolated_within("disable_at_every_instruction", LIMIT, || sweep(false));
}
