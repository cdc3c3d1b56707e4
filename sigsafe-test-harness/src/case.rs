//! One case, in the process that was started for it: the child's side.
//!
//! The child's first thread prepares everything, opens the storm, and waits until the watchdog ends it. It never allocates
//! between the two, nor does any thread but through the subject. Its last act in a good case is the success token.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_core::SigSet;

use crate::crew::{self, Gates, wait_for_all};
use crate::driver::{Driver, itimer, tgkill};
use crate::fault::{Fault, FaultKind};
use crate::plan::Plan;
use crate::process::now_ns;
use crate::rng::Generator;
use crate::shared::{Phase, Shared, SharedMap};
use crate::subject::parts::Parts;
use crate::worker::{EXIT_CORRUPTED, SIGNAL, install, verify};

static GATES: Gates = Gates { ready: AtomicU32::new(0), done: AtomicU32::new(0) };

/// Runs the case of `plan` in this process, which a watchdog has started with the shared block as descriptor `shared_fd`, and
/// ends the process.
///
/// # Errors
///
/// When the case cannot be prepared. The watchdog sees that as a crash, with the message.
pub(crate) fn run(plan: &Plan, shared_fd: RawFd) -> io::Result<std::convert::Infallible> {
    abort_on_panic();
    // SAFETY: the descriptor was inherited for this one use; nothing else in this process owns it.
    let file = unsafe { File::from_raw_fd(shared_fd) };
    let shared = SharedMap::open(&file)?.leak();
    // Every thread starts with the signal blocked; those that work open it themselves.
    sigsafe_core::mask::block(SigSet::EMPTY.with(SIGNAL));
    install(plan)?;

    let parts = Parts::of(plan.subject);
    crew::start(plan, parts, shared, &GATES)?;
    wait_for_all(&GATES.ready, plan.threads);
    let driver = Sender::prepare(plan, shared)?;
    shared.started_ns.store(now_ns(), Ordering::Relaxed);
    shared.advance(Phase::Starting, Phase::Running);
    driver.start(plan)?;

    shared.wait_out(Phase::Running);
    driver.stop();
    shared.advance(Phase::Stopping, Phase::Draining);
    wait_for_all(&GATES.done, plan.threads);
    let in_order = is_in_order(plan, parts, shared)?;
    if in_order {
        shared.succeed();
    }
    // SAFETY: `_exit` has no precondition. The threads are parked and stay so, or have ended: to end them all would be to leave the
    // subject for libc's own allocations.
    unsafe { libc::_exit(if in_order { 0 } else { EXIT_CORRUPTED }) }
}

/// Frees what flows have left for each other, and has the allocator check itself. What is wrong is reported, as of worker-0.
fn is_in_order(plan: &Plan, parts: Parts, shared: &'static Shared) -> io::Result<bool> {
    if let Some(tables) = parts.tables {
        // In a thread that ends, so that no block stays in its cache.
        let drain = thread::Builder::new().spawn(move || tables.drain(parts.heap))?;
        if let Ok(Err(fault)) = drain.join() {
            shared.report(0, false, fault);
            return Ok(false);
        }
    }
    if !plan.subject.is_own_allocator() {
        return Ok(true);
    }
    if !verify(shared, 0) {
        return Ok(false);
    }
    // Lists of blocks wait for caches; threads that are kept have some in theirs.
    SigSafeAlloc.purge();
    let found = if plan.churn { SigSafeAlloc.stats().blocks as u64 } else { 0 };
    if found != 0 {
        shared.report(0, false, Fault { kind: FaultKind::Lost, block: 0, size: 0, offset: 0, expected: 0, found });
    }
    Ok(found == 0)
}

/// What the first thread has to do for a driver. The timers are each thread's own.
enum Sender {
    None,
    Itimer,
    Tgkill(thread::JoinHandle<()>),
}

impl Sender {
    fn prepare(plan: &Plan, shared: &'static Shared) -> io::Result<Sender> {
        match plan.driver {
            _ if plan.rate_hz == 0 => Ok(Sender::None),
            Driver::Timer => Ok(Sender::None),
            Driver::Itimer => Ok(Sender::Itimer),
            Driver::Tgkill => {
                let (threads, period_ns) = (plan.threads as usize, plan.period_ns());
                let generator = Generator::new(plan.seed, u64::MAX);
                let body = move || {
                    shared.wait_out(Phase::Starting);
                    tgkill::run(shared, threads, period_ns, generator);
                };
                thread::Builder::new().name("driver".into()).spawn(body).map(Sender::Tgkill)
            }
        }
    }

    fn start(&self, plan: &Plan) -> io::Result<()> {
        match self {
            Sender::Itimer => itimer::start(plan.period_ns()),
            Sender::None | Sender::Tgkill(_) => Ok(()),
        }
    }

    /// Returns when no further signal will be sent.
    fn stop(self) {
        match self {
            Sender::None => {}
            Sender::Itimer => itimer::stop(),
            // The thread has the signal blocked and ends by itself. A panic in it has ended the process already.
            Sender::Tgkill(thread) => drop(thread.join()),
        }
    }
}

/// A panic anywhere in the child ends it at once, so that the watchdog tells of a crash with the panic's message.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}
