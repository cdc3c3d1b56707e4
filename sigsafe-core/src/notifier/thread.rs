//! The notifier's thread: it reads the pipe, hands each signal to the subscriptions, and makes the changes.
//!
//! Runs in ordinary thread context. It is started by the first subscription and lives as long as the process.
//!
//! What is subscribed is let in while it waits, by `ppoll`, and the handler's mask has everything else wait: one signal comes, is
//! handed out, and then the next. So what is faster than the callbacks waits in the kernel and is not lost for want of room in the pipe.
//! And a change needs no change of the mask: where it is made, nothing subscribed is let in.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, null};
use core::sync::atomic::Ordering;

use super::NotifyError;
use super::node::{Callback, Node, Sink};
use super::pipe::{Record, admit};
use super::relay::HANDLER;
use super::state::{Locked, State};
use crate::fatal;
use crate::handler::InstallError;
use crate::mask;
use crate::siginfo::SigInfo;
use crate::signal::Signal;
use crate::sigset::SigSet;
use crate::thread;

/// What the thread never blocks, besides what is subscribed: what every thread takes, faults, and libc's own.
const ALWAYS_OPEN: SigSet = SigSet::ESSENTIAL.union(SigSet::SYNCHRONOUS).union(SigSet::RESERVED);

/// Records that are read at once.
const BATCH: usize = 16;

/// Starts the thread.
pub(super) fn start(state: &'static State) -> Result<libc::pthread_t, NotifyError> {
    // It starts with all of it blocked, so that no handler of the program's runs on it before it has its mask.
    let before = mask::block(SigSet::SYNCHRONOUS.complement());
    // SAFETY: `run` takes the state, which lives for ever, and does not return.
    let thread = unsafe { thread::spawn_raw(run, ptr::from_ref(state).cast_mut().cast(), None) };
    mask::set(before);
    let thread = thread.map_err(|error| NotifyError::System(error.number()))?;
    // SAFETY: the thread is there, and nobody else joins or detaches it.
    unsafe { libc::pthread_detach(thread) };
    Ok(thread)
}

extern "C" fn run(state: *mut c_void) -> *mut c_void {
    // SAFETY: `start` passes a state.
    let state: &'static State = unsafe { &*state.cast_const().cast() };
    #[cfg(target_os = "linux")]
    // SAFETY: a name with its terminator, within the sixteen bytes that the system keeps.
    unsafe {
        libc::pthread_setname_np(libc::pthread_self(), c"sigsafe-notify".as_ptr())
    };
    mask::set(if mutant!("notifier-unmasked") { SigSet::EMPTY } else { ALWAYS_OPEN.complement() });
    let mut records = [const { MaybeUninit::<Record>::uninit() }; BATCH];
    loop {
        state.pipe.wait(ALWAYS_OPEN.union(state.subscribed()).complement());
        let count = state.pipe.read(&mut records);
        if count == 0 && !state.pipe.is_open() && !mutant!("closed-in-silence") {
            // Its handlers go on writing to whatever has those numbers now. There is no way back from that, and no wait here any more.
            fatal(&["the notifier's pipe was closed by the program"]);
        }
        hand_out(state, &records[..count]);
        serve(state);
        // Other threads may fill the pipe as fast as it is read, and there would be no wait that lets a signal in here.
        if !mutant!("notifier-starved") {
            admit(ALWAYS_OPEN.union(state.subscribed()).complement());
        }
    }
}

/// Delivers what was read, and what had found the pipe full.
fn hand_out(state: &'static State, records: &[MaybeUninit<Record>]) {
    for record in records {
        // SAFETY: these were read.
        if let Some(info) = SigInfo::new(unsafe { record.assume_init() }) {
            deliver(state, &info);
        }
    }
    state.take_merged().for_each(|info| deliver(state, &info));
}

/// Does what another thread has asked for.
fn serve(state: &'static State) {
    let mut locked = state.lock();
    if let Some(request) = &locked.request
        && request.result.is_none()
    {
        let (node, enable, disable) = (request.node, request.enable, request.disable);
        if mutant!("enable-unacknowledged") {
            locked.request.as_mut().unwrap().result = Some(Ok(()));
            locked.wake_waiters();
            // SAFETY: the call takes nothing.
            locked = locked.unlocked(|| _ = unsafe { libc::sched_yield() });
        }
        let result;
        (locked, result) = change(locked, node, enable, disable, true);
        if let Some(request) = &mut locked.request {
            request.result = Some(result);
        }
        locked.wake_waiters();
    }
}

