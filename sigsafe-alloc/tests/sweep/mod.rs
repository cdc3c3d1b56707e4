//! A signal at every instruction of a [way](way) through the allocator. A process prepares the state, and each run is a child of it
//! ([`sigsafe_test_harness::step`]): every boundary is met in the very same state, and nothing that goes wrong there is of consequence
//! for the next.

#![allow(dead_code, reason = "each test is a crate that uses its own part of this module")]

mod handlers;
pub(crate) mod place;
pub(crate) mod way;

use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::SeqCst;

use sigsafe_alloc::thread_exit::thread_ends;
use sigsafe_core::Signal;
use sigsafe_core::handler::Handler;
use sigsafe_test_harness::rng::Generator;
use sigsafe_test_harness::step::child::{self, Counters};
use sigsafe_test_harness::step::{self, Path, Stop};

use crate::block::{A, Block, ENDS_ALONE};
use handlers::{INSIDE, RUNS};
use place::Task;
use way::{Place, Way};

/// Of an instruction that a way executes more often, in a loop over classes, blocks or bytes, these first rounds are met, the last one, and
/// those whose number is a power of two. `SIGSAFE_SWEEP_ROUNDS` is another number.
const ROUNDS: u64 = 8;
/// A way may have one in so many boundaries at which its runs do not come by.
const MISSED: u64 = 200;
/// More failures of one way say no more.
const ENOUGH: u64 = 5;

/// Of a child's status: the run was right, and what it met.
const RIGHT: u8 = 0x80;
const NOT_MET: u8 = 1;
const IN_HAND: u8 = 2;
const HELD_BACK: u8 = 4;

/// The signals, one for each of the handlers.
const HANDLERS: [(&str, i32); 3] = [("allocates", libc::SIGUSR1), ("exchanges", EXCHANGES), ("managed", MANAGED)];
const EXCHANGES: i32 = libc::SIGUSR2;
const MANAGED: i32 = libc::SIGHUP;

/// Installs the handlers, and makes the code writable.
pub(crate) fn install() {
    step::prepare();
    ENDS_ALONE.store(true, SeqCst);
    for (signal, handler) in [(libc::SIGUSR1, handlers::allocates as extern "C" fn(i32)), (EXCHANGES, handlers::exchanges)] {
        // SAFETY: the handler may run anywhere in the allocator.
        unsafe { libc::signal(signal, handler as *const () as usize) };
    }
    // SAFETY: as above.
    unsafe { Handler::new(handlers::managed).install(Signal::HUP) }.unwrap();
    // Memory for what is learnt is there from here on.
    step::reserve();
    child::way(Path::default);
}

/// In a process of its own, brings the state about, and gives `body` what is held then.
fn prepared(way: &'static Way, body: impl FnOnce(&mut Vec<Block>)) -> ExitStatus {
    child::run(|| {
        A.set_purge_policy(std::time::Duration::from_secs(3600), 256 << 20);
        let over_another = matches!(way.place, Place::Nested | Place::Left);
        let in_child = way.place != Place::Main && !over_another;
        let mut held = if in_child { Vec::new() } else { prepare(way) };
        if over_another {
            place::find_outer();
        }
        // Its children have limits of their own.
        child::set_limit(0);
        body(&mut held);
        0
    })
}

/// What is held, and what the handlers may free of it.
fn prepare(way: &Way) -> Vec<Block> {
    let mut held = (way.prepare)();
    let shared = held.len().saturating_sub(way.operands()).min(6);
    handlers::share(way.size(), held.drain(..shared));
    held
}

