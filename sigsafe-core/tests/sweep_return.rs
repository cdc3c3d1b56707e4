//! A signal at every instruction of two short stretches at which a region could let go of what it holds back: the return of an immediate
//! handler that has run over it, and an exit that has something to flush.
//!
//! Parts of what the other sweeps step through, under conditions of their own.

#![cfg(target_arch = "x86_64")]

mod step;

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, mask, region_depth};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, EARLIER, Earlier, Full, Guard, Layer, within};
use step::watch::{self, HANDLED, Tally, WRONG, handled, kernel_mask, set_kernel_mask};
use step::{AS_FAULT, Path, SENT, Stop};

/// Of a slow machine.
const LIMIT: Duration = Duration::from_secs(400);

const RT: Signal = match Signal::real_time(2) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+2 exists"),
};
/// Its immediate handler unblocks [`OWN`] and returns.
const IMMEDIATE: Signal = Signal::USR2;
/// Its immediate handler uses regions.
const OTHER_IMMEDIATE: Signal = Signal::ALRM;
/// The thread itself has it blocked.
const OWN: Signal = Signal::QUIT;

thread_local! {
    // The handler that takes it is run by this thread's own sends, never at an arbitrary instruction.
    /// What is sent, and where; `None` to learn the way.
    static SEND: Cell<Option<(Stop, i32)>> = const { Cell::new(None) };
}

/// As foreign code does: the kernel's mask, whatever the engine holds back. Then every boundary of the way back. No region before, since
/// a full-mask one over another leaves everything blocked here.
fn unblock_and_return(_: &Delivery<'_>) {
    set_kernel_mask(kernel_mask() & !SigSet::from(OWN).bits());
    step::begin(SEND.get());
}

fn install() {
    step::prepare();
    layers::install();
    let deferrable = Handler::new(watch::on_deferrable);
    for signal in [Signal::USR1, RT, Signal::SEGV, OWN] {
        // SAFETY: the handler touches atomics and regions.
        unsafe { deferrable.install(signal).unwrap() };
    }
    for (signal, handler) in [(IMMEDIATE, unblock_and_return as fn(&Delivery<'_>)), (OTHER_IMMEDIATE, watch::on_any_time)] {
        // SAFETY: as above; it edits the mask of its own frame.
        unsafe { Handler::new(handler).immediate(true).install(signal).unwrap() };
    }
}

/// Whether a run has left anything wrong. The region has ended.
fn judge() -> bool {
    let own = SigSet::from(OWN);
    let mut right = (SigSet::from_bits(kernel_mask()), mask::current(), region_depth()) == (own, own, 0);
    mask::set(SigSet::EMPTY);
    right &= kernel_mask() == 0 && mask::pending().is_empty() && WRONG.swap(0, SeqCst) == 0 && !watch::holds_back();
    for number in 1..65 {
        let (sent, handled) = (SENT[number].swap(0, SeqCst), HANDLED[number].swap(0, SeqCst));
        // What was sent before the steps began is asked for where it was sent.
        right &= number == EARLIER.number() as usize || number == IMMEDIATE.number() as usize || sent == handled;
    }
    set_kernel_mask(own.bits());
    right
}

/// From the beginning in `operation` to behind the regions: the way, and whether the run came to its stop.
#[inline(never)]
fn round(context: &'static [Layer], operation: &dyn Fn()) -> (Path, bool) {
    within(context, 0, operation);
    step::end()
}

/// Runs `operation` in each of `contexts` with each of `numbers` at each boundary. It begins to step; the steps end behind the regions, or
/// with the handler that began them.
fn sweep(contexts: &[&'static [Layer]], numbers: &[i32], operation: &dyn Fn()) {
    set_kernel_mask(SigSet::from(OWN).bits());
    for &context in contexts {
        for &number in numbers {
            let mut tally = Tally::new();
            let run = |send| {
                SEND.set(send);
                let way = round(context, operation);
                assert_eq!(handled(EARLIER), u32::from(context.contains(&Earlier)), "the earlier signal");
                way
            };
            // The first runs bind functions.
            run(None);
            judge();
            let stops = run(None).0.stops();
            assert!(stops.len() > 30 && judge(), "{} boundaries, and nothing was sent", stops.len());
            for (at, stop) in stops.iter().enumerate() {
                let (_, met) = run(Some((*stop, number)));
                assert!(met, "{context:?}, {number:#x} at {at} was not sent");
                tally.add(!judge(), || format!("{context:?}, {number:#x} at {at} of {}", stops.len()));
            }
            tally.conclude();
        }
    }
}

#[test]
fn a_handler_that_unblocks_what_the_thread_has_blocked_leaves_it_blocked() {
    isolated_within("a_handler_that_unblocks_what_the_thread_has_blocked_leaves_it_blocked", LIMIT, || {
        install();
        let numbers = [Signal::USR1, RT, Signal::SEGV, OWN].map(Signal::number);
        sweep(&[&[Closure], &[Full], &[Guard, Earlier]], &numbers, &|| step::send(IMMEDIATE.number()));
    });
}

/// The same handler where the region has ended and still holds back: there its return may be interrupted.
#[test]
fn a_handler_before_a_flush_that_unblocks_what_the_thread_has_blocked_leaves_it_blocked() {
    isolated_within("a_handler_before_a_flush_that_unblocks_what_the_thread_has_blocked_leaves_it_blocked", LIMIT, || {
        install();
        let context: &'static [Layer] = &[Closure, Earlier];
        // Where the handler begins, which then takes its turn; at first, the way there.
        let before_the_flush = Cell::new(None);
        let operation = || step::begin(before_the_flush.get().map(|stop| (stop, IMMEDIATE.number())));
        round(context, &operation);
        let (way, _) = round(context, &operation);
        for stop in way.stops() {
            before_the_flush.set(Some(stop));
            HANDLED[EARLIER.number() as usize].store(0, SeqCst);
            sweep(&[context], &[OWN.number()], &operation);
        }
    });
}

#[test]
fn an_immediate_handler_at_every_instruction_of_an_exit_leaves_it_its_flush() {
    isolated_within("an_immediate_handler_at_every_instruction_of_an_exit_leaves_it_its_flush", LIMIT, || {
        install();
        let numbers = [OTHER_IMMEDIATE.number(), Signal::SEGV.number() | AS_FAULT];
        sweep(&[&[Closure, Earlier], &[Guard, Earlier], &[Full, Earlier]], &numbers, &|| step::begin(SEND.get()));
    });
}
