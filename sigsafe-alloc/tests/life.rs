//! The allocator before `main`, at a thread's first operation, and through all that comes at a thread's end.

#![cfg(target_os = "linux")]

mod block;

use std::alloc::GlobalAlloc;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut, without_provenance};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use block::{A, Block, KIB, MIB};
use sigsafe_alloc::thread_exit::{ThreadExit, notice_thread_ends_by, thread_ends};
use sigsafe_core::Signal;
use sigsafe_core::handler::Handler;
use sigsafe_test_harness::isolate::isolated;

/// Of every kind one, changed and freed.
fn some_of_every_kind() {
    some_without_a_mapping();
    // No page of it is touched: that would take its time.
    let (old, new) = (block::layout(20 * MIB, 8), block::layout(40 * MIB, 8));
    // SAFETY: our block.
    unsafe {
        let mapping = A.alloc(old);
        assert!(!mapping.is_null());
        let longer = A.realloc(mapping, old, new.size());
        assert!(!longer.is_null());
        A.dealloc(longer, new);
    }
}

fn some_without_a_mapping() {
    let mut blocks = [8, 24, 100, 700, 9000, 70_000, 300 * KIB, 2 * MIB].map(Block::new);
    blocks.iter_mut().for_each(|block| assert!(block.resize(500)));
}

fn nothing_is_lost() {
    A.verify().unwrap();
    assert_eq!(A.stats().caches, 0, "caches that no thread has");
    A.purge();
    let stats = A.stats();
    assert_eq!((stats.blocks, stats.spans, stats.runs, stats.mapped, stats.kept), (0, 0, 0, 0, 0), "blocks that nobody has");
}

// Before `main`.

static BEFORE_MAIN: Mutex<Vec<Block>> = Mutex::new(Vec::new());

extern "C" fn allocates_before_main() {
    some_of_every_kind();
    let mut blocks = BEFORE_MAIN.lock().unwrap();
    blocks.extend([24, 3000, 300 * KIB, 2 * MIB, 20 * MIB].map(Block::new));
    // What an earlier constructor has made.
    blocks.swap_remove(0);
}

/// Entries with a number run before those without one, and so before the allocator's own.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static FIRST: extern "C" fn() = allocates_before_main;

#[used]
#[unsafe(link_section = ".init_array")]
static SECOND: extern "C" fn() = allocates_before_main;

#[test]
fn what_constructors_have_allocated_stays_and_can_be_freed() {
    isolated("what_constructors_have_allocated_stays_and_can_be_freed", || {
        thread::spawn(|| {
            let mut blocks = BEFORE_MAIN.lock().unwrap();
            assert_eq!(blocks.len(), 8);
            // `Block` looks at the contents.
            blocks.iter_mut().for_each(|block| assert!(block.resize(2 * block.layout().size())));
            blocks.clear();
        })
        .join()
        .unwrap();
        A.verify().unwrap();
        assert!(A.stats().caches <= 1, "{:?}", A.stats());
    });
}

/// Frees what the constructors have made, and the cache of the thread that ran them, so that the counts are a test's own.
fn from_nothing(test: &str, body: impl FnOnce()) {
    isolated(test, || {
        // The body's thread is not that of the constructors.
        BEFORE_MAIN.lock().unwrap().clear();
        A.purge();
        // SAFETY: not in a handler. What this thread does from here on goes without a cache.
        unsafe { thread_ends() };
        body();
    });
}

// A thread's first operation.

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: c_int) {
    some_of_every_kind();
    HANDLED.fetch_add(1, SeqCst);
}

#[test]
fn a_thread_s_first_operation_may_be_a_handler_s() {
    from_nothing("a_thread_s_first_operation_may_be_a_handler_s", || {
        // SAFETY: the handlers use the allocator and an atomic.
        let _managed = unsafe {
            libc::signal(libc::SIGUSR1, on_signal as *const () as usize);
            Handler::new(|_| on_signal(0)).install(Signal::USR2).unwrap()
        };
        for signal in [libc::SIGUSR1, libc::SIGUSR2] {
            for _ in 0..50 {
                thread::spawn(move || {
                    // SAFETY: a signal that has a handler.
                    unsafe { libc::raise(signal) };
                    some_of_every_kind();
                })
                .join()
                .unwrap();
            }
        }
        assert_eq!(HANDLED.load(SeqCst), 100);
        nothing_is_lost();
    });
}

// A thread's end.

/// Its drop uses the allocator.
struct AtEnd(RefCell<Vec<Block>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        some_of_every_kind();
        self.0.borrow_mut().clear();
        some_of_every_kind();
    }
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(Vec::new())) };
}

#[test]
fn destructors_of_thread_locals_allocate_and_free() {
    from_nothing("destructors_of_thread_locals_allocate_and_free", || {
        for round in 0..100 {
            // Of threads that have used the allocator before, and after, and not at all until then.
            thread::spawn(move || match round % 3 {
                0 => {
                    let blocks = (1..50).map(|index| Block::new(index * 97)).collect();
                    AT_END.with(|at_end| at_end.0.replace(blocks));
                }
                1 => {
                    AT_END.with(|_| ());
                    some_of_every_kind();
                }
                _ => AT_END.with(|_| ()),
            })
            .join()
            .unwrap();
        }
        nothing_is_lost();
    });
}

/// As POSIX has it, and glibc and musl do.
const ROUNDS: usize = 4;

