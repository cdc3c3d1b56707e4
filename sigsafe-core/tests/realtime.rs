//! Streams of real-time signals from a thread that keeps sending while the receiver enters and leaves regions: complete, in order, and
//! each with a frame of the kernel's.
//!
//! A region of the deferring backend captures the first signal that comes; those behind it wait in the kernel, and more arrive at every
//! point of the exit that lets them in. The sender runs ahead by a random number of signals, so that there are thousands of such regions.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, deferrals, in_region, mask, overflows};
use support::send::{self, try_sigqueue, try_sigqueue_to};
use support::{Form, alone_within, kernel_mask, libc_set, log, log_runs, manage};

/// Of a machine that has other things to do: the two threads wait for each other a few thousand times.
const LIMIT: Duration = Duration::from_secs(240);

/// Each stream's signal; its values are numbered from zero.
const SIGNALS: [Signal; 2] = [
    support::RT,
    match Signal::real_time(5) {
        Ok(signal) => signal,
        Err(_) => panic!("SIGRTMIN+5 exists"),
    },
];

/// Per stream how many have been handled: the next value.
static HANDLED: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static OUT_OF_ORDER: AtomicUsize = AtomicUsize::new(0);
static WITHOUT_CONTEXT: AtomicUsize = AtomicUsize::new(0);
/// Nothing more will come.
static SENT: AtomicBool = AtomicBool::new(false);
/// How often the sender has looked in vain for room: in the kernel's queue, or in its lead.
static HELD_UP: AtomicUsize = AtomicUsize::new(0);
static IN_A_REGION: AtomicBool = AtomicBool::new(false);

fn value_in(info: &libc::siginfo_t) -> u32 {
    // SAFETY: a siginfo has 128 initialised bytes; the value lies in the fourth word.
    unsafe { std::ptr::from_ref(info).cast::<u64>().add(3).read() as u32 }
}

/// The next value of a stream.
fn expect(stream: usize, value: u32) {
    if HANDLED[stream].fetch_add(1, Ordering::Relaxed) != value {
        OUT_OF_ORDER.fetch_add(1, Ordering::Relaxed);
    }
}

/// Expects the next value. Its own region must not end the one below, nor let in what that holds back.
fn expect_next(delivery: &Delivery<'_>) {
    let stream = usize::from(delivery.signal() == SIGNALS[1]);
    if in_region() {
        IN_A_REGION.store(true, Ordering::Relaxed);
    }
    critical(|_| expect(stream, value_in(delivery.info().as_raw())));
    if delivery.ucontext().is_none() {
        WITHOUT_CONTEXT.fetch_add(1, Ordering::Relaxed);
    }
}

fn handled(stream: usize) -> u32 {
    HANDLED[stream].load(Ordering::Relaxed)
}

/// A small generator (xorshift), seeded alike in every run: what varies is the machine's timing.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn spin_until_room(mut room: impl FnMut() -> bool) {
    support::spin_until(|| {
        let room = room();
        if !room {
            HELD_UP.fetch_add(1, Ordering::Relaxed);
        }
        room
    });
}

/// Sends `count` values on each of the streams, never more than a random number below `ahead` before the receiver.
fn send_all(streams: usize, count: u32, ahead: u64, queue: &(impl Fn(Signal, i32) -> bool + Sync)) {
    mask::block(SigSet::FULL);
    let mut random = Random(0x5eed);
    for value in 0..count {
        for (stream, signal) in SIGNALS.into_iter().enumerate().take(streams) {
            // Small ones more often than large ones: the fewer signals a region holds back, the more regions there are.
            let lead = 1 + (random.below(ahead) * random.below(ahead) / ahead) as u32;
            spin_until_room(|| value < handled(stream) + lead);
            // Refused while the kernel's queue is full.
            spin_until_room(|| queue(signal, value as i32));
        }
    }
    SENT.store(true, Ordering::Relaxed);
}

/// When the receiver leaves a region in which it has captured a signal.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Leave {
    /// At any time: others are on their way.
    AtAnyTime,
    /// Every other time when the sender has found no room.
    OftenWhenFull,
}