/// Hands one signal to each subscription. The lock is not held while a callback runs, so that it may subscribe and unsubscribe.
fn deliver(state: &'static State, info: &SigInfo) {
    let mut locked = state.lock();
    let mut next = locked.nodes().next();
    while let Some(node) = next {
        if node.signals().contains(info.signal()) {
            match node.sink {
                Sink::Queue { pipe, capacity } => node.enqueue(pipe, capacity, info),
                Sink::Call(callback) => {
                    // Other threads unlink a node after a request only, which this thread does between deliveries; a callback that
                    // closes its own subscription leaves the rest to us.
                    locked.delivering = node;
                    locked = locked.unlocked(|| call(&callback, info));
                    if node.closed.get() {
                        // SAFETY: its last call has returned.
                        locked = locked.unlocked(|| unsafe { callback.release() });
                        let after = node.next.get();
                        locked.unlink(node);
                        locked.delivering = null();
                        // SAFETY: the list's nodes are valid, and the lock has been held since it was read.
                        next = unsafe { after.as_ref() };
                        continue;
                    }
                    locked.delivering = null();
                }
            }
        }
        // SAFETY: as above.
        next = unsafe { node.next.get().as_ref() };
    }
}

/// A panic in the callback aborts here.
extern "C" fn call(callback: &Callback, info: &SigInfo) {
    // SAFETY: whoever subscribed vouched for the function with this data.
    unsafe { (callback.function)(info, callback.data) }
}

/// Changes what a subscription receives, and with it the handlers, on the notifier's thread. `drain`: what has arrived of the signals
/// that are disabled is delivered first. When it fails, what was to be enabled is not.
pub(super) fn change(
    mut locked: Locked,
    node: &'static Node,
    enable: SigSet,
    mut disable: SigSet,
    drain: bool,
) -> (Locked, Result<(), NotifyError>) {
    let state = locked.state;
    let before = node.signals();
    node.set_signals(before.union(enable));
    let mut result = Ok(());
    for signal in enable {
        if let Err(error) = install(&mut locked, signal) {
            disable = disable.union(enable.difference(before));
            result = Err(error);
            break;
        }
    }
    let after = node.signals().difference(disable);
    let others = locked.nodes().filter(|other| !ptr::eq(*other, node));
    let wanted = others.fold(after, |set, other| set.union(other.signals()));
    if drain {
        // What everybody has blocked and was sent before this is the subscriber's. A request that changes nothing is for this alone.
        let ending = if enable.is_empty() && disable.is_empty() { before } else { disable.intersection(before) };
        for signal in ending.intersection(mask::pending()) {
            admit(SigSet::SYNCHRONOUS.with(signal).complement());
        }
    }
    let leaving = state.subscribed().difference(wanted);
    leaving.iter().for_each(|signal| remove(&mut locked, signal));
    settle(state, leaving);
    if drain && !disable.is_empty() {
        locked = locked.unlocked(|| empty_pipe(state));
    }
    node.set_signals(node.signals().difference(disable));
    (locked, result)
}

/// Installs the handler, unless it is.
fn install(locked: &mut Locked, signal: Signal) -> Result<(), NotifyError> {
    if locked.registration(signal).is_some() {
        return Ok(());
    }
    // First the bit: the handler may run at once.
    locked.state.subscribed.fetch_or(SigSet::from(signal).bits(), Ordering::SeqCst);
    let handler = if mutant!("notifier-overwhelmed") { HANDLER.mask(SigSet::EMPTY) } else { HANDLER };
    // SAFETY: the handler touches atomics and writes to a pipe that is never closed, on any thread, also in a region.
    match unsafe { handler.install(signal) } {
        Ok(registration) => {
            *locked.registration(signal) = Some(registration);
            Ok(())
        }
        Err(error) => {
            locked.state.subscribed.fetch_and(!SigSet::from(signal).bits(), Ordering::SeqCst);
            Err(match error {
                InstallError::NoMemory => NotifyError::NoMemory,
                _ => NotifyError::Refused(signal),
            })
        }
    }
}

/// Puts back what the signal did before.
fn remove(locked: &mut Locked, signal: Signal) {
    if let Some(registration) = locked.registration(signal).take()
        && !mutant!("disposition-kept")
    {
        // Refused when somebody has installed another handler since: that stays, with ours below it, which passes everything on.
        let _ = registration.remove();
    }
}

/// From when this returns, no handler puts one of these signals into the pipe.
fn settle(state: &State, signals: SigSet) {
    // Partner: `relay`.
    state.subscribed.fetch_and(!signals.bits(), Ordering::SeqCst);
    for signal in signals {
        while state.relaying[signal.number() as usize - 1].load(Ordering::SeqCst) != 0 && !mutant!("notifier-unsettled") {
            // SAFETY: the call takes nothing.
            unsafe { libc::sched_yield() };
        }
    }
}

/// Delivers what is in the pipe now.
fn empty_pipe(state: &'static State) {
    let mut left = state.pipe.waiting();
    let mut records = [const { MaybeUninit::<Record>::uninit() }; BATCH];
    while left > 0 {
        let count = state.pipe.read(&mut records[..left.min(BATCH)]);
        hand_out(state, &records[..count]);
        left -= count;
    }
    hand_out(state, &[]);
}
