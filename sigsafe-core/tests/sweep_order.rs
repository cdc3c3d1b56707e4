//! Real-time signals at every instruction of the ways in which a captured one is let in or taken: each is handled or taken before those
//! that were sent after it.
//!
//! Every boundary is stepped through, each with one signal and with two in a row.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigInfo, SigSet, Signal, critical, mask};
use sigsafe_test_harness::isolate::isolated_within;
use step::watch::{Tally, kernel_mask};
use step::{OVERLAPPED, SENT, STUCK, Stop};

const LIMIT: Duration = Duration::from_secs(600);

const RT: Signal = match Signal::real_time(3) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+3 exists"),
};

/// How many have come: the value that is next.
static COME: AtomicU32 = AtomicU32::new(0);
static OUT_OF_ORDER: AtomicU32 = AtomicU32::new(0);

fn come(info: &SigInfo) {
    // SAFETY: a siginfo has 128 initialised bytes; the value lies in the fourth word.
    let value = unsafe { std::ptr::from_ref(info.as_raw()).cast::<u64>().add(3).read() } as u32;
    if COME.fetch_add(1, SeqCst) != value {
        OUT_OF_ORDER.fetch_add(1, SeqCst);
    }
}

fn handle(delivery: &Delivery<'_>) {
    come(&delivery.info());
}

fn set() -> SigSet {
    RT.into()
}

fn send() {
    step::send(RT.number());
}

/// Takes all that waits.
fn take() {
    while mask::pending().contains(RT) {
        come(&mask::wait(set()));
    }
}

type Way = (&'static str, fn());

const WAYS: &[Way] = &[
    ("the end of a region", || critical(|_| send())),
    ("the end of a region that has blocked it", || {
        critical(|_| {
            send();
            mask::block(set());
        });
        mask::unblock(set());
    }),
    ("taken behind a region that has blocked it", || {
        critical(|_| {
            send();
            mask::block(set());
        });
        take();
        mask::unblock(set());
    }),
    ("taken in a region", || {
        critical(|_| {
            send();
            take();
        });
    }),
    ("let in for a moment in a region", || {
        critical(|_| {
            send();
            mask::suspend(SigSet::EMPTY);
        });
    }),
    ("unblocked in a region", || {
        mask::block(set());
        send();
        critical(|_| _ = mask::unblock(set()));
    }),
    ("a region that ends over another's token", || {
        critical(|_| {
            send();
            mask::block(set());
        });
        critical(|_| _ = mask::unblock(set()));
    }),
];

/// What is wrong after a run.
fn judge(before: u64) -> Vec<&'static str> {
    let checks = [
        (OUT_OF_ORDER.swap(0, SeqCst) != 0 && !OVERLAPPED.load(SeqCst), "out of order"),
        (COME.swap(0, SeqCst) != SENT[RT.number() as usize].load(SeqCst), "not complete"),
        (kernel_mask() != before, "mask"),
        (STUCK.load(SeqCst), "stuck"),
    ];
    checks.into_iter().filter_map(|(wrong, what)| wrong.then_some(what)).collect()
}

#[test]
fn real_time_signals_at_every_instruction_keep_their_order() {
    isolated_within("real_time_signals_at_every_instruction_keep_their_order", LIMIT, || {
        step::prepare();
        // The steps find the trampoline where SIGUSR1's handler is.
        for signal in [RT, Signal::USR1] {
            // SAFETY: the handler touches atomics.
            unsafe { Handler::new(handle).install(signal).unwrap() };
        }
        let before = kernel_mask();
        let mut tally = Tally::new();
        for &(name, mut way) in WAYS {
            let operation: &mut dyn FnMut() = &mut way;
            // The first run of a page of code may take a different path than all others.
            step::learn(None, operation);
            judge(before);
            let path = step::learn(None, operation);
            let stops = path.stops();
            println!("{name}: {} boundaries", stops.len());
            assert!(stops.len() > 10 && judge(before).is_empty());
            for (at, stop) in stops.iter().enumerate() {
                for sends in [&[(*stop, RT.number())][..], &[(*stop, RT.number()), (Stop::default(), RT.number())]] {
                    let met = step::run(sends, operation);
                    let mut wrong = judge(before);
                    if !met {
                        wrong.push("not met");
                    }
                    tally.add(!wrong.is_empty(), || format!("{wrong:?}: {name}, {} at {at} of {}", sends.len(), stops.len()));
                }
            }
        }
        tally.conclude();
    });
}
