//! A signal to the notifier's own thread at every instruction of it: while it starts, up to the first signal that it hands out; while
//! it makes the changes that `enable`, `disable`, a new subscription and the end of one ask for; and while it waits for these.
//!
//! Afterwards: the thread's mask is the one that it keeps; what it never blocks was handled on it, once, and what it always blocks was not;
//! the signal under change was delivered or had its disposition back; and the next signals arrive.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;
mod trace;

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::notifier::Subscription;
use sigsafe_core::{SigInfo, SigSet, Signal, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::watch::stride;
use support::{Disposition, kernel_mask, manage, send, spin_until};
use trace::{Script, begin, ready};

const LIMIT: Duration = Duration::from_secs(1800);

/// Subscribed in all stories: its callback shows that the thread is alive, and begins and ends what is swept.
const CLOCK: Signal = Signal::WINCH;
/// Enabled and disabled. Ignored while it is not subscribed.
const TARGET: Signal = Signal::USR1;
/// Never blocked by the thread: an essential signal and a fault, both with a managed handler.
const OPEN: [Signal; 2] = [Signal::PROF, Signal::SEGV];
/// Always blocked by it.
const CLOSED: Signal = Signal::USR2;
const KINDS: [Signal; 5] = [CLOCK, TARGET, OPEN[0], OPEN[1], CLOSED];
/// What the thread blocks where it hands out.
const MASK: SigSet =
    SigSet::ESSENTIAL.union(SigSet::SYNCHRONOUS).union(SigSet::RESERVED).with(Signal::KILL).with(Signal::STOP).complement();

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operation {
    Start,
    Enable,
    Disable,
    Subscribe,
    Unsubscribe,
}

use Operation::{Disable, Enable, Start, Subscribe, Unsubscribe};

/// The values that come with [`CLOCK`].
const NOTHING: i32 = 0;
const BEGIN: i32 = 1;
const END: i32 = 2;
const LAST: i32 = 3;

/// The last value that has come, how many signals had none, and the thread's mask.
static CAME: AtomicI32 = AtomicI32::new(NOTHING);
static STRAY_CLOCKS: AtomicU32 = AtomicU32::new(0);
static THREAD_MASK: AtomicU64 = AtomicU64::new(0);
/// Calls for [`TARGET`]: those of the story's last signal, and others.
static TARGETS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// Runs of the program's handlers on the notifier's thread, of open signals and of others; and on other threads.
static HANDLED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

fn value(info: &SigInfo) -> Option<i32> {
    let raw = info.as_raw();
    // SAFETY: SI_QUEUE's siginfo carries a value.
    (raw.si_code == libc::SI_QUEUE).then(|| unsafe { raw.si_value() }.sival_ptr.addr() as i32)
}

fn on_clock(info: &SigInfo) {
    if info.signal() == TARGET {
        return on_target(info);
    }
    let Some(value) = value(info) else {
        STRAY_CLOCKS.fetch_add(1, SeqCst);
        return;
    };
    THREAD_MASK.store(kernel_mask().bits(), SeqCst);
    match value {
        BEGIN => begin(),
        END => ready(),
        _ => {}
    }
    CAME.store(value, SeqCst);
}

fn on_target(info: &SigInfo) {
    TARGETS[usize::from(value(info) != Some(LAST))].fetch_add(1, SeqCst);
}

fn on_other(delivery: &Delivery<'_>) {
    // SAFETY: the calls take nothing.
    let elsewhere = unsafe { libc::gettid() == libc::getpid() };
    HANDLED[if elsewhere { 2 } else { usize::from(!OPEN.contains(&delivery.signal())) }].fetch_add(1, SeqCst);
}

/// Has the notifier's thread come to its callback.
fn call(value: i32) {
    send::sigqueue(CLOCK, value);
    spin_until(|| CAME.load(SeqCst) == value);
}

#[derive(Copy, Clone, Debug)]
struct Story {
    operation: Operation,
    /// Blocked by the thread that asks for the change.
    mask: SigSet,
}

impl Story {
    fn enables(&self) -> bool {
        matches!(self.operation, Start | Enable | Subscribe)
    }

    /// Runs it in the tracee. What is wrong.
    fn tell(&self, script: &Script, signal: Option<Signal>, running: &mut Option<Subscription>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        TARGETS.iter().chain(&HANDLED).chain([&STRAY_CLOCKS]).for_each(|count| count.store(0, SeqCst));
        CAME.store(NOTHING, SeqCst);
        let target = SigSet::from(TARGET);
        let mut other = None;
        if self.operation == Disable {
            running.as_ref().unwrap().enable(target).unwrap();
        } else if self.operation == Unsubscribe {
            other = Some(Subscription::new(target, on_target).unwrap());
        }
        mask::set(self.mask);
        if self.operation == Start {
            *running = Some(Subscription::new(target.with(CLOCK), on_clock).unwrap());
        } else {
            let subscription = running.as_ref().unwrap();
            call(BEGIN);
            match self.operation {
                Enable => subscription.enable(target).unwrap(),
                Disable => subscription.disable(target),
                Subscribe => other = Some(Subscription::new(target, on_target).unwrap()),
                _ => drop(other.take()),
            }
        }
        call(END);
        check(THREAD_MASK.load(SeqCst) == MASK.bits(), "the mask of the notifier's thread");
        check(kernel_mask() == self.mask, "the mask of the thread that asked");
        check((Disposition::of(TARGET) == Disposition::IGNORE) != self.enables(), "the disposition of what was changed");

        // The last signals; the second call comes when everything before it has been handed out.
        if self.enables() {
            send::sigqueue(TARGET, LAST);
        }
        call(LAST);
        mask::set(SigSet::EMPTY);
        if self.enables() {
            spin_until(|| TARGETS[0].load(SeqCst) == 1);
        }
        call(NOTHING);
        if !self.enables() {
            // Ignored where it is blocked, a signal waits all the same: the next subscription has it.
            running.as_ref().unwrap().enable(target).unwrap();
            running.as_ref().unwrap().disable(target);
        }
        let hit = |kind| u32::from(script.sent() && signal == Some(kind));
        check(STRAY_CLOCKS.load(SeqCst) == hit(CLOCK), "a signal that is subscribed all the time is lost or doubled");
        let strays = TARGETS[1].load(SeqCst);
        check(strays <= hit(TARGET), "a call for nothing");
        // What waits when the disposition comes back, which is to ignore it, is discarded by that.
        check(strays == hit(TARGET) || !self.enables(), "a call is missing");
        let [open, closed, elsewhere] = HANDLED.each_ref().map(|count| count.load(SeqCst));
        check(open == hit(OPEN[0]) + hit(OPEN[1]), "an open signal is lost or doubled");
        check(closed == 0 && elsewhere == 0, "a handler for nothing, or on another thread");

        match self.operation {
            Enable => running.as_ref().unwrap().disable(target),
            _ => drop(other),
        }
        check(self.operation == Start || Disposition::of(TARGET) == Disposition::IGNORE, "the disposition after all");
        wrong
    }
}

/// Runs the stories that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    for signal in OPEN.into_iter().chain([CLOSED]) {
        manage(Handler::new(on_other).on_stack(true), signal);
    }
    Disposition::IGNORE.install(TARGET);
    let starts = stories[0].operation == Start;
    let mut running = (!starts).then(|| Subscription::new(SigSet::from(CLOCK), on_clock).unwrap());
    while let Some((index, number)) = script.next() {
        let wrong = stories[index].tell(script, Signal::new(number).ok(), &mut running);
        if !wrong.is_empty() && script.failures.fetch_add(1, SeqCst) < 10 {
            println!("{wrong:?}");
        }
    }
}

fn stories(operations: &[Operation]) -> Vec<Story> {
    let masks = [SigSet::EMPTY, SigSet::EMPTY.with(TARGET).with(CLOCK).with(Signal::PROF)];
    operations.iter().flat_map(|&operation| masks.map(|mask| Story { operation, mask })).collect()
}

#[test]
fn the_notifier_s_start_at_every_instruction_of_its_thread() {
    isolated_within("the_notifier_s_start_at_every_instruction_of_its_thread", LIMIT, || {
        let stories = stories(&[Start]);
        trace::sweep_processes(&stories, &KINDS, stride(61), |_| None, |script| tracee(script, &stories));
    });
}

#[test]
fn changes_of_subscriptions_at_every_instruction_of_the_notifier_s_thread() {
    isolated_within("changes_of_subscriptions_at_every_instruction_of_the_notifier_s_thread", LIMIT, || {
        let stories = stories(&[Enable, Disable, Subscribe, Unsubscribe]);
        trace::sweep(&stories, &KINDS, stride(61), true, |script| tracee(script, &stories));
    });
}