/// One run. `task`: what the engine is to do. Whether all stops were met, or the way.
fn execute(way: &'static Way, held: &mut Vec<Block>, task: Task<'_>) -> (Path, bool) {
    let held = take(held);
    let (held, path, met) = place::execute(way, held, task);
    held.iter().for_each(Block::check);
    // A block that is in two lists is soon somebody's twice.
    let more = Block::many(way.size(), if way.size() > 64 << 10 { 2 } else { 12 });
    held.iter().chain(&more).for_each(Block::check);
    A.verify().unwrap_or_else(|violation| panic!("{}, blocks in use: {violation}", way.name));
    held.into_iter().chain(more).for_each(drop);
    handlers::free_what_is_shared();
    A.verify().unwrap_or_else(|violation| panic!("{}: {violation}", way.name));
    // SAFETY: changes no contents.
    unsafe { libc::munlockall() };
    A.purge();
    // A handler in a thread's first operation may give it a second cache, which keeps what it has until the thread ends; and so does one
    // that was left.
    let stats = A.stats();
    if stats.caches <= 1 && stats.caches_marked == 0 {
        nothing_is_left(way);
    }
    // SAFETY: the main flow, and no operation is under way.
    unsafe { thread_ends() };
    A.purge();
    nothing_is_left(way);
    assert_eq!(A.stats().caches, 0, "{}: caches that no thread has", way.name);
    (path, met)
}

/// After a purge, when all blocks are free.
fn nothing_is_left(way: &Way) {
    let stats = A.stats();
    let lost = (stats.blocks, stats.spans, stats.runs, stats.mapped);
    // The one that was in hand when the operation was left, and so its span.
    let in_hand = (64, 64 << 10, 0, 0);
    assert!(lost == (0, 0, 0, 0) || way.place == Place::Left && lost == in_hand, "{}, lost: {stats:?}", way.name);
    assert_eq!((stats.free_resident, stats.kept), (0, 0), "{}, not given back: {stats:?}", way.name);
}

/// The way through the operation, learnt in a child; with a signal at a boundary, if one is given.
fn learn(way: &'static Way, held: &mut Vec<Block>, send_at: Option<(usize, i32)>) -> Path {
    child::way(|| execute(way, held, Task::Learn(send_at)).0)
}

/// What a run with one signal shows, as a child's status.
fn one_run(way: &'static Way, held: &mut Vec<Block>, sends: &[(Stop, i32)]) -> u8 {
    let before = sigsafe_core::deferrals();
    let (_, met) = execute(way, held, Task::Run(sends));
    if !met {
        return RIGHT | NOT_MET;
    }
    assert_eq!(RUNS.load(SeqCst) as usize, sends.len(), "each handler has run by the operation's end");
    let held_back = place::deferrals().wrapping_add(sigsafe_core::deferrals() - before);
    RIGHT | if INSIDE.load(SeqCst) { IN_HAND } else { 0 } | if held_back != 0 { HELD_BACK } else { 0 }
}

/// A number that a variable may change.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// `SIGSAFE_SWEEP_WAY` is a part of the names of those that are; without it, all.
fn asked_for(way: &Way) -> bool {
    std::env::var("SIGSAFE_SWEEP_WAY").map_or(true, |part| way.name.contains(&part))
}

/// The boundaries to stop at: all of them but for the rounds of long loops.
fn stops(way: &Path) -> Vec<Stop> {
    let most = number("SIGSAFE_SWEEP_ROUNDS", ROUNDS) as u32;
    let all = way.stops();
    let mut rounds: HashMap<usize, u32> = HashMap::new();
    for stop in &all {
        let last = rounds.entry(stop.pc()).or_default();
        *last = (*last).max(stop.nth());
    }
    all.into_iter().filter(|stop| stop.nth() <= most || stop.nth() == rounds[&stop.pc()] || stop.nth().is_power_of_two()).collect()
}

/// What a sweep has counted.
const BOUNDARIES: usize = 0;
const RUN: usize = 1;
const MISSES: usize = 2;
const INSIDES: usize = 3;
const FAILURES: usize = 4;
const PASSED_OVER: usize = 5;

fn all(counters: &Counters<6>) -> [u64; 6] {
    let mut values = counters.values();
    std::array::from_fn(|_| values.next().unwrap())
}

