//! Where an operation under test runs: in the first thread or a new one, in a handler in the middle of another operation, after one that
//! was left in the middle, in the destructors of a thread, or after them.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};

use sigsafe_alloc::in_allocator;
use sigsafe_test_harness::step::child;
use sigsafe_test_harness::step::{self, Path, Stop};

use crate::block::{Block, errno, set_errno};
use crate::landing::{LEFT, leavable, leave};

use super::handlers::RUNS;
use super::way::{self, Place, Way};

/// What the engine does with an operation.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Task<'a> {
    /// Learns its way, with a signal sent at a boundary.
    Learn(Option<(usize, i32)>),
    /// Runs it, and sends each signal at its stop.
    Run(&'a [(Stop, i32)]),
}

impl Task<'_> {
    fn perform(self, operation: &mut dyn FnMut()) -> (Path, bool) {
        match self {
            Task::Learn(send_at) => (step::learn(send_at, operation), true),
            Task::Run(sends) => (Path::default(), step::run(sends, operation)),
        }
    }
}

static DEFERRALS: AtomicU64 = AtomicU64::new(0);

/// How many signals were held back in threads that have ended.
pub(crate) fn deferrals() -> u64 {
    DEFERRALS.load(SeqCst)
}

/// The operation, done as `task` says: what is held then, the way, and whether all stops were met.
pub(crate) fn execute(way: &'static Way, held: Vec<Block>, task: Task<'_>) -> (Vec<Block>, Path, bool) {
    match way.place {
        Place::Main => in_place(way, held, task),
        Place::Nested => nested(way, held, task),
        Place::Left => left(way, held, task),
        Place::Thread => {
            let mut result = None;
            on_a_thread(&mut || result = Some(in_place(way, super::prepare(way), task)), &mut || ());
            result.unwrap()
        }
        Place::AfterEnd => {
            let (held, mut result) = (RefCell::new(Vec::new()), None);
            on_a_thread(&mut || _ = held.replace(super::prepare(way)), &mut || result = Some(in_place(way, held.take(), task)));
            result.unwrap()
        }
        Place::ThreadEnd => {
            let (mut held, mut result) = (None, None);
            let mut begin = || {
                held = Some(super::prepare(way));
                match task {
                    Task::Learn(_) => step::begin(None),
                    Task::Run(sends) => step::begin(sends.first().copied()),
                }
            };
            on_a_thread(&mut begin, &mut || result = Some(step::end()));
            let (path, met) = result.unwrap();
            (held.unwrap(), path, met)
        }
    }
}

/// No error's number.
const ERRNO: i32 = 4242;

fn in_place(way: &'static Way, held: Vec<Block>, task: Task<'_>) -> (Vec<Block>, Path, bool) {
    way::limit(way);
    let mut at = null_mut();
    let mut errno_then = 0;
    let (path, met) = task.perform(&mut || {
        set_errno(ERRNO);
        at = way.perform(&held);
        errno_then = errno();
    });
    assert_eq!(errno_then, ERRNO, "errno is what it was");
    // Here, since questions and other operations let in what an operation has left.
    if let Task::Run(sends) = task {
        assert!(!met || RUNS.load(SeqCst) as usize == sends.len(), "each handler has run by the operation's end");
    }
    let alone = matches!(task, Task::Learn(None));
    (way.settle(held, at, alone), path, met)
}

/// What the handler of SIGQUIT does.
static INNER: AtomicPtr<&mut dyn FnMut(&mut libc::ucontext_t)> = AtomicPtr::new(null_mut());

extern "C" fn on_quit(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let inner = INNER.swap(null_mut(), SeqCst);
    // SAFETY: null, or from `over_an_operation`, which is waiting below; the kernel's context of this delivery.
    if let (Some(inner), Some(context)) = unsafe { (inner.as_mut(), context.cast::<libc::ucontext_t>().as_mut()) } {
        inner(context);
    }
}

/// Calls `inner` in a handler that has interrupted an operation at this stop.
fn over_an_operation(stop: Stop, mut inner: &mut dyn FnMut(&mut libc::ucontext_t)) {
    // SAFETY: only the lifetime changes, and the pointer is taken out before this returns.
    let place: *mut &mut dyn FnMut(&mut libc::ucontext_t) = unsafe { std::mem::transmute(&raw mut inner) };
    INNER.store(place, SeqCst);
    // SAFETY: zero is a value of every field; the handler may run in the middle of the allocator.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_quit as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGQUIT, &raw const action, null_mut()), 0);
    }
    step::run(&[(stop, libc::SIGQUIT)], &mut || leavable(way::outer));
    assert!(INNER.swap(null_mut(), SeqCst).is_null(), "the stop was not met");
}

/// Where the outer operation is interrupted.
static OUTER: OnceLock<Stop> = OnceLock::new();

/// Finds a boundary of the outer operation at which it has the cache in hand. Before the runs that need it.
pub(crate) fn find_outer() {
    let stops = child::way(|| step::learn(None, &mut || leavable(way::outer))).stops();
    let in_hand = |stop: &&Stop| {
        let ended = child::run(|| {
            let mut found = false;
            over_an_operation(**stop, &mut |_| found = in_allocator());
            u8::from(found)
        });
        ended.code() == Some(1)
    };
    // Of those of the deallocation, with the list being changed.
    let stop = stops.iter().rev().filter(in_hand).nth(2).expect("the operation has the cache in hand somewhere");
    OUTER.set(*stop).expect("one way in each process");
}

fn nested(way: &'static Way, held: Vec<Block>, task: Task<'_>) -> (Vec<Block>, Path, bool) {
    let (mut held, mut result) = (Some(held), None);
    over_an_operation(*OUTER.get().unwrap(), &mut |_| {
        assert!(in_allocator());
        result = Some(in_place(way, held.take().unwrap(), task));
    });
    result.unwrap()
}

fn left(way: &'static Way, held: Vec<Block>, task: Task<'_>) -> (Vec<Block>, Path, bool) {
    over_an_operation(*OUTER.get().unwrap(), &mut leave);
    assert_eq!(LEFT.load(SeqCst), 1, "the operation was left");
    in_place(way, held, task)
}

/// The body of a thread, and what its last destructor calls.
type Life<'a> = [&'a mut dyn FnMut(); 2];

/// Runs `body` on a new thread, and `end` when the destructors of all keys that were made before have run.
pub(crate) fn on_a_thread(body: &mut dyn FnMut(), end: &mut dyn FnMut()) {
    extern "C" fn at_end(life: *mut c_void) {
        // SAFETY: the value that the body has set, which outlives the thread.
        let [_, end] = unsafe { &mut *life.cast::<Life<'_>>() };
        end();
        DEFERRALS.fetch_add(sigsafe_core::deferrals(), SeqCst);
    }
    static KEY: AtomicU64 = AtomicU64::new(0);
    extern "C" fn start(life: *mut c_void) -> *mut c_void {
        // SAFETY: a key that exists.
        unsafe { libc::pthread_setspecific(KEY.load(SeqCst) as libc::pthread_key_t, life) };
        // SAFETY: the creator's, which waits for this thread.
        let [body, _] = unsafe { &mut *life.cast::<Life<'_>>() };
        body();
        null_mut()
    }
    let mut life: Life<'_> = [body, end];
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: the key is new; the thread ends before `life` does.
    unsafe {
        assert_eq!(libc::pthread_key_create(&raw mut key, Some(at_end)), 0);
        KEY.store(key.into(), SeqCst);
        let mut thread = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&raw mut thread, std::ptr::null(), start, (&raw mut life).cast()), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
    }
}
