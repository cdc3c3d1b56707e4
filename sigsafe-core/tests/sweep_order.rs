//! Real-time signals at every instruction of the ways in which a captured one is let in or taken: each is handled or taken before those
//! that were sent after it.
//!
//! Every boundary is stepped through, those in handlers too: each with one signal, and those of the operation itself also with two in a
//! row, of one number and of two.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler, Registration};
use sigsafe_core::{FullSyscall, MaskGuard, SigInfo, SigSet, Signal, critical, critical_with, mask, overflows};
use sigsafe_test_harness::isolate::isolated_within;
use step::watch::{Tally, kernel_mask, set_kernel_mask};
use step::{OVERLAPPED, SENT, STUCK, Stop};

const LIMIT: Duration = Duration::from_secs(600);

const RT: Signal = real_time(3);
const OTHER: Signal = real_time(4);
const BOTH: SigSet = SigSet::EMPTY.with(RT).with(OTHER);

const fn real_time(index: u32) -> Signal {
    match Signal::real_time(index) {
        Ok(signal) => signal,
        Err(_) => panic!("SIGRTMIN+4 exists"),
    }
}

/// Of each number how many have come: the value that is next.
static COME: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
static OUT_OF_ORDER: AtomicU32 = AtomicU32::new(0);

fn value_in(info: &SigInfo) -> u32 {
    // SAFETY: a siginfo has 128 initialised bytes; the value lies in the fourth word.
    unsafe { std::ptr::from_ref(info.as_raw()).cast::<u64>().add(3).read() as u32 }
}

fn come(info: &SigInfo) {
    let value = value_in(info);
    if COME[info.signal().number() as usize].fetch_add(1, SeqCst) != value {
        OUT_OF_ORDER.fetch_add(1, SeqCst);
    }
}

fn handle(delivery: &Delivery<'_>) {
    come(&delivery.info());
}

thread_local! {
    // The handlers that take it are run by this thread's own sends, never at an arbitrary instruction.
    static REST: Cell<Option<fn()>> = const { Cell::new(None) };
}

fn perform(_: &Delivery<'_>) {
    if let Some(rest) = REST.take() {
        rest();
    }
}

/// Performs `rest` in an immediate handler.
fn over(rest: fn()) {
    REST.set(Some(rest));
    step::send(Signal::VTALRM.number());
}

/// Performs `rest` in a deferrable handler, as soon as one may run.
fn in_handler(rest: fn()) {
    REST.set(Some(rest));
    step::send(Signal::USR1.number());
}

fn set() -> SigSet {
    RT.into()
}

fn send() {
    step::send(RT.number());
}

fn send_other() {
    step::send(OTHER.number());
}

/// In a region, which then blocks it.
fn capture() {
    critical(|_| {
        send();
        mask::block(set());
    });
}

/// The second one waits in the kernel.
fn capture_first_of_two() {
    critical(|_| {
        send();
        send();
        mask::block(set());
    });
}

/// Takes all that waits. It is blocked.
fn take() {
    while mask::pending().contains(RT) {
        come(&mask::wait(set()));
    }
}

fn suspend() {
    mask::suspend(SigSet::EMPTY);
}

/// Another handler of the same number.
fn install(immediate: bool) -> Registration {
    // SAFETY: the handler touches atomics.
    unsafe { Handler::new(handle).immediate(immediate).install(RT).unwrap() }
}

