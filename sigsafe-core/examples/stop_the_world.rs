//! Stopping every other thread of a runtime by a signal, as collectors do, and letting them go on: the protocol of "Standing a runtime
//! on sigsafe", with its outcome checked.
//!
//! Three threads change two words at a time, in regions; a fourth belongs to somebody else, has the stop signal blocked, and sleeps in
//! a system call. In each stop nothing may move, and no thread may stand between its two words.

use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, critical, deferrals, mask, thread};

/// What a stop is asked for with: ignored by default, and nothing goes wrong when one comes that nobody has sent.
const STOP: Signal = Signal::URG;
/// What wakes the stopped. Any other signal that the program has no use for.
const RESUME: Signal = Signal::XCPU;

const THREADS: usize = 4;
const STOPS: u64 = 200;

/// Odd while the world is stopped, or about to be.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// Held for a whole stop, and by a thread that joins or leaves the world.
static WORLD: AtomicBool = AtomicBool::new(false);

/// A place in the world.
struct Place {
    /// `pthread_self()` of the thread that has it, or 0.
    owner: AtomicUsize,
    /// The last epoch in which it stopped.
    stopped_in: AtomicU64,
    /// What the thread works at: equal outside its regions.
    left: AtomicU64,
    right: AtomicU64,
}

static PLACES: [Place; THREADS] =
    [const { Place { owner: AtomicUsize::new(0), stopped_in: AtomicU64::new(0), left: AtomicU64::new(0), right: AtomicU64::new(0) } };
        THREADS];

fn myself() -> usize {
    // SAFETY: the call has no preconditions; it reads a register and may be called anywhere.
    unsafe { libc::pthread_self() as usize }
}

/// Runs at the end of the region that it has found, never inside. It takes no lock and allocates nothing: whoever stops the world may
/// hold any lock that is not held in a region.
fn on_stop(_: &Delivery<'_>) {
    let epoch = EPOCH.load(Acquire);
    let Some(place) = PLACES.iter().find(|place| place.owner.load(Relaxed) == myself()) else { return };
    if epoch.is_multiple_of(2) {
        return; // a stop that has ended, or a signal that nobody of ours has sent
    }
    // A collector would find the thread's stack from here: the handler's frame is its lower end.
    place.stopped_in.store(epoch, Release);
    while EPOCH.load(Acquire) == epoch {
        // RESUME is blocked in this handler and let in by this call alone, so one that was sent before it is not lost.
        mask::suspend(SigSet::FULL.without(RESUME));
    }
}

