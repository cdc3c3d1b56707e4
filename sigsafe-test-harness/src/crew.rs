//! The working threads of a case: kept for the whole storm, or replaced all through it.
//!
//! Where threads are replaced, each number has a keeper, a thread that waits for the one at work, counts what was under way to it as lost,
//! and starts the next, which takes over its blocks and its handler's graph. A working thread that ends in a storm has its signal
//! unblocked to the last, so that handlers run while its cache is given back, and after.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::futex;
use crate::plan::Plan;
use crate::shared::{Shared, ThreadState, count};
use crate::subject::parts::Parts;
use crate::worker::{Worker, work};
use crate::workload::MainFlow;

/// What the threads of a case count down on and wait for.
pub(crate) struct Gates {
    pub(crate) ready: AtomicU32,
    pub(crate) done: AtomicU32,
}

/// Starts the threads of `plan`. All of them begin with the signal blocked.
///
/// # Errors
///
/// The failure to start a thread.
pub(crate) fn start(plan: &Plan, parts: Parts, shared: &'static Shared, gates: &'static Gates) -> io::Result<()> {
    for index in 0..plan.threads {
        let plan = plan.clone();
        let worker: &Worker = Box::leak(Box::new(Worker::new(&plan, parts, shared, index)));
        let flow = MainFlow::new(&plan, parts, index);
        let (name, body): (_, Box<dyn FnOnce() + Send>) = if plan.churn {
            (format!("keeper-{index}"), Box::new(move || replace_over_and_over(&plan, worker, flow, gates)))
        } else {
            (format!("worker-{index}"), Box::new(move || work_for_good(&plan, worker, flow, gates)))
        };
        thread::Builder::new().name(name).spawn(body)?;
    }
    Ok(())
}

/// One thread for the whole storm. It never returns: a thread that ends calls into libc's allocator, outside the subject.
fn work_for_good(plan: &Plan, worker: &'static Worker, mut flow: MainFlow, gates: &'static Gates) {
    work(plan, worker, &mut flow, gates, 0);
    pass(&gates.done);
    loop {
        thread::park();
    }
}

/// One thread after the other, until one has come to the end of the storm.
fn replace_over_and_over(plan: &Plan, worker: &'static Worker, mut flow: MainFlow, gates: &'static Gates) {
    for generation in 0.. {
        let of_thread = plan.clone();
        let body = move || {
            let over = work(&of_thread, worker, &mut flow, gates, generation);
            (flow, over)
        };
        let started = thread::Builder::new().name(format!("worker-{}", worker.index)).spawn(body);
        // A panic of the thread has ended the process already.
        let Ok(Ok((handed_over, over))) = started.map(thread::JoinHandle::join) else {
            sigsafe_core::fatal(&["cannot replace a thread"]);
        };
        if over {
            return pass(&gates.done);
        }
        flow = handed_over;
        let counters = worker.counters;
        counters.stop_working(ThreadState::Absent);
        let [sent, handled] = [&counters.sent, &counters.completions].map(|counter| counter.load(Ordering::Relaxed));
        counters.lost.store(sent - handled, Ordering::Relaxed);
        count(&counters.ended);
    }
}

/// Counts one thread through a gate.
pub(crate) fn pass(gate: &AtomicU32) {
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