type Way = (&'static str, fn());

const WAYS: &[Way] = &[
    ("the end of a region", || critical(|_| send())),
    ("the end of a region that has blocked it", || {
        capture();
        mask::unblock(set());
    }),
    ("taken behind a region that has blocked it", || {
        capture();
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
            suspend();
        });
    }),
    ("unblocked in a region", || {
        mask::block(set());
        send();
        critical(|_| _ = mask::unblock(set()));
    }),
    ("a region that ends over another's token", || {
        capture();
        critical(|_| _ = mask::unblock(set()));
    }),
    ("blocked and taken in two regions", || {
        capture();
        send();
        critical(|_| {
            send();
            take();
            send();
        });
        critical(|_| {
            send_other();
            mask::unblock(set());
            mask::block(set());
        });
        mask::set(SigSet::EMPTY);
    }),
    ("let in for a moment behind a region that has blocked it", || {
        critical(|_| {
            send();
            mask::block(BOTH);
        });
        send();
        suspend();
        suspend();
        mask::unblock(BOTH);
    }),
    ("let in twice in a region", || {
        critical(|_| {
            send();
            send();
            send_other();
            suspend();
            send();
            suspend();
        });
    }),
    ("one number let in and the other not", || {
        critical(|_| {
            send();
            send_other();
            mask::suspend(RT.into());
            send();
            mask::suspend(OTHER.into());
        });
    }),
    ("taken in nested regions", || {
        critical(|_| {
            send();
            critical(|_| {
                take();
                send();
                send_other();
                let guard: MaskGuard = MaskGuard::new();
                take();
                send();
                drop(guard);
            });
            take();
            send();
        });
    }),
    ("guards of both kinds that end out of order", || {
        let first: MaskGuard = MaskGuard::new();
        send();
        let second = MaskGuard::<FullSyscall>::new();
        drop(first);
        send();
        mask::block(set());
        drop(second);
        critical(|_| {
            mask::unblock(set());
            send_other();
        });
    }),
    ("a full-mask region in one that has captured it", || {
        critical(|_| {
            send();
            critical_with::<FullSyscall, _>(|_| {
                send();
                mask::set(SigSet::EMPTY);
            });
            send_other();
        });
    }),
    ("let in for a moment in a full-mask region", || {
        critical_with::<FullSyscall, _>(|_| {
            send();
            suspend();
            send();
            send_other();
            mask::suspend(OTHER.into());
        });
    }),
    ("a handler that is let in captures it", || {
        critical(|_| {
            in_handler(|| {
                critical(|_| send());
                send_other();
                send();
            });
            suspend();
            send();
            mask::block(set());
        });
        mask::unblock(set());
    }),
    ("a handler captures, blocks and takes it", || {
        in_handler(|| {
            capture();
            send();
            take();
            send();
        });
    }),
    ("an immediate handler edits the mask over a region", || {
        critical(|_| {
            send();
            over(|| {
                mask::block(set());
                critical(|_| {
                    send();
                    mask::unblock(set());
                });
                mask::unblock(set());
                send();
            });
        });
    }),
    ("an immediate handler captures it over a region", || {
        critical(|_| {
            over(|| {
                critical(|_| {
                    send();
                    mask::block(set());
                    send_other();
                });
                mask::unblock(set());
            });
            send();
        });
    }),
    ("an immediate handler takes it over a region", || {
        critical(|_| {
            send();
            over(|| {
                take();
                send();
            });
        });
    }),
    ("an immediate handler lets it in over a region", || {
        critical(|_| {
            send();
            over(|| {
                critical(|_| {
                    send();
                    suspend();
                });
            });
        });
    }),
    ("foreign code opens a region that holds tokens", || {
        capture_first_of_two();
        critical(|_| {
            set_kernel_mask(0);
            send();
            set_kernel_mask(0);
        });
    }),
    ("its handler is replaced and put back in a region", || {
        critical(|_| {
            send();
            let another = install(false);
            send();
            another.remove().unwrap();
        });
    }),
    ("its handler becomes immediate in a region", || {
        let mut immediate = None;
        critical(|_| {
            send();
            immediate = Some(install(true));
            send();
        });
        critical(|_| send());
        immediate.unwrap().remove().unwrap();
    }),
    ("its handler is immediate no more", || {
        let immediate = install(true);
        critical(|_| {
            send();
            immediate.remove().unwrap();
            send();
            mask::block(set());
        });
        mask::unblock(set());
    }),
];

/// Also forgets what has come.
fn incomplete(signal: Signal) -> bool {
    let number = signal.number() as usize;
    COME[number].swap(0, SeqCst) != SENT[number].load(SeqCst)
}

/// What is wrong after a run.
fn judge(before: u64) -> Vec<&'static str> {
    let checks = [
        (OUT_OF_ORDER.swap(0, SeqCst) != 0 && !OVERLAPPED.load(SeqCst), "out of order"),
        (BOTH.iter().filter(|signal| incomplete(*signal)).count() != 0, "not complete"),
        (kernel_mask() != before, "mask"),
        (overflows() != 0, "no slot left"),
        (STUCK.load(SeqCst), "stuck"),
    ];
    checks.into_iter().filter_map(|(wrong, what)| wrong.then_some(what)).collect()
}