/// Every handler at every boundary of each way; or at every Nth, N being `stride`, or `SIGSAFE_SWEEP_STRIDE` if that is set. Ends with
/// the first way that fails.
pub(crate) fn sweep(ways: &'static [Way], stride: u64) {
    assert!(way::all().any(asked_for), "no way has such a name");
    install();
    let stride = number("SIGSAFE_SWEEP_STRIDE", stride).max(1) as usize;
    let mut total = [0; 6];
    for (index, way) in ways.iter().enumerate().filter(|(_, way)| asked_for(way)) {
        let counters = Counters::<6>::new();
        let ended = prepared(way, |held| sweep_one(way, held, (index % stride, stride), &counters));
        let counted = all(&counters);
        let [boundaries, runs, missed, inside, failures, passed_over] = counted;
        println!("{}: {boundaries} boundaries, {inside} of them with the cache in hand; {runs} runs, {missed} missed", way.name);
        if passed_over != 0 {
            println!("    {passed_over} more are rounds of loops");
        }
        if !ended.success() || failures != 0 || boundaries < 10 || runs == 0 || missed * MISSED > runs {
            panic!("{}: {failures} runs failed; {ended}", way.name);
        }
        total.iter_mut().zip(counted).for_each(|(total, one)| *total += one);
    }
    println!("{} boundaries, {} runs, {} missed, {} in hand", total[BOUNDARIES], total[RUN], total[MISSES], total[INSIDES]);
}

/// `(offset, stride)`: which boundaries are met.
fn sweep_one(way: &'static Way, held: &mut Vec<Block>, (offset, stride): (usize, usize), counters: &Counters<6>) {
    let path = learn(way, held, None);
    let stops = stops(&path);
    counters.add(BOUNDARIES, stops.len() as u64);
    counters.add(PASSED_OVER, (path.stops().len() - stops.len()) as u64);
    for (index, stop) in stops.iter().enumerate().skip(offset).step_by(stride) {
        let mut in_hand = false;
        for (name, signal) in HANDLERS {
            let ended = child::run(|| one_run(way, held, &[(*stop, signal)]));
            counters.add(RUN, 1);
            let fail = |what: &str| {
                println!("{}, {name} at {index} of {} ({:#x}): {what}, {ended}", way.name, stops.len(), stop.pc());
                counters.add(FAILURES, 1);
            };
            match ended.code() {
                Some(code) if code & i32::from(RIGHT) != 0 => {
                    let [missed, inside, held_back] = [NOT_MET, IN_HAND, HELD_BACK].map(|bit| code as u8 & bit != 0);
                    counters.add(MISSES, u64::from(missed));
                    if signal == libc::SIGUSR1 {
                        in_hand = inside;
                        counters.add(INSIDES, u64::from(inside));
                    }
                    if way.place == Place::AfterEnd && inside {
                        fail("a thread that has given its cache back has none");
                    }
                    // Above another handler that has interrupted an operation, nothing is held back for that one; after an operation that
                    // was left, more is, up to the end of the next.
                    let alone = !matches!(way.place, Place::Nested | Place::Left);
                    if signal == MANAGED && !missed && alone && (held_back != in_hand || inside) {
                        fail("a managed handler waits for the end of an operation with the cache in hand, and for nothing else");
                    }
                }
                _ => fail("wrong"),
            }
            // One that hangs takes its time.
            if all(counters)[FAILURES] >= ENOUGH || ended.signal() == Some(libc::SIGALRM) {
                return;
            }
        }
    }
}

