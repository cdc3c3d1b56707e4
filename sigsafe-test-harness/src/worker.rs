//! A working thread of a case: its main flow, and the handler that interrupts it.
//!
//! Both reach the same [`Worker`], and each touches its own half of it. The handler finds it through a thread-local word that
//! is const-initialised and has no destructor: in an executable that is one load relative to the thread pointer, with nothing
//! that could be initialised on first use.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use sigsafe_core::handler::Delivery;
use sigsafe_core::{SigSet, Signal};

use crate::collector::Graph;
use crate::driver::Driver;
use crate::driver::timer::{Alarm, all_handled};
use crate::fault::Fault;
use crate::futex;
use crate::plan::Plan;
use crate::rng::Generator;
use crate::shared::{Phase, Shared, ThreadCounters, ThreadState, count};
use crate::subject::parts::Parts;
use crate::workload::MainFlow;
use crate::workload::ledger::Ledger;

/// The signal of every storm.
pub(crate) const SIGNAL: Signal = Signal::PROF;
/// The exit status of a child that has reported a fault.
pub(crate) const EXIT_CORRUPTED: i32 = 3;
/// The handler's stack: far more than the collector and the kernel's frames take.
const SIGNAL_STACK_BYTES: usize = 256 << 10;

thread_local! {
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// What one working thread and its handler share.
pub(crate) struct Worker {
    index: u32,
    shared: &'static Shared,
    counters: &'static ThreadCounters,
    alarm: Option<Alarm>,
    /// The process's own timer does not say how many signals it sent: those that arrive are counted instead.
    counts_sent: bool,
    /// The handler's half. The thread's own code touches it only when it has blocked the signal for good.
    handler: UnsafeCell<HandlerState>,
}

struct HandlerState {
    graph: Graph,
    ledger: Option<Ledger>,
}

/// What the threads of a case count down on and wait for.
pub(crate) struct Gates {
    pub(crate) ready: AtomicU32,
    pub(crate) done: AtomicU32,
}

/// The whole life of a working thread. It starts with the signal blocked, and never returns: a thread that exits would
/// call into libc's allocator, outside the subject.
pub(crate) fn work(plan: &Plan, parts: Parts, shared: &'static Shared, gates: &'static Gates, index: u32) -> ! {
    let worker = match Worker::new(plan, parts, shared, index) {
        Ok(worker) => Box::leak(Box::new(worker)),
        Err(error) => {
            eprintln!("cannot prepare thread {index}: {error}");
            std::process::abort();
        }
    };
    let mut flow = MainFlow::new(plan, parts, index);
    WORKER.set(ptr::from_ref(worker));
    let counters = worker.counters;
    // SAFETY: `gettid` has no precondition.
    counters.tid.store(unsafe { libc::gettid() } as u32, Ordering::Relaxed);
    pass(&gates.ready);

    shared.wait_out(Phase::Starting);
    counters.set_state(ThreadState::Working);
    if let Some(alarm) = &worker.alarm {
        alarm.arm(shared, counters);
    }
    if plan.rate_hz > 0 {
        sigsafe_core::mask::unblock(SigSet::EMPTY.with(SIGNAL));
    }
    while !(shared.phase() == Phase::Draining && all_handled(counters)) {
        worker.expect(false, flow.step());
        count(&counters.operations);
    }
    // No signal is on its way to this thread, and its timer is not armed again; one that the process's timer had left behind
    // stays blocked.
    sigsafe_core::mask::block(SigSet::EMPTY.with(SIGNAL));
    worker.expect(false, flow.finish());
    // SAFETY: the handler, the only other user, does not run any more on this thread.
    worker.expect(false, unsafe { (*worker.handler.get()).graph.drain() });
    counters.set_state(ThreadState::Done);
    pass(&gates.done);
    loop {
        std::thread::park();
    }
}

/// The handler of every subject: a collection, and in workloads with locks a transaction under the same locks as the main
/// flow's. Signal context.
pub(crate) fn on_signal(_delivery: &Delivery<'_>) {
    // SAFETY: null on threads that do not work; else the leaked worker of this thread, which lives as long as the process.
    let Some(worker) = (unsafe { WORKER.get().as_ref() }) else { return };
    let counters = worker.counters;
    count(&counters.entries);
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
    counters.deferrals.store(sigsafe_core::deferrals(), Ordering::Relaxed);
    if let Some(alarm) = &worker.alarm {
        alarm.arm(worker.shared, counters);
    }
    count(&counters.completions);
}

impl Worker {
    /// Prepares the calling thread: its signal stack, its timer, and all the memory of its handler.
    fn new(plan: &Plan, parts: Parts, shared: &'static Shared, index: u32) -> io::Result<Worker> {
        give_signal_stack()?;
        // The main flow has the even streams.
        let stream = 2 * u64::from(index) + 1;
        let alarm = (plan.driver == Driver::Timer && plan.rate_hz > 0)
            .then(|| Alarm::new(plan.period_ns(), Generator::new(plan.seed.rotate_left(32), stream)))
            .transpose()?;
        let graph = Graph::new(parts.heap, Generator::new(plan.seed, stream));
        let ledger = plan.workload.locks().then(|| Ledger::new(parts.locks, Generator::new(!plan.seed, stream)));
        Ok(Worker {
            index,
            shared,
            counters: &shared.threads[index as usize],
            alarm,
            counts_sent: !plan.driver.is_per_thread(),
            handler: UnsafeCell::new(HandlerState { graph, ledger }),
        })
    }

    /// Ends the process when a check has failed, after telling the watchdog. Async-signal-safe.
    fn expect(&self, in_handler: bool, result: Result<(), Fault>) {
        let Err(fault) = result else { return };
        self.shared.report(self.index, in_handler, fault);
        // SAFETY: `_exit` has no precondition. Exit handlers would run on damaged data.
        unsafe { libc::_exit(EXIT_CORRUPTED) }
    }
}

/// Gives the calling thread a signal stack that is large enough for the collector: std's own is meant for one short handler.
fn give_signal_stack() -> io::Result<()> {
    // Leaked: the thread lives as long as the process.
    let stack = Box::leak(vec![0_u8; SIGNAL_STACK_BYTES].into_boxed_slice());
    let description = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory is this thread's for good, the description is live for the call, and a null pointer for the old one
    // is allowed. No handler runs on the old stack: the thread is in ordinary context.
    let result = unsafe { libc::sigaltstack(&raw const description, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Counts one thread through a gate.
fn pass(gate: &AtomicU32) {
    // Release: what the thread prepared is seen by whoever waits for the gate.
    gate.fetch_add(1, Ordering::Release);
    futex::wake(gate);
}

/// Waits until `threads` have passed a gate.
pub(crate) fn wait_for_all(gate: &AtomicU32, threads: u32) {
    loop {
        let passed = gate.load(Ordering::Acquire);
        if passed == threads {
            return;
        }
        futex::wait_while(gate, passed);
    }
}