fn on_resume(_: &Delivery<'_>) {}

/// Waited for with signals open, so that who waits can be stopped. Never taken in a handler, nor in a region.
fn lock_world() {
    while WORLD.swap(true, AcqRel) {
        yield_now();
    }
}

fn unlock_world() {
    WORLD.store(false, Release);
}

/// Runs `f` while every other thread of the world stands still. Also gives the time that it took them to stop.
fn stop_the_world<R>(f: impl FnOnce() -> R) -> (R, Duration) {
    assert!(!sigsafe_core::in_region(), "a thread that waits here for a stop could not be stopped itself");
    lock_world();
    let begin = Instant::now();
    let epoch = EPOCH.fetch_add(1, AcqRel) + 1;
    let others = || PLACES.iter().filter(|place| ![0, myself()].contains(&place.owner.load(Relaxed)));
    let signal = |place: &Place, signal: Signal| {
        // SAFETY: a thread leaves its place before it ends, and not while the world is locked.
        assert_eq!(unsafe { libc::pthread_kill(place.owner.load(Relaxed) as libc::pthread_t, signal.number()) }, 0);
    };
    others().for_each(|place| signal(place, STOP));
    for place in others() {
        while place.stopped_in.load(Acquire) != epoch {
            yield_now();
        }
    }
    let stopped = begin.elapsed();
    let result = f();
    EPOCH.fetch_add(1, AcqRel);
    others().for_each(|place| signal(place, RESUME));
    unlock_world();
    (result, stopped)
}

/// A thread of the world, until it is dropped.
struct Member(&'static Place);

impl Member {
    fn join() -> Member {
        lock_world();
        let place = PLACES.iter().find(|place| place.owner.load(Relaxed) == 0).expect("there is a place for each thread");
        place.owner.store(myself(), Relaxed);
        unlock_world();
        Member(place)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        lock_world();
        self.0.owner.store(0, Relaxed);
        unlock_world();
    }
}

static STOP_WORKING: AtomicBool = AtomicBool::new(false);

/// A thread of the runtime's own. `thread::spawn` gives it its creator's mask, which does not block the stop signal.
fn mutator() -> u64 {
    let member = Member::join();
    while !STOP_WORKING.load(Relaxed) {
        // As an allocation or a lock would: in a region.
        critical(|_| {
            member.0.left.fetch_add(1, Relaxed);
            member.0.right.fetch_add(1, Relaxed);
        });
    }
    deferrals()
}

/// A thread of somebody else's, with everything blocked, that calls in. It has to let in the stop signal itself; what it had
/// blocked is blocked again as it is detached.
fn foreign(wake: libc::c_int) {
    mask::block(SigSet::FULL);
    let before = mask::current();
    {
        let _attached = thread::attach().expect("an alternate stack can be made");
        mask::unblock(SigSet::from(STOP));
        let member = Member::join();
        let mut byte = 0_u8;
        // SAFETY: the pointer is to one live byte. The call is restarted after each stop, since the handler has `restart`.
        assert_eq!(unsafe { libc::read(wake, ptr::from_mut(&mut byte).cast(), 1) }, 1);
        drop(member);
    }
    assert_eq!(mask::current(), before);
}

fn look_at_the_world() -> Vec<u64> {
    PLACES
        .iter()
        .map(|place| {
            let (left, right) = (place.left.load(Relaxed), place.right.load(Relaxed));
            assert_eq!(left, right, "a thread was stopped in its region");
            left
        })
        .collect()
}

fn main() {
    // SAFETY: both handlers touch atomics and wait by async-signal-safe means.
    unsafe {
        Handler::new(on_stop).mask(SigSet::from(RESUME)).restart(true).on_stack(true).install(STOP).unwrap();
        Handler::new(on_resume).restart(true).on_stack(true).install(RESUME).unwrap();
    }
    let mut pipe = [0; 2];
    // SAFETY: the pointer is to two live descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);

    let mutators: Vec<_> = (1..THREADS).map(|_| thread::spawn(mutator).unwrap()).collect();
    let sleeper = std::thread::spawn(move || foreign(pipe[0]));
    while PLACES.iter().any(|place| place.owner.load(Relaxed) == 0) {
        yield_now();
    }

    let mut longest = Duration::ZERO;
    let mut before = vec![0; THREADS];
    for _ in 0..STOPS {
        let (seen, took) = stop_the_world(|| {
            let seen = look_at_the_world();
            (0..20).for_each(|_| yield_now());
            assert_eq!(look_at_the_world(), seen, "a thread ran while the world was stopped");
            seen
        });
        longest = longest.max(took);
        before = seen;
        // They go on: at least one of them is seen to, before the next stop.
        while look_loosely() == before.iter().sum::<u64>() {
            yield_now();
        }
    }

    STOP_WORKING.store(true, Relaxed);
    let held_back: u64 = mutators.into_iter().map(|thread| thread.join().unwrap()).sum();
    // SAFETY: the pointer is to one live byte.
    assert_eq!(unsafe { libc::write(pipe[1], ptr::from_ref(&0_u8).cast(), 1) }, 1);
    sleeper.join().unwrap();
    assert!(before.iter().filter(|count| **count > 0).count() == THREADS - 1, "each of the mutators has worked");
    println!("{STOPS} stops of {THREADS} threads, the longest took {longest:?}; {held_back} waited for the end of a region");
}

/// The work of all threads while they run.
fn look_loosely() -> u64 {
    PLACES.iter().map(|place| place.right.load(Relaxed)).sum()
}