/// A second signal in the handling of the first: of one way in four, or in `SIGSAFE_SWEEP_WAYS`, a sample of the pairs. The seed says of
/// which.
pub(crate) fn sweep_pairs() {
    let (firsts, seconds) = (number("SIGSAFE_SWEEP_FIRSTS", 1), number("SIGSAFE_SWEEP_SECONDS", 4));
    let seed = number("SIGSAFE_SWEEP_SEED", u64::from(std::process::id()));
    println!("SIGSAFE_SWEEP_SEED={seed}");
    let one_way_in = number("SIGSAFE_SWEEP_WAYS", if std::env::var("SIGSAFE_SWEEP_WAY").is_ok() { 1 } else { 4 }).max(1);
    install();
    let mut failed = Vec::new();
    let mut total = [0; 6];
    // A way that ends with the thread cannot be learnt with a signal on it.
    for (stream, way) in way::all().filter(|way| way.place != Place::ThreadEnd && asked_for(way)).enumerate() {
        if !(seed + stream as u64).is_multiple_of(one_way_in) {
            continue;
        }
        let counters = Counters::<6>::new();
        let ended = prepared(way, |held| {
            let mut random = Generator::new(seed, stream as u64);
            let boundaries = learn(way, held, None).stops().len() as u32;
            for _ in 0..firsts {
                let first = random.below(boundaries) as usize;
                let path = learn(way, held, Some((first, libc::SIGUSR1)));
                pairs_of_one(way, held, &path, (0..seconds).map(|_| (random.word(), random.one_in(4))), &counters);
            }
        });
        let counted = all(&counters);
        if !ended.success() || counted[FAILURES] != 0 || counted[RUN] == 0 {
            failed.push(way.name);
            println!("{}: FAILED: {counted:?}, {ended}", way.name);
        }
        total.iter_mut().zip(counted).for_each(|(total, one)| *total += one);
    }
    println!("{} boundaries in all handlings, {} runs, {} missed", total[BOUNDARIES], total[RUN], total[MISSES]);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(total[RUN] != 0, "no run of any way");
    assert!(total[MISSES] * 10 <= total[RUN], "{} of {} pairs missed", total[MISSES], total[RUN]);
}

/// `path` has the first signal on it. `seconds`: where the second one comes, and whether it is the managed one.
fn pairs_of_one(way: &'static Way, held: &mut Vec<Block>, path: &Path, seconds: impl Iterator<Item = (u64, bool)>, counters: &Counters<6>) {
    let (first, stops) = (path.stop_of_sending(), path.stops_after_sending());
    counters.add(BOUNDARIES, stops.len() as u64);
    for (word, is_managed) in seconds {
        let second = word as usize % stops.len();
        let signal = if is_managed { MANAGED } else { EXCHANGES };
        let ended = child::run(|| one_run(way, held, &[(first, libc::SIGUSR1), (stops[second], signal)]));
        counters.add(RUN, 1);
        match ended.code() {
            Some(code) if code & i32::from(RIGHT) != 0 => counters.add(MISSES, u64::from(code as u8 & NOT_MET)),
            _ => {
                println!("{}, signal {signal} {second} boundaries after SIGUSR1 at {first:?}: {ended}", way.name);
                counters.add(FAILURES, 1);
            }
        }
    }
}

/// Where the program counter comes by on a way: without a signal, and with one right before each compare-and-swap, which then has to be
/// repeated if the handler has changed the word. `tried` has those with which other ways have done that often enough.
pub(crate) fn program_counters(way: &'static Way, tried: &mut HashMap<usize, u32>) -> BTreeSet<usize> {
    /// A handler does not change every word.
    const OFTEN_ENOUGH: u32 = 3;
    let (met, swaps) = (Counters::<{ 1 << 16 }>::new(), Counters::<{ 1 << 10 }>::new());
    let ended = prepared(way, |held| {
        let path = learn(way, held, None);
        let mut all: BTreeSet<usize> = path.program_counters().collect();
        // What a long way repeats, short ones have too.
        if way.place != Place::ThreadEnd && path.len() < 10_000 {
            // Signals are let in at the end.
            handlers::BARE.store(true, SeqCst);
            all.extend(learn(way, held, Some((path.len() / 2, MANAGED))).program_counters());
            let stops = path.stops();
            let new =
                path.compare_and_swaps().into_iter().filter(|at| tried.get(&stops[*at].pc()).is_none_or(|times| *times < OFTEN_ENOUGH));
            for (index, at) in new.enumerate() {
                swaps.add(index, stops[at].pc() as u64);
                all.extend(learn(way, held, Some((at, EXCHANGES))).program_counters());
            }
        }
        all.into_iter().enumerate().for_each(|(index, pc)| met.add(index, pc as u64));
    });
    assert!(ended.success(), "{}: {ended}", way.name);
    let found = |values: &mut dyn Iterator<Item = u64>| -> Vec<usize> { values.map(|pc| pc as usize).filter(|pc| *pc != 0).collect() };
    found(&mut swaps.values()).into_iter().for_each(|pc| *tried.entry(pc).or_default() += 1);
    found(&mut met.values()).into_iter().collect()
}
