//! What an immediate handler sees of its thread's mask, at every instruction of an exit that flushes and of a trampoline: what the thread
//! has blocked, what the handlers it lies on have blocked, and nothing that a region holds back. A thread that is created in such a
//! handler starts with what it sees.

#![cfg(target_arch = "x86_64")]

mod step;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with, mask};
use sigsafe_test_harness::isolate::{isolated, isolated_within};
use step::layers::EARLIER;
use step::watch::{self, HANDLED, Tally, kernel_mask, set_kernel_mask};
use step::{AS_FAULT, Path, SENT, STUCK, Stop};

/// Of a slow machine.
const LIMIT: Duration = Duration::from_secs(600);

/// The thread itself has it blocked.
const OWN: SigSet = SigSet::EMPTY.with(Signal::QUIT);
/// Its immediate handler looks at the mask.
const LOOKING: Signal = Signal::VTALRM;
/// So does this one's, so that one may lie on the other.
const LOOKING_TOO: Signal = Signal::ALRM;
/// What has handlers here. One that is running has its own signal blocked; all else that a region holds back has nobody.
const OF_HANDLERS: SigSet =
    SigSet::EMPTY.with(LOOKING).with(LOOKING_TOO).with(EARLIER).with(Signal::USR1).with(Signal::CONT).with(Signal::SEGV);
const RT: Signal = match Signal::real_time(3) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+3 exists"),
};

/// A handler that looks blocks them in the end.
const EDITED: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::TTOU);

thread_local! {
    // Read by the thread itself, never in a handler.
    /// What is sent, and where; `None` to learn the way.
    static SEND: Cell<Option<(Stop, i32)>> = const { Cell::new(None) };
}

/// How often a change of a handler's gave back another mask.
static EDITS_WRONG: AtomicU32 = AtomicU32::new(0);
/// How often a handler has seen another mask, and the last of those.
static SEEN_WRONG: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn look() {
    let seen = mask::current();
    if seen.difference(OF_HANDLERS.with(RT) | EDITED) != OWN {
        SEEN.store(seen.bits(), SeqCst);
        SEEN_WRONG.fetch_add(1, SeqCst);
    }
}

/// Also of what is deferred.
fn on_any(delivery: &Delivery<'_>) {
    HANDLED[delivery.signal().number() as usize].fetch_add(1, SeqCst);
    critical(|_| drop::<MaskGuard>(MaskGuard::new()));
}

fn on_looking(delivery: &Delivery<'_>) {
    look();
    on_any(delivery);
    look();
    // What it changes dies with it.
    let before = mask::current();
    let with = before | EDITED;
    let edits = [mask::block(EDITED), mask::current(), mask::set(before), mask::current(), mask::unblock(EDITED), mask::block(EDITED)];
    let without = before.difference(EDITED);
    if edits != [before, with, with, before, before, without] {
        EDITS_WRONG.fetch_add(1, SeqCst);
    }
}

fn install() {
    step::prepare();
    for signal in [EARLIER, Signal::USR1, Signal::CONT, Signal::SEGV, RT] {
        // SAFETY: the handler touches atomics and regions.
        unsafe { Handler::new(on_any).install(signal).unwrap() };
    }
    for signal in [LOOKING, LOOKING_TOO] {
        // SAFETY: as above, and the mask of its own frame.
        unsafe { Handler::new(on_looking).immediate(true).install(signal).unwrap() };
    }
    set_kernel_mask(OWN.bits());
}

/// What a run has left wrong.
fn judge() -> Vec<String> {
    let mut wrong = Vec::new();
    if SEEN_WRONG.swap(0, SeqCst) != 0 {
        wrong.push(format!("a handler saw {:?}", SigSet::from_bits(SEEN.load(SeqCst)).difference(OF_HANDLERS)));
    }
    if EDITS_WRONG.swap(0, SeqCst) != 0 {
        wrong.push("a change of a handler's mask".into());
    }
    let (kernel, logical) = (SigSet::from_bits(kernel_mask()), mask::current());
    if (kernel, logical) != (OWN, OWN) {
        wrong.push(format!("left blocked: {kernel:?}, for the thread {logical:?}"));
        set_kernel_mask(OWN.bits());
    }
    if watch::holds_back() || STUCK.load(SeqCst) {
        wrong.push("something held back, or a run without end".into());
    }
    for number in 1..65 {
        let (sent, handled) = (SENT[number].load(SeqCst), HANDLED[number].swap(0, SeqCst));
        // A legacy signal may merge with one that waits; what was sent before the steps is not counted.
        if number != EARLIER.number() as usize && (handled > sent || (handled == 0) != (sent == 0)) {
            wrong.push(format!("{number}: sent {sent} times, handled {handled} times"));
        }
    }
    wrong
}

/// Begins to step, in a region.
fn begin() {
    step::begin(SEND.get());
}

