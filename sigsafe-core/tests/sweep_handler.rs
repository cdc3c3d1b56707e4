//! A signal at every instruction of installing and removing handlers, of adopting a foreign one and giving it back: over and back to an
//! ignored signal, a foreign handler and a managed one; in and outside regions and handlers; also for a one-shot handler.
//!
//! Afterwards: the disposition is what the caller asked for; a signal that a region held back met it; every signal was handled
//! once, by one of the two that were in force; and the mask is what it was.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;
mod trace;

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler, Registration, adopt};
use sigsafe_core::{SigSet, Signal, in_region, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, EARLIER, Earlier, Full, Layer, Over, within};
use step::watch::{self, holds_back, set_kernel_mask, stride};
use support::{Disposition, RT, kernel_mask};
use trace::{Script, swept};

const LIMIT: Duration = Duration::from_secs(1800);

/// Its immediate handler is another signal's, and edits the mask.
const ANOTHER: Signal = Signal::USR2;
const TARGETS: [Signal; 3] = [Signal::USR1, RT, Signal::SEGV];
const KINDS: [Signal; 4] = [Signal::USR1, RT, Signal::SEGV, ANOTHER];

const CONTEXTS: [&[Layer]; 5] = [&[], &[Closure], &[Closure, Earlier], &[Full], &[Closure, Earlier, Over]];

/// What there is beside the handler that comes or goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Below {
    Ignored,
    Foreign,
    Managed,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operation {
    Install,
    Remove,
    InstallOneShot,
    RemoveOneShot,
    Adopt,
    GiveBack,
}

use Below::{Foreign, Ignored, Managed};
use Operation::{Adopt, GiveBack, Install, InstallOneShot, Remove, RemoveOneShot};

#[derive(Copy, Clone, Debug)]
struct Story {
    operation: Operation,
    below: Below,
    target: Signal,
    layers: &'static [Layer],
}

fn stories(operations: &[(Operation, &[Below])]) -> Vec<Story> {
    let mut stories = Vec::new();
    for &(operation, belows) in operations {
        for &below in belows {
            for target in TARGETS {
                stories.extend(CONTEXTS.map(|layers| Story { operation, below, target, layers }));
            }
        }
    }
    stories
}

/// Runs of the target's handlers: the one that comes or goes, and what is beside it.
static RAN: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
const CHANGING: usize = 0;
const MANAGED: usize = 1;
const FOREIGN: usize = 2;
static OTHERS: AtomicU32 = AtomicU32::new(0);
static IN_REGION: AtomicBool = AtomicBool::new(false);

/// A foreign handler was given another siginfo than the signal's.
static NOT_ITSELF: AtomicBool = AtomicBool::new(false);

fn count(what: usize) {
    RAN[what].fetch_add(1, SeqCst);
}

fn on_changing(_: &Delivery<'_>) {
    IN_REGION.fetch_or(in_region(), SeqCst);
    count(CHANGING);
}

fn on_managed(_: &Delivery<'_>) {
    IN_REGION.fetch_or(in_region(), SeqCst);
    count(MANAGED);
}

extern "C" fn on_foreign(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's siginfo, or a copy of it, lives as long as the handler runs.
    NOT_ITSELF.fetch_or(unsafe { (*info).si_code } != libc::SI_TKILL, SeqCst);
    count(FOREIGN);
}

fn on_other(_: &Delivery<'_>) {
    OTHERS.fetch_add(1, SeqCst);
}

fn on_another(delivery: &Delivery<'_>) {
    on_other(delivery);
    watch::use_regions();
    watch::use_masks();
}

fn foreign() -> Disposition {
    let mask = SigSet::EMPTY.with(Signal::TERM);
    Disposition { handler: on_foreign as *const () as usize, flags: libc::SA_SIGINFO | libc::SA_RESTART, mask }
}

fn install(handler: Handler, signal: Signal) -> Registration {
    // SAFETY: the handlers touch atomics, and one of them regions and masks.
    unsafe { handler.install(signal) }.unwrap()
}

impl Story {
    fn changing(&self) -> Handler {
        Handler::new(on_changing).reset_hand(matches!(self.operation, InstallOneShot | RemoveOneShot))
    }

    fn comes(&self) -> bool {
        matches!(self.operation, Install | InstallOneShot | Adopt)
    }

    fn one_shot(&self) -> bool {
        matches!(self.operation, InstallOneShot | RemoveOneShot)
    }