/// A key that is older than the allocator's, and one that is younger: in each round of destructors their turn comes before and after.
static KEYS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The round in which destructors use the allocator; 0 for all of them.
static ROUND: AtomicUsize = AtomicUsize::new(0);

fn key(which: usize) -> libc::pthread_key_t {
    KEYS[which].load(SeqCst) as libc::pthread_key_t
}

/// The value is the round.
extern "C" fn at_thread_end<const WHICH: usize>(value: *mut c_void) {
    let (round, wanted) = (value.addr(), ROUND.load(SeqCst));
    // A mapping that comes and goes moves the stacks of later threads to other places.
    if wanted == 0 {
        some_of_every_kind();
    }
    if wanted == 0 || wanted == round {
        some_without_a_mapping();
        drop((Block::new(64), Block::new(64)));
    }
    if round < ROUNDS {
        // SAFETY: a key of this program.
        unsafe { libc::pthread_setspecific(key(WHICH), without_provenance(round + 1)) };
    }
}

fn make_key<const WHICH: usize>() {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: writes a key on this stack; the destructor takes a number for its value.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(at_thread_end::<WHICH>)) }, 0);
    KEYS[WHICH].store(key as usize, SeqCst);
}

extern "C" fn make_the_older_key() {
    make_key::<0>();
}

#[used]
#[unsafe(link_section = ".init_array.00102")]
static OLDER_KEY: extern "C" fn() = make_the_older_key;

/// Creates a thread as C does, without what std's threads allocate and register. To be joined.
fn c_thread(routine: extern "C" fn(*mut c_void) -> *mut c_void, argument: usize) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: writes the thread's name, which is there when it succeeds.
    unsafe {
        assert_eq!(libc::pthread_create(thread.as_mut_ptr(), null(), routine, without_provenance::<c_void>(argument).cast_mut()), 0);
        thread.assume_init()
    }
}

fn join(thread: libc::pthread_t) {
    // SAFETY: each thread is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, null_mut()) }, 0);
}

/// Sets one of the keys.
extern "C" fn with_a_destructor(which: *mut c_void) -> *mut c_void {
    // SAFETY: a key of this program.
    assert_eq!(unsafe { libc::pthread_setspecific(key(which.addr()), without_provenance(1)) }, 0);
    null_mut()
}

extern "C" fn with_a_cache_and_a_destructor(which: *mut c_void) -> *mut c_void {
    some_of_every_kind();
    with_a_destructor(which)
}

#[test]
fn destructors_of_every_round_allocate_and_free_after_the_cache_has_gone() {
    from_nothing("destructors_of_every_round_allocate_and_free_after_the_cache_has_gone", || {
        make_key::<1>();
        for which in [0, 1] {
            for round in 0..=ROUNDS {
                ROUND.store(round, SeqCst);
                for _ in 0..20 {
                    join(c_thread(with_a_cache_and_a_destructor, which));
                }
                nothing_is_lost();
            }
        }
    });
}

#[test]
fn a_thread_may_allocate_for_the_first_time_in_a_destructor() {
    from_nothing("a_thread_may_allocate_for_the_first_time_in_a_destructor", || {
        make_key::<1>();
        for which in [0, 1] {
            // After the last round's turn of the allocator's key nobody would notice: see below.
            for round in 0..=ROUNDS - which {
                ROUND.store(round, SeqCst);
                for _ in 0..20 {
                    join(c_thread(with_a_destructor, which));
                }
                nothing_is_lost();
            }
        }
    });
}

#[test]
fn caches_of_threads_whose_end_was_not_noticed_serve_later_threads() {
    from_nothing("caches_of_threads_whose_end_was_not_noticed_serve_later_threads", || {
        make_key::<1>();
        // The first operation comes after the last turn of the allocator's key.
        ROUND.store(ROUNDS, SeqCst);
        let one = || join(c_thread(with_a_destructor, 1));
        (0..10).for_each(|_| one());
        let counts = || {
            let stats = A.stats();
            (stats.caches, stats.blocks, stats.spans)
        };
        let early = counts();
        assert!(early.0 <= 2, "{early:?}");
        (0..1000).for_each(|_| one());
        assert_eq!(counts(), early);
        // Many at a time have as many places for their records.
        for _ in 0..100 {
            let threads: Vec<_> = (0..8).map(|_| c_thread(with_a_destructor, 1)).collect();
            threads.into_iter().for_each(join);
        }
        assert!(A.stats().caches <= 32, "{:?}", A.stats());
        A.verify().unwrap();
    });
}

// Another way to notice it, named late.

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

struct Late;

impl ThreadExit for Late {
    fn arm() -> bool {
        ARMED.set(true);
        true
    }
}

#[test]
fn threads_that_have_a_cache_keep_their_way_of_ending() {
    static NAMED: AtomicBool = AtomicBool::new(false);
    from_nothing("threads_that_have_a_cache_keep_their_way_of_ending", || {
        let old = thread::spawn(|| {
            some_of_every_kind();
            while !NAMED.load(SeqCst) {
                thread::yield_now();
            }
            some_of_every_kind();
            assert!(!ARMED.get());
        });
        while A.stats().caches == 0 {
            thread::yield_now();
        }
        notice_thread_ends_by::<Late>();
        thread::spawn(|| {
            some_of_every_kind();
            assert!(ARMED.get());
            // SAFETY: not in a handler.
            unsafe { thread_ends() };
        })
        .join()
        .unwrap();
        assert_eq!(A.stats().caches, 1, "the older thread's");
        NAMED.store(true, SeqCst);
        old.join().unwrap();
        nothing_is_lost();
    });
}
