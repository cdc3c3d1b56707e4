//! What a delivery costs through the trampoline and out of a region, beside a bare `sigaction` handler: one run, one verdict.
//!
//! Every number is of a signal that the thread sends to itself, from before the send until after the handler; for deliveries outside a
//! region the send alone is measured too and subtracted, which makes the ratio larger. Rounds are short and interleaved, and the order of the contestants rotates; each round is compared with the others' of its turn, and the median of
//! those ratios counts, so that what else the machine does falls on both sides. The clock is the thread's CPU time. The exit
//! status is 1 when a ratio is above its limit, so that a script can hold the code to it. Arguments `NAME=LIMIT` replace limits:
//!
//! ```sh
//! cargo bench -p sigsafe-benches --bench delivery -- deferred=3.0
//! ```

use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use sigsafe_core::handler::{Delivery, Handler, Registration};
use sigsafe_core::{DeferredCounter, Signal, critical_with};

/// Odd, so that the median is a round that happened.
const ROUNDS: usize = 301;
/// Turns of a round: some tenths of a millisecond, well under a time slice.
const TURNS: u32 = 200;

/// Different signals of no special kind: the most that one region holds here.
const SIGNALS: [i32; 9] =
    [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGTERM, libc::SIGALRM, libc::SIGVTALRM, libc::SIGURG, libc::SIGWINCH, libc::SIGIO];

/// Runs of either handler.
static RUNS: AtomicU32 = AtomicU32::new(0);

extern "C" fn bare(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    RUNS.fetch_add(1, Ordering::Relaxed);
}

fn managed(_: &Delivery<'_>) {
    RUNS.fetch_add(1, Ordering::Relaxed);
}

/// The same disposition twice, with nothing blocked but the signal itself: the kernel builds the same frame for both.
fn install_bare(signal: i32) -> libc::sigaction {
    // SAFETY: zero is a value of every field.
    let [mut action, mut before]: [libc::sigaction; 2] = unsafe { mem::zeroed() };
    action.sa_sigaction = bare as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler touches one atomic; both pointers are to live values.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, &raw mut before) }, 0);
    before
}

fn install_managed(signal: i32) -> Registration {
    // SAFETY: the handler touches one atomic.
    unsafe { Handler::new(managed).install(Signal::new(signal).unwrap()) }.unwrap()
}

/// The calling thread, as the kernel knows it.
#[derive(Copy, Clone)]
struct Target {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Target {
    fn current() -> Target {
        // SAFETY: neither call takes a pointer.
        unsafe { Target { process: libc::getpid(), thread: libc::gettid() } }
    }

    /// One system call: what it costs is part of every number here.
    #[inline(always)]
    fn send(self, signal: i32) {
        // SAFETY: the call takes no pointer, and the signal has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal) };
    }
}

/// What the calling thread has spent on a processor so far, in nanoseconds: unlike the wall clock it stands still while another
/// process runs.
fn thread_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Times `TURNS` of `turn`, which runs `runs` handlers, in nanoseconds per turn.
fn time(runs: u32, mut turn: impl FnMut()) -> f64 {
    for _ in 0..TURNS / 10 {
        turn();
    }
    RUNS.store(0, Ordering::Relaxed);
    let start = thread_time_ns();
    for _ in 0..TURNS {
        turn();
    }
    let ns = thread_time_ns() - start;
    assert_eq!(RUNS.load(Ordering::Relaxed), TURNS * runs, "every signal has its handler run");
    ns as f64 / f64::from(TURNS)
}

fn with_bare(signals: &[i32], round: impl FnOnce() -> f64) -> f64 {
    let before: Vec<_> = signals.iter().map(|signal| install_bare(*signal)).collect();
    let ns = round();
    for (signal, before) in signals.iter().zip(before) {
        // SAFETY: what was there before, by whoever vouched for it.
        assert_eq!(unsafe { libc::sigaction(*signal, &raw const before, ptr::null_mut()) }, 0);
    }
    ns
}

fn with_managed(signals: &[i32], round: impl FnOnce() -> f64) -> f64 {
    let registrations: Vec<_> = signals.iter().map(|signal| install_managed(*signal)).collect();
    let ns = round();
    for registration in registrations {
        registration.remove().unwrap();
    }
    ns
}

/// One signal after the other, outside any region.
fn one_by_one(target: Target, signals: &[i32]) -> f64 {
    time(signals.len() as u32, || signals.iter().for_each(|signal| target.send(*signal)))
}

/// All of them in one region.
fn held(target: Target, signals: &[i32]) -> f64 {
    time(signals.len() as u32, || critical_with::<DeferredCounter, _>(|_| signals.iter().for_each(|signal| target.send(*signal))))
}

/// A kind of turn, and how to time a round of it.
struct Contestant {
    name: &'static str,
    round: fn(Target) -> f64,
    times_ns: Vec<f64>,
}

impl Contestant {
    fn new(name: &'static str, round: fn(Target) -> f64) -> Self {
        Self { name, round, times_ns: Vec::with_capacity(ROUNDS) }
    }
}

fn one() -> &'static [i32] {
    &SIGNALS[..1]
}

