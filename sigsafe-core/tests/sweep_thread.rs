//! A signal at every instruction of what changes a thread: `init` and its undoing, `attach` and `detach`, `spawn` and `spawn_raw`; for
//! the last two also at every instruction of the new thread up to its caller's code.
//!
//! Each in and outside regions and handlers. Afterwards: masks and alternate stacks are what the caller asked for, in the kernel and in
//! the library; the signal was handled once, where it was sent to; and each handler found the mask of its thread, and an alternate
//! stack if the thread was to have one by then.
//!
//! `SIGSAFE_SWEEP_STRIDE=N` sends the signal at every Nth boundary, counted through all stories.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod step;
mod trace;

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, in_region, mask, thread};
use sigsafe_test_harness::isolate::isolated_within;
use step::layers::{self, Closure, EARLIER, Earlier, Full, Layer, Over, within};
use step::watch::{holds_back, kernel_mask, set_kernel_mask, stride};
use trace::{Script, ready, swept};

const LIMIT: Duration = Duration::from_secs(1800);

const RT: Signal = match Signal::real_time(2) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+2 exists"),
};
/// Its handler is immediate.
const IMMEDIATE: Signal = Signal::USR2;
/// PROF is essential, the others are not.
const KINDS: [Signal; 5] = [Signal::USR1, Signal::PROF, RT, IMMEDIATE, Signal::SEGV];

const CONTEXTS: [&[Layer]; 5] = [&[], &[Closure], &[Closure, Earlier], &[Full], &[Closure, Earlier, Over]];

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operation {
    Init,
    Undo,
    Attach,
    Detach,
    Spawn,
    SpawnRaw,
}

use Operation::{Attach, Detach, Init, Spawn, SpawnRaw, Undo};

#[derive(Copy, Clone, Debug)]
struct Story {
    operation: Operation,
    layers: &'static [Layer],
    /// The thread's mask before the first layer.
    mask: SigSet,
}

/// What `init` is given.
const CAPTURED: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::PROF).with(Signal::WINCH);
/// Blocked by the thread before everything; PROF is essential.
const BLOCKED: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::PROF).with(Signal::USR1);

fn stories(operations: &[Operation]) -> Vec<Story> {
    let mut stories = Vec::new();
    for &operation in operations {
        for layers in CONTEXTS {
            // A foreign thread may be attached in a handler, where nothing but faults is unblocked: another story.
            for mask in [SigSet::EMPTY, BLOCKED] {
                stories.push(Story { operation, layers, mask });
            }
        }
    }
    stories
}

/// The number of handler runs by the performer and by the new thread.
static HANDLED: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static EARLIER_HANDLED: AtomicU32 = AtomicU32::new(0);
/// From the operation's first instruction to the end of what it has begun.
static INSIDE: AtomicBool = AtomicBool::new(false);
/// The same on a new thread: until it makes its own mask.
static NEW_AS_MADE: AtomicBool = AtomicBool::new(false);
/// What a new thread has found: its mask, and whether it has an alternate stack.
static NEW_MASK: AtomicU64 = AtomicU64::new(0);
static NEW_STACK: AtomicBool = AtomicBool::new(false);
/// What handlers found wrong.
static WRONG: AtomicU32 = AtomicU32::new(0);
const RAN_IN_REGION: u32 = 1;
const NO_ALTERNATE_STACK: u32 = 2;
const MASK_OF_HANDLER: u32 = 4;
/// What a handler may find blocked in the code that it interrupts on the performer: one of these.
static MAY_FIND: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// What it has to find on a new thread.
static IN_NEW: AtomicU64 = AtomicU64::new(0);

fn alternate_stack() -> (usize, usize, i32) {
    // SAFETY: plain data for which zero is a value.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: reads the setting into a live value.
    unsafe { libc::sigaltstack(null(), &raw mut stack) };
    (stack.ss_sp.addr(), stack.ss_size, stack.ss_flags)
}

fn on_performer() -> bool {
    // SAFETY: the calls take nothing.
    unsafe { libc::gettid() == libc::getpid() }
}

fn wrong_if(wrong: bool, bit: u32) {
    if wrong {
        WRONG.fetch_or(bit, SeqCst);
    }
}

