//! A signal in the middle of each allocator method, from the inside: the wrapped allocator raises it there.
//!
//! Deterministic: no timer, no second thread. The handler allocates through the allocator under test and notes whether the
//! main flow was inside a method. Behind `Masked` it never is; the control without `Masked` shows that the note can tell.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::SeqCst};

use sigsafe_alloc::Masked;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{Backend, DeferredCounter, FullSyscall, Signal};

thread_local! {
    /// Non-zero while this thread is between the first and the last instruction of a method of [`Interrupted`].
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    /// Whether the next method raises the signal. The handler's own calls find it cleared.
    static ARMED: Cell<bool> = const { Cell::new(false) };
    /// Handler runs on this thread, and those among them that found a method unfinished.
    static RUNS: Cell<u32> = const { Cell::new(0) };
    static RUNS_INSIDE: Cell<u32> = const { Cell::new(0) };
    /// What the handler calls: the allocator under test on this thread.
    static UNDER_TEST: Cell<Option<&'static (dyn GlobalAlloc + Sync)>> = const { Cell::new(None) };
    /// Calls of each method of [`Interrupted`] on this thread: alloc, dealloc, alloc_zeroed, realloc.
    static CALLS: Cell<[u32; 4]> = const { Cell::new([0; 4]) };
}

/// What the wrapped allocator leaves in `errno`: a value that nothing else here produces.
const ERRNO_OF_METHOD: i32 = 77;
/// What the handler leaves there.
const ERRNO_OF_HANDLER: i32 = 88;

fn errno() -> &'static AtomicU32 {
    // SAFETY: the location is this thread's `errno`, an aligned `int` that lives as long as the thread; the reference does
    // not leave the expression that asks for it.
    unsafe { AtomicU32::from_ptr(libc::__errno_location().cast()) }
}

/// The system allocator, with a signal in the middle of each method when armed.
struct Interrupted;

impl Interrupted {
    fn within<R>(&self, method: usize, body: impl FnOnce() -> R) -> R {
        CALLS.with(|calls| {
            let mut counts = calls.get();
            counts[method] += 1;
            calls.set(counts);
        });
        INSIDE.set(INSIDE.get() + 1);
        let result = body();
        if ARMED.replace(false) {
            // SAFETY: SIGUSR1 has the managed handler of `install`, which every test calls first.
            unsafe { libc::raise(libc::SIGUSR1) };
        }
        errno().store(ERRNO_OF_METHOD as u32, SeqCst);
        INSIDE.set(INSIDE.get() - 1);
        result
    }
}

// SAFETY: every method hands its arguments to `System` and returns what that returned.
unsafe impl GlobalAlloc for Interrupted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the ones that `System` asks for.
        self.within(0, || unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; the block is `System`'s.
        self.within(1, || unsafe { System.dealloc(ptr, layout) });
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.within(2, || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above; the block is `System`'s.
        self.within(3, || unsafe { System.realloc(ptr, layout, new_size) })
    }
}

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

fn on_signal(_: &Delivery<'_>) {
    RUNS.set(RUNS.get() + 1);
    if INSIDE.get() != 0 {
        RUNS_INSIDE.set(RUNS_INSIDE.get() + 1);
    }
    if let Some(allocator) = UNDER_TEST.get() {
        // SAFETY: the layout's size is not zero, and the block goes back to where it came from.
        unsafe {
            let block = allocator.alloc(LAYOUT);
            block.write_bytes(0xA5, LAYOUT.size());
            allocator.dealloc(block, LAYOUT);
        }
    }
    errno().store(ERRNO_OF_HANDLER as u32, SeqCst);
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler touches const-initialised thread-locals without destructors and the allocator under test.
        // In the control, where it runs inside a method, that method has finished its call of `System`.
        unsafe { Handler::new(on_signal).install(Signal::USR1) }.expect("SIGUSR1 can be handled");
    });
}

/// Runs `operation` with a signal in the middle and returns its result, the handler's runs and those inside a method.
fn interrupted<R>(operation: impl FnOnce() -> R) -> (R, u32, u32) {
    RUNS.set(0);
    RUNS_INSIDE.set(0);
    ARMED.set(true);
    let result = operation();
    assert!(!ARMED.get(), "the method under test did not reach the wrapped allocator");
    (result, RUNS.get(), RUNS_INSIDE.get())
}