/// Receives the streams in regions. Returns how many regions captured a signal.
fn receive(streams: usize, count: u32, ahead: u64, leave: Leave, queue: impl Fn(Signal, i32) -> bool + Sync) -> u32 {
    SIGNALS.into_iter().for_each(|signal| _ = manage(Handler::new(expect_next), signal));
    let before = kernel_mask();
    let mut random = Random(0x5ee5);
    let mut capturing_regions = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(streams, count, ahead, &queue));
        let mut form = Form::CAPTURING.iter().cycle();
        while (0..streams).any(|stream| handled(stream) < count) {
            let deferred = deferrals();
            form.next().unwrap().run(|| {
                let handled_before = [handled(0), handled(1)];
                // Until one has been captured; then a while longer, so that the exit comes while others are on their way.
                support::spin_until(|| !mask::pending().is_empty() || SENT.load(Ordering::Relaxed));
                if leave == Leave::OftenWhenFull && random.below(2) == 0 {
                    let before = HELD_UP.load(Ordering::Relaxed);
                    support::spin_until(|| HELD_UP.load(Ordering::Relaxed) != before || SENT.load(Ordering::Relaxed));
                }
                for _ in 0..random.below(3000) {
                    std::hint::spin_loop();
                }
                assert_eq!([handled(0), handled(1)], handled_before, "a handler ran in a region");
            });
            // The first of what such a region holds back was captured.
            capturing_regions += u32::from(deferrals() > deferred);
        }
    });
    assert_eq!(OUT_OF_ORDER.load(Ordering::Relaxed), 0, "out of order");
    for stream in 0..streams {
        assert_eq!(handled(stream), count, "complete");
    }
    assert!(!IN_A_REGION.load(Ordering::Relaxed));
    assert_eq!(kernel_mask(), before);
    assert_eq!(overflows(), 0);
    assert_eq!(mask::pending(), SigSet::EMPTY);
    println!("{capturing_regions} regions captured a signal, {} deliveries were deferred", deferrals());
    capturing_regions
}

fn assert_every_frame_is_the_kernel_s() {
    assert_eq!(WITHOUT_CONTEXT.load(Ordering::Relaxed), 0, "deliveries without a context");
}

#[test]
fn a_stream_to_the_thread_is_complete_and_in_order() {
    alone_within("a_stream_to_the_thread_is_complete_and_in_order", LIMIT, || {
        let target = send::thread();
        let captures = receive(1, 100_000, 64, Leave::AtAnyTime, |signal, value| try_sigqueue_to(target, signal, value));
        assert!(captures > 2000, "only {captures}");
        assert_every_frame_is_the_kernel_s();
    });
}

#[test]
fn a_stream_to_the_process_is_complete_and_in_order() {
    alone_within("a_stream_to_the_process_is_complete_and_in_order", LIMIT, || {
        let captures = receive(1, 100_000, 64, Leave::AtAnyTime, try_sigqueue);
        assert!(captures > 2000, "only {captures}");
        assert_every_frame_is_the_kernel_s();
    });
}

#[test]
fn two_streams_are_each_complete_and_in_order() {
    alone_within("two_streams_are_each_complete_and_in_order", LIMIT, || {
        let target = send::thread();
        let captures = receive(2, 20_000, 32, Leave::AtAnyTime, |signal, value| {
            if signal == SIGNALS[0] { try_sigqueue_to(target, signal, value) } else { try_sigqueue(signal, value) }
        });
        assert!(captures > 500, "only {captures}");
        assert_every_frame_is_the_kernel_s();
    });
}

/// The kernel refuses tokens then: what is kept is dispatched by the exit, still before what was sent after it.
#[test]
fn a_stream_that_fills_the_kernel_s_queue_is_complete_and_in_order() {
    alone_within("a_stream_that_fills_the_kernel_s_queue_is_complete_and_in_order", LIMIT, || {
        // SAFETY: zero is a value of every field.
        let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut limit) }, 0);
        limit.rlim_cur = 12;
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const limit) }, 0);
        let target = send::thread();
        let captures = receive(1, 20_000, 100, Leave::OftenWhenFull, |signal, value| try_sigqueue_to(target, signal, value));
        assert!(captures > 200, "only {captures}");
        assert!(WITHOUT_CONTEXT.load(Ordering::Relaxed) > 0, "no token was refused");
    });
}