fn on_signal(delivery: &Delivery<'_>) {
    let signal = delivery.signal();
    let performer = on_performer();
    HANDLED[usize::from(!performer)].fetch_add(1, SeqCst);
    wrong_if(in_region() && signal != IMMEDIATE, RAN_IN_REGION);
    let Some(context) = delivery.ucontext() else { return };
    // SAFETY: the kernel's frame holds eight bytes of mask there.
    let below = unsafe { (&raw const (*context.as_ptr()).uc_sigmask).cast::<u64>().read() };
    let on_stack = alternate_stack().2 & libc::SS_ONSTACK != 0;
    if performer && INSIDE.load(SeqCst) {
        let found = MAY_FIND.iter().map(|mask| mask.load(SeqCst));
        // In a region the kernel's mask is more, and so it is around a fault while a thread is made.
        let known = in_region() || signal == Signal::SEGV;
        wrong_if(!known && !found.into_iter().any(|mask| mask == below), MASK_OF_HANDLER);
        // What was blocked before and is unblocked now: the alternate stack was to come first.
        wrong_if(MAY_FIND[0].load(SeqCst) & SigSet::from(signal).bits() != 0 && !on_stack, NO_ALTERNATE_STACK);
    } else if !performer && NEW_AS_MADE.load(SeqCst) && signal != Signal::SEGV {
        // Faults are not blocked at any time.
        wrong_if(!on_stack, NO_ALTERNATE_STACK);
        wrong_if(below != IN_NEW.load(SeqCst), MASK_OF_HANDLER);
    }
}

fn on_earlier(_: &Delivery<'_>) {
    EARLIER_HANDLED.fetch_add(1, SeqCst);
}