type Operation = (&'static str, fn());

/// From the inside of a region. (To enter a full-mask one has a call that blocks, of which the record hears a moment later.)
const FLUSHES: &[Operation] = &[
    ("closure", || {
        critical(|_| {
            begin();
            step::send(EARLIER.number());
        });
    }),
    ("guard", || {
        let guard: MaskGuard = MaskGuard::new();
        begin();
        step::send(EARLIER.number());
        drop(guard);
    }),
    ("full mask", || {
        critical_with::<FullSyscall, _>(|_| {
            begin();
            step::send(EARLIER.number());
        });
    }),
    ("closure that keeps", || {
        critical(|_| {
            begin();
            step::send(libc::SIGCONT);
            step::send(RT.number());
            step::send(libc::SIGSEGV);
        });
    }),
    ("closure that keeps over a handler", || {
        critical(|_| {
            begin();
            step::send(LOOKING_TOO.number());
            step::send(RT.number());
        });
    }),
];

/// The way of a flush, and whether the run came to its stop.
#[inline(never)]
fn round(operation: fn(), send: Option<(Stop, i32)>) -> (Path, bool) {
    SEND.set(send);
    operation();
    step::end()
}

#[test]
fn the_mask_that_a_handler_sees_at_every_instruction_of_a_flush() {
    isolated_within("the_mask_that_a_handler_sees_at_every_instruction_of_a_flush", LIMIT, || {
        install();
        let mut tally = Tally::new();
        for &(name, operation) in FLUSHES {
            // The first runs bind functions.
            round(operation, None);
            let stops = round(operation, None).0.stops();
            judge();
            assert!(stops.len() > 60, "{name}: {} boundaries", stops.len());
            for (at, stop) in stops.iter().enumerate() {
                let (_, met) = round(operation, Some((*stop, LOOKING.number())));
                assert!(met, "{name}: {at} was not met");
                let wrong = judge();
                tally.add(!wrong.is_empty(), || format!("{name}, at {at} of {}: {wrong:?}", stops.len()));
            }
        }
        tally.conclude();
    });
}

/// Regions with a handler over them.
const REGIONS: &[Operation] = &[("closure", || critical(|_| ())), ("guard", || drop::<MaskGuard>(MaskGuard::new()))];

/// Runs something on its own, or in a region with a deferral outstanding.
fn around<R>(defers: bool, run: impl FnOnce() -> R) -> R {
    if !defers {
        return run();
    }
    critical(|_| {
        step::send(EARLIER.number());
        run()
    })
}

#[test]
fn the_mask_that_a_handler_sees_at_every_instruction_of_a_trampoline() {
    isolated_within("the_mask_that_a_handler_sees_at_every_instruction_of_a_trampoline", LIMIT, || {
        install();
        // Over a handler that looks, over one that is captured, over a fault's; and a capture over one that looks.
        let fault = libc::SIGSEGV | AS_FAULT;
        let pairs = [(LOOKING_TOO.number(), LOOKING), (libc::SIGUSR1, LOOKING), (fault, LOOKING), (LOOKING.number(), Signal::USR1)];
        let stride = watch::stride(5) as usize;
        let mut tally = Tally::new();
        let mut turn = 0;
        for (&(name, mut operation), defers) in REGIONS.iter().flat_map(|region| [(region, false), (region, true)]) {
            let operation: &mut dyn FnMut() = &mut operation;
            around(defers, || step::learn(None, operation));
            let way = around(defers, || step::learn(None, operation)).stops();
            judge();
            for (first, second) in pairs {
                for (at, stop) in way.iter().enumerate() {
                    turn += 1;
                    if turn % stride != 0 {
                        continue;
                    }
                    let stops = around(defers, || step::learn(Some((at, first)), operation)).stops_after_sending();
                    judge();
                    for (then, second_stop) in stops.iter().enumerate() {
                        let met = around(defers, || step::run(&[(*stop, first), (*second_stop, second.number())], operation));
                        let wrong = judge();
                        let failed = !met || !wrong.is_empty();
                        tally.add(failed, || {
                            format!("{name}, {defers}, {first:#x} at {at}, {second} {then} later of {}: {met}, {wrong:?}", stops.len())
                        });
                    }
                }
            }
        }
        tally.conclude();
    });
}

/// Of two that an exit lets in the kernel begins both, and runs the last one first: it lies on the other, whose signal is blocked.
#[test]
fn a_handler_that_is_let_in_over_another_sees_that_one_s_signal_blocked() {
    static UPPER: AtomicU64 = AtomicU64::new(0);
    isolated("a_handler_that_is_let_in_over_another_sees_that_one_s_signal_blocked", || {
        // SAFETY: the handlers touch an atomic.
        unsafe {
            Handler::new(|_| _ = UPPER.fetch_or(mask::current().bits(), SeqCst)).install(Signal::USR1).unwrap();
            Handler::new(|_| ()).install(Signal::HUP).unwrap();
        }
        critical(|_| [libc::SIGHUP, libc::SIGUSR1].map(step::send));
        assert_eq!(SigSet::from_bits(UPPER.load(SeqCst)), SigSet::EMPTY.with(Signal::HUP).with(Signal::USR1));
    });
}