#[test]
fn real_time_signals_at_every_instruction_keep_their_order() {
    isolated_within("real_time_signals_at_every_instruction_keep_their_order", LIMIT, || {
        step::prepare();
        // The steps find the trampoline where SIGUSR1's handler is.
        let performing = Handler::new(perform);
        let handlers = [(RT, Handler::new(handle)), (OTHER, Handler::new(handle)), (Signal::USR1, performing)];
        for (signal, handler) in handlers.into_iter().chain([(Signal::VTALRM, performing.immediate(true))]) {
            // SAFETY: the handlers touch atomics, regions and masks; the performing ones run where this thread sends their signals.
            unsafe { handler.install(signal).unwrap() };
        }
        let before = kernel_mask();
        let mut tally = Tally::new();
        for &(name, mut way) in WAYS {
            let operation: &mut dyn FnMut() = &mut way;
            // The first run of a page of code may take a different path than all others.
            step::learn(None, operation);
            judge(before);
            let path = step::learn(None, operation);
            let (stops, in_handlers) = (path.stops(), path.stops_in_handlers());
            println!("{name}: {} boundaries, {} in handlers", stops.len(), in_handlers.len());
            assert!(stops.len() > 10 && judge(before).is_empty());
            let mut attempt = |sends: &[(Stop, i32)], at: usize| {
                let met = step::run(sends, operation);
                let mut wrong = judge(before);
                if !met {
                    wrong.push("not met");
                }
                tally.add(!wrong.is_empty(), || format!("{wrong:?}: {name}, {} at {at}", sends.len()));
            };
            for (at, stop) in stops.iter().enumerate() {
                attempt(&[(*stop, RT.number())], at);
                for first in [RT, OTHER] {
                    attempt(&[(*stop, first.number()), (Stop::default(), RT.number())], at);
                }
            }
            for (at, stop) in in_handlers.iter().enumerate() {
                attempt(&[(*stop, RT.number())], stops.len() + at);
            }
        }
        tally.conclude();
    });
}

/// One that was taken: its value, and when the taking began and ended.
type Taken = [AtomicU32; 3];
static TAKEN: [Taken; 16] = [const { [const { AtomicU32::new(0) }; 3] }; 16];
static TAKES: AtomicUsize = AtomicUsize::new(0);
static CLOCK: AtomicU32 = AtomicU32::new(0);

/// Takes what waits, one by one, wherever it interrupts another that does.
fn take_each() {
    loop {
        let began = CLOCK.fetch_add(1, SeqCst);
        let Some(info) = mask::wait_timeout(set(), Duration::ZERO) else { return };
        let times = [value_in(&info), began, CLOCK.fetch_add(1, SeqCst)];
        let place = TAKES.fetch_add(1, SeqCst);
        TAKEN[place].iter().zip(times).for_each(|(word, value)| word.store(value, SeqCst));
    }
}

/// Which values came; `None` when one was taken before the taking of one that was sent earlier had begun.
fn taken() -> Option<Vec<u32>> {
    let rows: Vec<[u32; 3]> = TAKEN[..TAKES.swap(0, SeqCst)].iter().map(|row| std::array::from_fn(|word| row[word].load(SeqCst))).collect();
    let overtakes = |[late, _, ended]: &[u32; 3]| rows.iter().any(|[early, began, _]| early < late && ended < began);
    let in_order = !rows.iter().any(overtakes);
    let mut values: Vec<u32> = rows.iter().map(|[value, ..]| *value).collect();
    values.sort_unstable();
    in_order.then_some(values)
}

const TAKING: &[Way] = &[
    ("behind a region", || {
        capture();
        take_each();
        mask::unblock(set());
    }),
    ("behind a region, among others", || {
        capture_first_of_two();
        send();
        take_each();
        mask::unblock(set());
    }),
    ("in a region behind a region", || {
        capture_first_of_two();
        send();
        critical(|_| take_each());
        take_each();
        mask::unblock(set());
    }),
];

/// What a handler takes in the middle of the thread's own taking is not overtaken by what was sent later.
#[test]
fn a_handler_at_every_instruction_of_taking_takes_in_order() {
    isolated_within("a_handler_at_every_instruction_of_taking_takes_in_order", LIMIT, || {
        step::prepare();
        let taking = Handler::new(|_: &Delivery<'_>| take_each());
        for (signal, handler) in [(RT, Handler::new(handle)), (Signal::USR1, taking), (Signal::VTALRM, taking.immediate(true))] {
            // SAFETY: the handlers touch atomics and masks.
            unsafe { handler.install(signal).unwrap() };
        }
        let before = kernel_mask();
        let mut tally = Tally::new();
        for &(name, mut way) in TAKING {
            let operation: &mut dyn FnMut() = &mut way;
            step::learn(None, operation);
            taken();
            let stops = step::learn(None, operation).stops_in_files();
            let sent = SENT[RT.number() as usize].load(SeqCst);
            let all = |values: Option<Vec<u32>>, sent: u32| values.is_some_and(|values| values.into_iter().eq(0..sent));
            println!("{name}: {} boundaries", stops.len());
            assert!(stops.len() > 10 && all(taken(), sent));
            for (at, stop) in stops.iter().enumerate() {
                for handler in [Signal::USR1, Signal::VTALRM] {
                    COME[RT.number() as usize].store(0, SeqCst);
                    let met = step::run(&[(*stop, handler.number())], operation);
                    let handled = COME[RT.number() as usize].load(SeqCst);
                    let right = met && handled == 0 && all(taken(), sent) && kernel_mask() == before;
                    tally.add(!right, || format!("{name}, {handler} at {at}"));
                }
            }
        }
        tally.conclude();
    });
}
