//! The handler of every subscribed signal: it puts the siginfo into the notifier's pipe.
//!
//! Runs as a signal handler, *immediate*: it makes system calls and touches atomics, nothing that a region protects. Deferred, a
//! signal to the process would be kept for one thread, which may be waiting in its region for the very notification.

use core::sync::atomic::Ordering;

use super::pipe::bare;
use super::state::{self, State};
use crate::handler::{Delivery, Handler};
use crate::siginfo::SigInfo;
use crate::sigset::SigSet;

/// What is installed. `mask`: the notifier's thread lets one signal in at a time, so that the others wait in the kernel, which has more room
/// than the pipe. `restart`: the program's own calls are not to fail because somebody subscribed. `on_stack`: threads of runtimes with
/// small stacks take signals on their alternate stack.
pub(super) const HANDLER: Handler = Handler::new(relay).immediate(true).mask(SigSet::SYNCHRONOUS.complement()).restart(true).on_stack(true);

fn relay(delivery: &Delivery<'_>) {
    let signal = delivery.signal();
    // In the child of a fork there is no state, or one of its own: the parent's subscribers do not hear of the child's signals.
    let state = state::existing();
    let taken = state.is_some_and(|state| {
        let relaying = &state.relaying[signal.number() as usize - 1];
        // Partner: `settle`, which clears the bit of `subscribed` and then waits for this counter. Either this sees the bit
        // cleared or that sees the count.
        relaying.fetch_add(1, Ordering::SeqCst);
        let subscribed = state.subscribed().contains(signal);
        if subscribed {
            state.put(&delivery.info());
        }
        relaying.fetch_sub(1, Ordering::SeqCst);
        subscribed
    });
    if !taken && !mutant!("relay-swallows") {
        // Whoever was here before us. Where the subscription has ended since the kernel chose this handler, that must not be the default
        // action: the signal was sent before that came back.
        if state.is_some() && delivery.is_late() {
            delivery.forward_late();
        } else {
            delivery.forward();
        }
    }
}

impl State {
    /// Hands one signal to the thread.
    fn put(&self, info: &SigInfo) {
        let signal = info.signal();
        if self.pipe.write(info.as_raw()) {
            return;
        }
        if signal.is_real_time() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.merged.fetch_or(SigSet::from(signal).bits(), Ordering::Release);
        // The thread may have emptied the pipe since, and not have seen the bit. If the pipe is full still, it will see it.
        if !mutant!("merged-in-silence") {
            self.wake();
        }
    }

    /// The signals that found the pipe full, each as if it were sent now, by nobody.
    pub(super) fn take_merged(&self) -> impl Iterator<Item = SigInfo> {
        let merged = SigSet::from_bits(self.merged.swap(0, Ordering::Acquire));
        merged.iter().filter_map(|signal| SigInfo::new(bare(signal.number())))
    }
}