/// What has to hold, and what it is called.
type Checks = Vec<(bool, &'static str)>;
type Join = Box<dyn FnOnce()>;

impl Story {
    /// The logical mask in which the operation begins.
    fn before(&self) -> SigSet {
        layers::mask_within(self.layers, self.mask)
    }

    /// The logical mask while the thread is set up, or of the new one.
    fn prepared(&self) -> SigSet {
        match self.operation {
            Init | Undo => CAPTURED.difference(SigSet::ESSENTIAL),
            // In a handler nothing is unblocked but faults, and none is blocked here.
            Attach | Detach if layers::in_handler(self.layers) => self.before(),
            Attach | Detach | Spawn | SpawnRaw => self.before().difference(SigSet::ESSENTIAL),
        }
    }

    fn makes_thread(&self) -> bool {
        matches!(self.operation, Spawn | SpawnRaw)
    }

    /// Runs it in the tracee. What is wrong.
    fn tell(&self, script: &Script, signal: Option<Signal>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        HANDLED.iter().chain([&EARLIER_HANDLED, &WRONG]).for_each(|count| count.store(0, SeqCst));
        let (before, prepared) = (self.before(), self.prepared());
        let possible = if self.makes_thread() { [before; 3] } else { [before, prepared, before | prepared] };
        for (word, mask) in MAY_FIND.iter().zip(possible) {
            word.store(mask.bits(), SeqCst);
        }
        IN_NEW.store(prepared.bits(), SeqCst);
        NEW_AS_MADE.store(true, SeqCst);
        mask::set(self.mask);
        let performed = RefCell::new((Vec::new(), None));
        within(self.layers, 0, &|| *performed.borrow_mut() = self.perform());
        let (found, thread) = performed.into_inner();
        check(!found.is_empty(), "the operation was not reached");
        for (right, what) in found {
            check(right, what);
        }
        check(kernel_mask() == self.mask.bits() && mask::current() == self.mask, "the mask at the end");
        check(alternate_stack().2 == libc::SS_DISABLE, "the alternate stack at the end");
        if let Some(thread) = thread {
            thread();
            check(NEW_MASK.load(SeqCst) == prepared.bits(), "the new thread's mask");
            check(NEW_STACK.load(SeqCst), "the new thread's alternate stack");
        }
        let sent_to = script.sent_to.load(SeqCst) as usize;
        let runs = || [HANDLED[0].load(SeqCst), HANDLED[1].load(SeqCst)];
        if let Some(signal) = signal
            && sent_to == 1
            && !self.mask.contains(signal)
        {
            check(runs() == [1, 0], "not handled by the end");
        }
        mask::set(SigSet::EMPTY);
        check(runs() == [u32::from(sent_to == 1), u32::from(sent_to == 2)], "lost, doubled, or handled elsewhere");
        check(EARLIER_HANDLED.load(SeqCst) == u32::from(self.layers.contains(&Earlier)), "the earlier signal is lost");
        check(kernel_mask() == 0 && mask::pending().is_empty() && !holds_back(), "something is left");
        set_kernel_mask(0);
        let bits = WRONG.load(SeqCst);
        check(bits & RAN_IN_REGION == 0, "a handler ran in a region");
        check(bits & NO_ALTERNATE_STACK == 0, "a handler ran without an alternate stack");
        check(bits & MASK_OF_HANDLER == 0, "a handler ran in the wrong mask");
        wrong
    }

    /// In the layers: the operation, and what is seen right behind it. A new thread is to be joined by calling what is returned.
    fn perform(&self) -> (Checks, Option<Join>) {
        let kernel_before = kernel_mask();
        INSIDE.store(true, SeqCst);
        let mut joins: Option<Join> = None;
        let during = || (mask::current() == self.prepared(), alternate_stack().2 & libc::SS_DISABLE == 0);
        let (mask_during, stack_during) = match self.operation {
            Init => {
                let init = swept(|| thread::init(CAPTURED)).unwrap();
                let during = during();
                drop(init);
                during
            }
            Undo => {
                let init = thread::init(CAPTURED).unwrap();
                let during = during();
                swept(|| drop(init));
                during
            }
            Attach => {
                let attached = swept(thread::attach).unwrap();
                let during = during();
                attached.detach();
                during
            }
            Detach => {
                let attached = thread::attach().unwrap();
                let during = during();
                swept(|| attached.detach());
                during
            }
            Spawn => {
                let thread = swept(spawn_std);
                joins = Some(thread);
                (true, true)
            }
            SpawnRaw => {
                // SAFETY: the routine returns and dereferences nothing.
                let thread = swept(|| unsafe { thread::spawn_raw(new_thread, null_mut(), None) }).unwrap();
                // SAFETY: joined once.
                joins = Some(Box::new(move || assert_eq!(unsafe { libc::pthread_join(thread, null_mut()) }, 0)));
                (true, true)
            }
        };
        INSIDE.store(false, SeqCst);
        let checks = vec![
            (mask_during, "the mask of a prepared thread"),
            (stack_during, "the alternate stack of a prepared thread"),
            (mask::current() == self.before(), "the mask behind the operation"),
            // In a region what is captured meanwhile is blocked besides; what a full mask has blocked stays so.
            (!kernel_mask() & kernel_before == 0 || !self.makes_thread(), "the kernel's mask behind a creation"),
            (layers::in_region(self.layers) || kernel_mask() == self.before().bits(), "the kernel's mask behind the operation"),
            (alternate_stack().2 == libc::SS_DISABLE, "the alternate stack behind the operation"),
        ];
        (checks, joins)
    }
}

extern "C" fn new_thread(_: *mut c_void) -> *mut c_void {
    ready();
    NEW_MASK.store(kernel_mask(), SeqCst);
    NEW_STACK.store(alternate_stack().2 & libc::SS_DISABLE == 0, SeqCst);
    NEW_AS_MADE.store(false, SeqCst);
    // What the thread has blocked and was sent is handled before it ends.
    mask::set(SigSet::EMPTY);
    null_mut()
}

fn spawn_std() -> Join {
    let thread = thread::spawn(|| _ = new_thread(null_mut())).unwrap();
    Box::new(move || thread.join().unwrap())
}

/// Runs the stories that the tracer asks for.
fn tracee(script: &Script, stories: &[Story]) {
    // One arena: in which of several a new thread finds its memory depends on when the one before has ended.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number before there are threads.
    unsafe {
        assert_eq!(libc::mallopt(libc::M_ARENA_MAX, 1), 1);
    }
    // SAFETY: plain data for which zero is a value.
    let mut none: libc::stack_t = unsafe { zeroed() };
    none.ss_flags = libc::SS_DISABLE;
    // SAFETY: takes away the stack that the test runner's thread has from std.
    assert_eq!(unsafe { libc::sigaltstack(&raw const none, null_mut()) }, 0);
    layers::install();
    for signal in KINDS {
        let handler = Handler::new(on_signal).on_stack(true).immediate(signal == IMMEDIATE);
        // SAFETY: the handler touches atomics and asks the kernel.
        unsafe { handler.install(signal).unwrap() };
    }
    // SAFETY: as above.
    unsafe { Handler::new(on_earlier).install(EARLIER).unwrap() };
    while let Some((index, number)) = script.next() {
        let wrong = stories[index].tell(script, Signal::new(number).ok());
        if !wrong.is_empty() {
            let failures = script.failures.fetch_add(1, SeqCst);
            if failures < 10 {
                println!("{wrong:?}");
            }
        }
    }
}

fn sweep(operations: &[Operation], usual_stride: u64) {
    let stories = stories(operations);
    trace::sweep(&stories, &KINDS, stride(usual_stride), true, |script| tracee(script, &stories));
}

#[test]
fn init_and_its_undoing_at_every_instruction() {
    isolated_within("init_and_its_undoing_at_every_instruction", LIMIT, || sweep(&[Init, Undo], 3));
}

#[test]
fn attach_and_detach_at_every_instruction() {
    isolated_within("attach_and_detach_at_every_instruction", LIMIT, || sweep(&[Attach, Detach], 3));
}

#[test]
fn spawn_at_every_instruction() {
    isolated_within("spawn_at_every_instruction", LIMIT, || sweep(&[Spawn], 101));
}

#[test]
fn spawn_raw_at_every_instruction() {
    isolated_within("spawn_raw_at_every_instruction", LIMIT, || sweep(&[SpawnRaw], 31));
}