/// The four methods, each with a signal inside; returns how many of the four runs landed inside a method.
fn every_method(allocator: &'static (dyn GlobalAlloc + Sync)) -> u32 {
    install();
    UNDER_TEST.set(Some(allocator));
    CALLS.set([0; 4]);
    let mut inside = 0;
    let mut count = |(runs, runs_inside): (u32, u32)| {
        assert_eq!(runs, 1, "one signal, one run, before the method returned");
        inside += runs_inside;
    };

    // SAFETY: layouts are not empty, and every block goes back once, with the layout that it has then.
    unsafe {
        let (block, runs, within) = interrupted(|| allocator.alloc(LAYOUT));
        count((runs, within));
        block.write_bytes(0x5A, LAYOUT.size());

        let (grown, runs, within) = interrupted(|| allocator.realloc(block, LAYOUT, 4096));
        count((runs, within));
        assert!((0..LAYOUT.size()).all(|i| *grown.add(i) == 0x5A), "realloc lost the contents");
        let layout = Layout::from_size_align(4096, LAYOUT.align()).unwrap();
        let ((), runs, within) = interrupted(|| allocator.dealloc(grown, layout));
        count((runs, within));

        let (zeroed, runs, within) = interrupted(|| allocator.alloc_zeroed(layout));
        count((runs, within));
        assert!((0..4096).all(|i| *zeroed.add(i) == 0), "alloc_zeroed gave a block with contents");
        allocator.dealloc(zeroed, layout);
    }

    // Four handler runs allocate and free once each, on top of the main flow's own calls: no method stands in for another.
    assert_eq!(CALLS.get(), [1 + 4, 2 + 4, 1, 1]);
    inside
}

#[test]
fn deferred_backend_keeps_the_handler_out_of_every_method() {
    static MASKED: Masked<Interrupted> = Masked::new(Interrupted);
    let before = sigsafe_core::deferrals();
    assert_eq!(every_method(&MASKED), 0);
    assert_eq!(sigsafe_core::deferrals() - before, 4, "each of the four was held back");
}

#[test]
fn full_backend_keeps_the_handler_out_of_every_method() {
    static MASKED: Masked<Interrupted, FullSyscall> = Masked::with_backend(Interrupted);
    assert_eq!(every_method(&MASKED), 0);
}

#[test]
fn control_without_masked_the_handler_runs_inside_every_method() {
    static BARE: Interrupted = Interrupted;
    assert_eq!(every_method(&BARE), 4);
}

#[test]
fn errno_is_what_the_wrapped_allocator_left() {
    fn check<B: Backend>(masked: &'static Masked<Interrupted, B>) {
        install();
        UNDER_TEST.set(Some(masked));
        // SAFETY: the layout is not empty, and the block goes back once.
        unsafe {
            let (block, runs, _) = interrupted(|| {
                let block = masked.alloc(LAYOUT);
                assert_eq!(errno().load(SeqCst), ERRNO_OF_METHOD as u32, "{}", B::NAME);
                block
            });
            assert_eq!(runs, 1);
            masked.dealloc(block, LAYOUT);
        }
    }
    static DEFERRED: Masked<Interrupted> = Masked::new(Interrupted);
    static FULL: Masked<Interrupted, FullSyscall> = Masked::with_backend(Interrupted);
    check(&DEFERRED);
    check(&FULL);
}

#[test]
fn a_region_around_the_call_still_holds_the_signal_back_afterwards() {
    static MASKED: Masked<Interrupted> = Masked::new(Interrupted);
    static BLOCK: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    install();
    UNDER_TEST.set(Some(&MASKED));
    let ((), runs, inside) = interrupted(|| {
        sigsafe_core::critical(|_| {
            // SAFETY: the layout is not empty.
            BLOCK.store(unsafe { MASKED.alloc(LAYOUT) }, SeqCst);
            assert_eq!(RUNS.get(), 0, "the allocator's region ended, the outer one had not");
        });
    });
    assert_eq!((runs, inside), (1, 0));
    // SAFETY: the block came from `MASKED` above and goes back once.
    unsafe { MASKED.dealloc(BLOCK.load(SeqCst), LAYOUT) };
}

#[test]
fn the_wrapping_comes_off_and_shows_its_backend() {
    let mut masked = Masked::<System, DeferredCounter>::default();
    let _: &System = masked.get_ref();
    let _: &mut System = masked.get_mut();
    let shown = format!("{masked:?}");
    assert!(shown.contains("System") && shown.contains(DeferredCounter::NAME), "{shown}");
    let _: System = masked.into_inner();
}
