//! A working thread of a case: its main flow, and the handler that interrupts it.
//!
//! Both reach the same [`Worker`], and each touches its own half of it. The handler finds it through a thread-local word that
//! is const-initialised and has no destructor: in an executable that is one load relative to the thread pointer, with nothing
//! that could be initialised on first use, and it is there to the thread's last instruction.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ptr;
use std::sync::atomic::Ordering;

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal};

use crate::collector::Graph;
use crate::crew::{Gates, pass};
use crate::driver::Driver;
use crate::driver::timer::Alarm;
use crate::exchange::{Exchange, Flow};
use crate::fault::{Fault, FaultKind};
use crate::forking::check_in_child;
use crate::plan::Plan;
use crate::rng::Generator;
use crate::shared::{Phase, Shared, ThreadCounters, ThreadState, count};
use crate::stack;
use crate::subject::parts::Parts;
use crate::workload::MainFlow;
use crate::workload::ledger::Ledger;

/// The signal of every storm.
pub(crate) const SIGNAL: Signal = Signal::PROF;
/// The exit status of a child that has reported a fault.
pub(crate) const EXIT_CORRUPTED: i32 = 3;
/// Operations of a thread that is to be replaced, from its start to its end.
const LIFE: (u32, u32) = (20, 1500);
/// Operations of a thread between two forks.
const BETWEEN_FORKS: u64 = 5000;