/// Takes a few of the first stream by waiting, which must be blocked or held back.
fn take_some(random: &mut Random) {
    for _ in 0..random.below(8) {
        let Some(info) = mask::wait_timeout(SIGNALS[0].into(), Duration::ZERO) else { return };
        expect(0, value_in(info.as_raw()));
    }
}

/// One of the ways in which a thread lets signals in, or takes them, with regions around them.
fn let_in(random: &mut Random, form: Form) {
    let set = SigSet::from(SIGNALS[0]);
    let arrived = || support::spin_until(|| !mask::pending().is_empty() || SENT.load(Ordering::Relaxed));
    match random.below(6) {
        0 => form.run(arrived),
        1 => form.run(|| {
            arrived();
            take_some(random);
        }),
        2 => {
            // Blocked in the region, after it has captured some.
            form.run(|| {
                arrived();
                mask::block(set);
            });
            take_some(random);
            mask::unblock(set);
        }
        3 => {
            mask::block(set);
            arrived();
            form.run(|| take_some(random));
            form.run(|| _ = mask::unblock(set));
        }
        way => {
            mask::block(set);
            arrived();
            let suspend = || {
                if mask::pending().contains(SIGNALS[0]) {
                    mask::suspend(SigSet::EMPTY);
                }
            };
            if way == 4 {
                form.run(suspend);
            } else {
                suspend();
            }
            mask::set(SigSet::EMPTY);
        }
    }
}

#[test]
fn a_stream_that_is_handled_and_waited_for_is_complete_and_in_order() {
    alone_within("a_stream_that_is_handled_and_waited_for_is_complete_and_in_order", LIMIT, || {
        const COUNT: u32 = 50_000;
        manage(Handler::new(expect_next), SIGNALS[0]);
        let target = send::thread();
        let mut random = Random(0x5eed5);
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(1, COUNT, 64, &|signal, value| try_sigqueue_to(target, signal, value)));
            let mut form = Form::ALL.iter().cycle();
            while handled(0) < COUNT {
                let_in(&mut random, *form.next().unwrap());
                assert_eq!(kernel_mask(), SigSet::EMPTY);
            }
        });
        assert_eq!((OUT_OF_ORDER.load(Ordering::Relaxed), handled(0), overflows()), (0, COUNT, 0));
        assert!(deferrals() > 1000 && u64::from(COUNT) > deferrals() + 1000, "{} were deferred", deferrals());
    });
}

fn taken_by_libc(set: SigSet) -> i32 {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointers are to live values and null.
    unsafe { libc::sigtimedwait(&libc_set(set), std::ptr::null_mut(), &raw const now) }
}

/// The thread has blocked the signal in the region, so that a token waits for it, which somebody else takes out of the kernel.
#[test]
fn a_token_that_libc_takes_leaves_its_signal() {
    alone_within("a_token_that_libc_takes_leaves_its_signal", LIMIT, || {
        log_runs(support::RT);
        let set = SigSet::from(support::RT);
        let values = || log::take().iter().map(log::Row::value).collect::<Vec<_>>();
        for form in Form::CAPTURING {
            let capture = || {
                form.run(|| {
                    send::sigqueue(support::RT, 1);
                    mask::block(set);
                });
                assert_eq!(taken_by_libc(set), support::RT.number(), "{form:?}");
            };
            capture();
            assert_eq!(mask::pending(), set, "{form:?}");
            mask::unblock(set);
            assert_eq!(values(), [1], "{form:?}, seen and unblocked");
            capture();
            mask::unblock(set);
            assert_eq!(values(), [1], "{form:?}, unblocked");
            capture();
            mask::set(SigSet::EMPTY);
            assert_eq!(values(), [1], "{form:?}, by a new mask");
            capture();
            mask::suspend(SigSet::EMPTY);
            assert_eq!(values(), [1], "{form:?}, let in for a moment");
            mask::unblock(set);
            capture();
            form.run(|| _ = mask::unblock(set));
            assert_eq!(values(), [1], "{form:?}, let in by a region");
            capture();
            assert_eq!(value_in(mask::wait(set).as_raw()), 1, "{form:?}, waited for");
            mask::unblock(set);
            assert!(values().is_empty(), "{form:?}, taken");
            assert_eq!((kernel_mask(), mask::pending()), (SigSet::EMPTY, SigSet::EMPTY), "{form:?}");
        }
    });
}

