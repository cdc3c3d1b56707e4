//! A signal at every instruction of a crash, from its call to the process's end: the same signal, others with managed handlers, deferrable and
//! immediate, a foreign handler, a sent fault, and one that waits and would end the process; in and outside regions and handlers, with a deferral outstanding.
//!
//! The wait status says the signal of the crash, whatever arrives where.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories. Each run is a process of its own.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod support;
mod trace;

use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, crash, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, Earlier, Full, Later, Layer, Over, within};
use step::watch::{self, stride};
use support::{Disposition, RT, manage};
use trace::{Script, swept};

const LIMIT: Duration = Duration::from_secs(1800);

/// Its handler is immediate, and edits the mask.
const IMMEDIATE: Signal = Signal::USR2;
/// The thread has it blocked in all stories: its action is the default one.
const DEADLY: Signal = Signal::INT;
/// TERM and RT are causes, too; XFSZ has another's, plain handler.
const KINDS: [Signal; 7] = [Signal::TERM, RT, Signal::SEGV, Signal::USR1, IMMEDIATE, Signal::XFSZ, DEADLY];
/// CHLD can be no cause: SIGABRT stands in for it.
const CAUSES: [Signal; 4] = [Signal::TERM, RT, Signal::SEGV, Signal::CHLD];
const CONTEXTS: [&[Layer]; 6] = [&[], &[Closure], &[Closure, Earlier], &[Full], &[Closure, Earlier, Over], &[Later]];

#[derive(Copy, Clone, Debug)]
struct Story {
    cause: Signal,
    layers: &'static [Layer],
    /// The thread's mask before the first layer.
    mask: SigSet,
}

impl Story {
    fn dies_of(&self) -> Signal {
        if self.cause == Signal::CHLD { Signal::ABRT } else { self.cause }
    }
}

fn stories() -> Vec<Story> {
    let masks = [SigSet::from(DEADLY), KINDS.into_iter().collect()];
    let contexts = move |cause| CONTEXTS.into_iter().flat_map(move |layers| masks.map(|mask| Story { cause, layers, mask }));
    CAUSES.into_iter().flat_map(contexts).collect()
}

fn on_immediate(delivery: &Delivery<'_>) {
    watch::on_any_time(delivery);
    watch::use_masks();
}

/// Tells the story that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    // SAFETY: the pointer is to a live value. What dies here leaves no file behind.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
    layers::install();
    for signal in KINDS.into_iter().chain([Signal::ABRT]) {
        match signal {
            IMMEDIATE => _ = manage(Handler::new(on_immediate).immediate(true), signal),
            DEADLY => {}
            Signal::XFSZ => Disposition::plain().install(signal),
            _ => _ = manage(Handler::new(watch::on_any_time), signal),
        }
    }
    while let Some((index, _)) = script.next() {
        let story = &stories[index];
        mask::set(story.mask);
        within(story.layers, 0, &|| swept(|| crash(story.cause)));
    }
}

#[test]
fn crash_at_every_instruction() {
    isolated_within("crash_at_every_instruction", LIMIT, || {
        let stories = stories();
        trace::sweep_processes(&stories, &KINDS, stride(31), |story| Some(story.dies_of()), |script| tracee(script, &stories));
    });
}