thread_local! {
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// What the threads that work under one number, one after the other, share with their handlers.
pub(crate) struct Worker {
    pub(crate) index: u32,
    shared: &'static Shared,
    pub(crate) counters: &'static ThreadCounters,
    /// The process's own timer does not say how many signals it sent: those that arrive are counted instead.
    counts_sent: bool,
    /// The handler's half. The thread's own code touches it only while it has the signal blocked.
    handler: UnsafeCell<HandlerState>,
}

// SAFETY: what is not atomic is in the handler's half, which only the thread at work under this number touches; another one is started
// when that one has ended.
unsafe impl Sync for Worker {}

struct HandlerState {
    graph: Graph,
    ledger: Option<Ledger>,
    exchange: Option<Exchange>,
    /// The thread's own timer.
    alarm: Option<Alarm>,
    /// What threads that have ended counted.
    deferrals_before: u64,
}

/// Installs the handler of the storm.
///
/// # Errors
///
/// The failure of `sigaction`.
pub(crate) fn install(plan: &Plan) -> io::Result<()> {
    if plan.subject.is_managed() {
        // SAFETY: the handler touches its own state, atomics in shared memory, and the subject, whose fitness for that is what
        // the case is to find out.
        return unsafe { Handler::new(on_delivery).restart(true).on_stack(true).install(SIGNAL) }
            .map(drop)
            .map_err(|error| io::Error::other(format!("cannot install the handler: {error}")));
    }
    // SAFETY: the struct is made of integers and pointers; all zeros is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_plain_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the action is live for the call, and its handler has the signature that SA_SIGINFO asks for; as above for what it does.
    let result = unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The life of a working thread, which starts with the signal blocked. Whether it has seen the end of the storm; otherwise another
/// one is to take its place, and its signal is unblocked still.
pub(crate) fn work(plan: &Plan, worker: &'static Worker, flow: &mut MainFlow, gates: &Gates, generation: u64) -> bool {
    if let Err(error) = worker.begin(plan, generation) {
        eprintln!("cannot prepare thread {}: {error}", worker.index);
        std::process::abort();
    }
    let counters = worker.counters;
    if generation == 0 {
        pass(&gates.ready);
        worker.shared.wait_out(Phase::Starting);
    }
    counters.set_state(ThreadState::Working);
    worker.arm();
    if plan.rate_hz > 0 {
        sigsafe_core::mask::unblock(SigSet::EMPTY.with(SIGNAL));
    }
    let mut generator = Generator::new(plan.seed.rotate_left(8), generation << 8 | u64::from(worker.index));
    let mut left = if plan.churn { generator.between(LIFE.0, LIFE.1) } else { u32::MAX };
    while !(worker.shared.phase() == Phase::Draining && counters.all_handled()) {
        if plan.churn && worker.shared.phase() == Phase::Running {
            left = left.saturating_sub(1);
            if left == 0 {
                // Every other thread leaves its blocks to the next.
                if generation.is_multiple_of(2) {
                    worker.expect(false, flow.free_all());
                }
                return false;
            }
        }
        worker.expect(false, flow.step());
        count(&counters.operations);
        if plan.fork && counters.operations.load(Ordering::Relaxed).is_multiple_of(BETWEEN_FORKS) {
            worker.fork(plan, flow);
        }
    }
    // No signal is on its way to this thread, and its timer is not armed again; one that the process's timer had left behind
    // stays blocked.
    sigsafe_core::mask::block(SigSet::EMPTY.with(SIGNAL));
    worker.expect(false, flow.finish());
    // SAFETY: the handler, the only other user, does not run any more on this thread.
    worker.expect(false, unsafe { (*worker.handler.get()).graph.drain() });
    counters.set_state(ThreadState::Done);
    true
}

/// The handler of what sigsafe manages. Signal context.
fn on_delivery(_delivery: &Delivery<'_>) {
    on_signal(true);
}

/// The handler that plain `sigaction` has installed. Signal context.
extern "C" fn on_plain_signal(_signal: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the address of the thread's own `errno`, which outlives the handler.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    on_signal(false);
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// What the handler of every subject does: a collection, in workloads with locks a transaction under the same locks as the main
/// flow's, and for some subjects an exchange of blocks with the main flow. Signal context.
fn on_signal(managed: bool) {
    let inside = sigsafe_alloc::in_allocator();
    // SAFETY: null on threads that do not work; else the leaked worker of this thread, which lives as long as the process.
    let Some(worker) = (unsafe { WORKER.get().as_ref() }) else { return };
    let counters = worker.counters;
    count(&counters.entries);
    if inside {
        count(&counters.inside);
        if managed {
            // It interrupts no foreign handler, so that nothing excuses it.
            worker.expect(true, Err(Fault { kind: FaultKind::Inside, block: 0, size: 0, offset: 0, expected: 0, found: 0 }));
        }
    }
    if worker.counts_sent {
        count(&counters.sent);
    }
    // SAFETY: the main flow leaves this half alone while the signal is unblocked, and the handler does not interrupt itself:
    // its signal is blocked while it runs.
    let state = unsafe { &mut *worker.handler.get() };
    worker.expect(true, state.graph.collect());
    if let Some(ledger) = &mut state.ledger {
        worker.expect(true, ledger.transact());
    }
    if let Some(exchange) = &mut state.exchange {
        worker.expect(true, exchange.turn().map(drop));
    }
    counters.deferrals.store(state.deferrals_before + sigsafe_core::deferrals(), Ordering::Relaxed);
    if let Some(alarm) = &state.alarm {
        alarm.arm(worker.shared, counters);
    }
    count(&counters.completions);
}

impl Worker {
    /// Makes all the memory of the handlers of thread `index`.
    pub(crate) fn new(plan: &Plan, parts: Parts, shared: &'static Shared, index: u32) -> Worker {
        // The main flow has the even streams.
        let stream = 2 * u64::from(index) + 1;
        let state = HandlerState {
            graph: Graph::new(parts.heap, Generator::new(plan.seed, stream)),
            ledger: plan.workload.locks().then(|| Ledger::new(parts.locks, Generator::new(!plan.seed, stream))),
            exchange: parts.tables.map(|tables| {
                Exchange::new(tables, parts.heap, Flow::Handler, index, plan.threads, Generator::new(plan.seed.rotate_left(16), stream))
            }),
            alarm: None,
            deferrals_before: 0,
        };
        let (counters, counts_sent) = (&shared.threads[index as usize], !plan.driver.is_per_thread());
        Worker { index, shared, counters, counts_sent, handler: UnsafeCell::new(state) }
    }

    /// Prepares the calling thread, which has the signal blocked: its signal stack, its timer, and the way to this worker.
    fn begin(&self, plan: &Plan, generation: u64) -> io::Result<()> {
        stack::give(self.index)?;
        // SAFETY: the signal is blocked, and the thread that had this half has ended.
        let state = unsafe { &mut *self.handler.get() };
        if plan.driver == Driver::Timer && plan.rate_hz > 0 {
            let stream = generation << 8 | u64::from(self.index);
            state.alarm = Some(Alarm::new(plan.period_ns(), Generator::new(plan.seed.rotate_left(32), stream))?);
        }
        state.deferrals_before = self.counters.deferrals.load(Ordering::Relaxed);
        WORKER.set(ptr::from_ref(self));
        // SAFETY: `gettid` has no precondition.
        self.counters.tid.store(unsafe { libc::gettid() } as u32, Ordering::Relaxed);
        Ok(())
    }

    /// Arms the thread's timer for its first signal, which is still blocked.
    fn arm(&self) {
        // SAFETY: the signal is blocked.
        if let Some(alarm) = unsafe { &(*self.handler.get()).alarm } {
            alarm.arm(self.shared, self.counters);
        }
    }

    /// Forks a child that goes on with what it inherits: allocates, frees, checks every block that was this thread's, and, where no other
    /// thread can have been in the middle of an operation, has the allocator check itself.
    fn fork(&self, plan: &Plan, flow: &mut MainFlow) {
        let body = || {
            // SAFETY: no signal comes to the child, and none was being handled on the thread that has forked.
            let graph = unsafe { &mut (*self.handler.get()).graph };
            let result = flow.go_on_in_child().and_then(|()| graph.drain());
            if let Err(fault) = result {
                self.shared.report(self.index, false, fault);
                return false;
            }
            !(plan.subject.is_own_allocator() && plan.threads == 1) || verify(self.shared, self.index)
        };
        let forked = check_in_child(body);
        if forked == Ok(true) {
            count(&self.counters.forks);
        }
        self.expect(false, forked.map(drop));
    }

    /// Ends the process when a check has failed, after telling the watchdog. Async-signal-safe.
    fn expect(&self, in_handler: bool, result: Result<(), Fault>) {
        let Err(fault) = result else { return };
        self.shared.report(self.index, in_handler, fault);
        // SAFETY: `_exit` has no precondition. Exit handlers would run on damaged data.
        unsafe { libc::_exit(EXIT_CORRUPTED) }
    }
}

/// Has `SigSafeAlloc` check itself, with nobody at work. What it finds is reported.
pub(crate) fn verify(shared: &Shared, thread: u32) -> bool {
    let Err(violation) = SigSafeAlloc.verify() else { return true };
    let block = violation.address as u64;
    let fault = Fault { kind: FaultKind::Invariant, block, size: 0, offset: 0, expected: 0, found: 0 };
    shared.report_text(thread, fault, violation.what);
    false
}