/// A handler of a higher number begins on the first instruction of a lower one's, whose token has left the kernel and is not lost.
#[test]
fn a_token_whose_handler_is_about_to_begin_is_not_sent_again() {
    alone_within("a_token_whose_handler_is_about_to_begin_is_not_sent_again", LIMIT, || {
        static NOTHING: AtomicUsize = AtomicUsize::new(0);
        static RUNS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        fn take_the_rest(delivery: &Delivery<'_>) {
            RUNS[0].fetch_add(1, Ordering::Relaxed);
            let number = SigSet::from(delivery.signal());
            if mask::pending().contains(delivery.signal()) && mask::wait_timeout(number, Duration::ZERO).is_none() {
                NOTHING.fetch_add(1, Ordering::Relaxed);
            }
        }
        fn use_a_region(_: &Delivery<'_>) {
            RUNS[1].fetch_add(1, Ordering::Relaxed);
            critical(|_| send::kill(Signal::HUP));
            mask::unblock(Signal::HUP.into());
        }
        let [lower, higher] = [support::RT, SIGNALS[1]];
        manage(Handler::new(take_the_rest), lower);
        manage(Handler::new(use_a_region), higher);
        log_runs(Signal::HUP);
        for form in Form::CAPTURING {
            form.run(|| {
                (1..=2).for_each(|value| send::sigqueue_to(send::thread(), higher, value));
                mask::block(higher.into());
            });
            form.run(|| {
                send::sigqueue_to(send::thread(), lower, 1);
                mask::unblock(higher.into());
            });
            let runs = [0, 1].map(|handler| RUNS[handler].swap(0, Ordering::Relaxed));
            assert_eq!((runs, NOTHING.load(Ordering::Relaxed)), ([1, 2], 0), "{form:?}");
            assert_eq!((log::take().len(), mask::pending()), (2, SigSet::EMPTY), "{form:?}");
        }
    });
}

/// What a region has captured waits for a handler that comes later, or for who waits, in its order.
#[test]
fn signals_whose_handler_is_removed_while_they_are_blocked_keep_their_order() {
    alone_within("signals_whose_handler_is_removed_while_they_are_blocked_keep_their_order", LIMIT, || {
        let set = SigSet::from(support::RT);
        for form in Form::CAPTURING {
            let capture = || {
                let registration = log_runs(support::RT);
                form.run(|| {
                    // To the thread, as what is given back is: that comes before what is sent to the process.
                    (1..=2).for_each(|value| assert!(try_sigqueue_to(send::thread(), support::RT, value)));
                    mask::block(set);
                    registration.remove().unwrap();
                });
            };
            capture();
            assert_eq!([(); 2].map(|()| value_in(mask::wait(set).as_raw())), [1, 2], "{form:?}");
            capture();
            let registration = log_runs(support::RT);
            mask::unblock(set);
            assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [1, 2], "{form:?}");
            registration.remove().unwrap();
        }
    });
}

/// The exit queues a token behind a signal that waits already, and somebody else takes both out of the kernel.
#[test]
fn a_token_that_somebody_takes_costs_no_later_signal() {
    alone_within("a_token_that_somebody_takes_costs_no_later_signal", LIMIT, || {
        log_runs(support::RT);
        let set = SigSet::from(support::RT);
        for form in Form::CAPTURING {
            form.run(|| {
                (1..=2).for_each(|value| send::sigqueue(support::RT, value));
                mask::block(set);
            });
            for _ in 0..2 {
                assert_eq!(taken_by_libc(set), support::RT.number(), "{form:?}");
            }
            send::sigqueue(support::RT, 3);
            mask::unblock(set);
            assert_eq!(log::take().iter().map(log::Row::value).collect::<Vec<_>>(), [1, 3], "{form:?}");
            assert_eq!((kernel_mask(), mask::pending()), (SigSet::EMPTY, SigSet::EMPTY), "{form:?}");
        }
    });
}