    /// Runs it in the tracee. What is wrong.
    fn tell(&self, sent: impl Fn() -> bool, signal: Option<Signal>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        RAN.iter().chain([&OTHERS, &watch::WRONG]).for_each(|count| count.store(0, SeqCst));
        watch::HANDLED[EARLIER.number() as usize].store(0, SeqCst);
        IN_REGION.store(false, SeqCst);
        NOT_ITSELF.store(false, SeqCst);

        // What is there before the region.
        Disposition::IGNORE.install(self.target);
        if self.below == Foreign {
            foreign().install(self.target);
        }
        let below = (self.below == Managed).then(|| install(Handler::new(on_managed), self.target));
        let beside = Disposition::of(self.target);
        let going = RefCell::new(match self.operation {
            Remove | RemoveOneShot => Some(install(self.changing(), self.target)),
            // SAFETY: the foreign handler touches an atomic.
            GiveBack => Some(unsafe { adopt(self.target) }.unwrap()),
            _ => None,
        });
        let masks = RefCell::new(None);
        within(self.layers, 0, &|| {
            let before = (mask::current(), kernel_mask());
            match self.operation {
                Install | InstallOneShot => *going.borrow_mut() = Some(swept(|| install(self.changing(), self.target))),
                // SAFETY: as above.
                Adopt => *going.borrow_mut() = Some(swept(|| unsafe { adopt(self.target) }).unwrap()),
                Remove | RemoveOneShot | GiveBack => {
                    let registration = going.take().unwrap();
                    swept(|| registration.remove()).unwrap();
                }
            }
            *masks.borrow_mut() = Some((before, (mask::current(), kernel_mask())));
        });
        let in_region = layers::in_region(self.layers);
        match masks.take() {
            None => check(false, "the operation was not reached"),
            Some(((logical, kernel), (logical_after, kernel_after))) => {
                check(logical == logical_after, "the mask behind the operation");
                // In a region what is captured meanwhile is blocked besides.
                check(kernel == kernel_after || (in_region && kernel.is_subset(kernel_after)), "the kernel's mask behind it");
            }
        }
        check(kernel_mask().is_empty() && mask::current().is_empty(), "the mask at the end");

        let [changing, managed, foreign_runs] = RAN.each_ref().map(|count| count.load(SeqCst));
        let now = Disposition::of(self.target);
        if self.one_shot() && changing == 1 {
            check(now == Disposition::DEFAULT, "the disposition after a one-shot handler has run");
        } else if self.comes() {
            check(now != beside || self.below == Managed, "the disposition after an installation");
            check(now.handler != libc::SIG_DFL && now.handler != libc::SIG_IGN, "no handler after an installation");
        } else {
            check(now == beside, "the disposition after a removal");
        }
        let hit = sent() && signal == Some(self.target);
        let runs = changing + managed + foreign_runs;
        // A signal that is adopted runs the foreign handler, behind the trampoline or not.
        check(runs == u32::from(hit) || (self.below == Ignored && hit && runs == 0), "the target's signal is lost or doubled");
        if hit && in_region && self.below != Foreign {
            let right = match (self.comes(), self.below) {
                (true, Managed) => changing == 1,
                (false, Managed) => managed == 1,
                (false, Ignored) => runs == 0,
                _ => true,
            };
            check(right, "a signal held back met a disposition that was not in force");
        }
        check(OTHERS.load(SeqCst) == u32::from(sent() && !hit), "another signal is lost or doubled");
        check(watch::handled(EARLIER) == u32::from(self.layers.contains(&Earlier)), "the earlier signal is lost");
        check(!IN_REGION.load(SeqCst), "a handler ran in a region");
        check(!NOT_ITSELF.load(SeqCst), "a foreign handler was given another siginfo");
        check(watch::WRONG.load(SeqCst) == 0, "a mask or a depth in a handler");
        check(mask::pending().is_empty() && !holds_back(), "something is left");
        set_kernel_mask(0);

        // A later signal must find nothing that this one has left.
        let next = install(Handler::new(on_managed), self.target);
        let before = RAN[MANAGED].load(SeqCst);
        support::send::tgkill(self.target);
        check(RAN[MANAGED].load(SeqCst) == before + 1, "the next signal");
        check(next.remove().is_ok(), "the next removal");
        for registration in going.take().into_iter().chain(below) {
            check(registration.remove().is_ok(), "the last removal");
        }
        wrong
    }
}

/// Runs the stories that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    layers::install();
    install(Handler::new(on_another).immediate(true), ANOTHER);
    let mut installed: Option<(Signal, Vec<Registration>)> = None;
    while let Some((index, number)) = script.next() {
        let story = &stories[index];
        if installed.as_ref().is_none_or(|(target, _)| *target != story.target) {
            for registration in installed.take().into_iter().flat_map(|(_, registrations)| registrations) {
                registration.remove().unwrap();
            }
            let others = TARGETS.into_iter().filter(|signal| *signal != story.target);
            installed = Some((story.target, others.map(|signal| install(Handler::new(on_other), signal)).collect()));
        }
        let wrong = story.tell(|| script.sent(), Signal::new(number).ok());
        if !wrong.is_empty() && script.failures.fetch_add(1, SeqCst) < 10 {
            println!("{wrong:?}");
        }
    }
}

fn sweep(operations: &[(Operation, &[Below])]) {
    let stories = stories(operations);
    trace::sweep(&stories, &KINDS, stride(11), false, |script| tracee(script, &stories));
}

const ANY: &[Below] = &[Ignored, Foreign, Managed];
/// A one-shot handler that has run leaves the default action over a managed handler, which then cannot be removed.
const NOT_MANAGED: &[Below] = &[Ignored, Foreign];

#[test]
fn install_at_every_instruction() {
    isolated_within("install_at_every_instruction", LIMIT, || sweep(&[(Install, ANY), (InstallOneShot, NOT_MANAGED)]));
}

#[test]
fn remove_at_every_instruction() {
    isolated_within("remove_at_every_instruction", LIMIT, || sweep(&[(Remove, ANY), (RemoveOneShot, NOT_MANAGED)]));
}

#[test]
fn adopt_and_give_back_at_every_instruction() {
    isolated_within("adopt_and_give_back_at_every_instruction", LIMIT, || sweep(&[(Adopt, &[Foreign]), (GiveBack, &[Foreign])]));
}