fn real_time() -> [i32; 1] {
    [libc::SIGRTMIN() + 1]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A limit: its name, the ratio that is promised, and how to compute it from one round's times.
struct Promise {
    name: &'static str,
    says: &'static str,
    limit: f64,
    ratio: fn(&[f64]) -> f64,
}

/// The indices are the contestants' in `main`.
const PROMISES: [Promise; 5] = [
    Promise { name: "outside", says: "outside a region, over a bare handler", limit: 1.05, ratio: |ns| (ns[1] - ns[8]) / (ns[0] - ns[8]) },
    Promise { name: "deferred", says: "held by a region, over a bare handler", limit: 2.5, ratio: |ns| ns[2] / ns[0] },
    Promise {
        name: "further",
        says: "each further one held by the region, over a bare handler",
        limit: 1.05,
        ratio: |ns| (ns[4] - ns[2]) / (ns[3] - ns[0]),
    },
    Promise { name: "outside-rt", says: "real-time: outside a region", limit: 1.05, ratio: |ns| (ns[6] - ns[8]) / (ns[5] - ns[8]) },
    Promise { name: "deferred-rt", says: "real-time: held by a region", limit: 2.5, ratio: |ns| ns[7] / ns[5] },
];

/// The limits, with those that the arguments name replaced.
fn limits() -> Result<Vec<f64>, String> {
    let mut limits: Vec<f64> = PROMISES.iter().map(|promise| promise.limit).collect();
    // Cargo adds `--bench` when it runs the target itself.
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        let place = |name: &str| PROMISES.iter().position(|promise| promise.name == name);
        let replaced = argument.split_once('=').and_then(|(name, limit)| Some((place(name)?, limit.parse().ok()?)));
        let Some((place, limit)) = replaced else {
            let names: Vec<_> = PROMISES.iter().map(|promise| promise.name).collect();
            return Err(format!("{argument}: not NAME=LIMIT with a name of {}", names.join(", ")));
        };
        limits[place] = limit;
    }
    Ok(limits)
}

fn main() -> ExitCode {
    let limits = match limits() {
        Ok(limits) => limits,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let target = Target::current();
    let mut contestants = [
        Contestant::new("bare handler", |target| with_bare(one(), || one_by_one(target, one()))),
        Contestant::new("managed, outside a region", |target| with_managed(one(), || one_by_one(target, one()))),
        Contestant::new("managed, held by a region", |target| with_managed(one(), || held(target, one()))),
        Contestant::new("9 bare, one by one", |target| with_bare(&SIGNALS, || one_by_one(target, &SIGNALS))),
        Contestant::new("9 managed, held by a region", |target| with_managed(&SIGNALS, || held(target, &SIGNALS))),
        Contestant::new("real-time, bare", |target| with_bare(&real_time(), || one_by_one(target, &real_time()))),
        Contestant::new("real-time, outside", |target| with_managed(&real_time(), || one_by_one(target, &real_time()))),
        Contestant::new("real-time, held", |target| with_managed(&real_time(), || held(target, &real_time()))),
        // Number 0 goes all the way to the target and stops there.
        Contestant::new("the send alone", |target| time(0, || target.send(0))),
    ];
    let count = contestants.len();
    for round in 0..ROUNDS {
        for turn in 0..count {
            let contestant = &mut contestants[(round + turn) % count];
            let ns = (contestant.round)(target);
            contestant.times_ns.push(ns);
        }
    }

    println!("medians of {ROUNDS} interleaved rounds, each turn with its sends");
    for contestant in &contestants {
        println!("{:<28} {:>9.0} ns", contestant.name, median(contestant.times_ns.iter().copied()));
    }
    let mut kept = true;
    for (promise, limit) in PROMISES.iter().zip(limits) {
        let of_round = |round| (promise.ratio)(&contestants.each_ref().map(|contestant| contestant.times_ns[round]));
        let ratio = median((0..ROUNDS).map(of_round));
        let verdict = if ratio <= limit { "ok" } else { "TOO SLOW" };
        println!("{:<12} {ratio:>6.3}   (at most {limit}: {verdict})   {}", promise.name, promise.says);
        kept &= ratio <= limit;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
