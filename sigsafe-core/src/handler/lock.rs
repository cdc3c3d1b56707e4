//! The lock under which one signal's handler is changed.
//!
//! Between reading the kernel's disposition and replacing it nobody else may do so, or a late call brings back what an earlier one
//! has replaced. Deliveries do not take the lock; changes of different signals do not meet.
//!
//! Runs in threads, in regions and in handlers. No handler can wait for the code that it interrupts, because hardly any can land in
//! there: whoever holds the lock has every signal blocked that is no fault, and is in a region, which holds back the managed handlers
//! of faults that somebody *sends*. What is left is the handler of a fault that is managed by nobody, or registered as immediate, or whose
//! fault is real: the change itself raises none, but a seccomp filter may answer its calls by SIGSYS. If such a handler
//! comes here for the same signal, it is told so. It is told nothing of other threads: they are waited for, and no signal can stop them.

use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::defer::{policy, vfork};
use crate::query::thread_id;
use crate::region::critical;
use crate::signal::{LAST, Signal};
use crate::sys::{self, How};

/// Per signal who changes its handler: the process in the upper half, the thread in the lower, or 0.
///
/// | word | meaning | next |
/// |---|---|---|
/// | 0 | nobody | one's own number |
/// | of this thread | the code that this frame has interrupted | `Busy` |
/// | of another thread of this process | it is three system calls from its end | 0 |
/// | of another process | in the child of a fork, a thread of the parent, which does not exist here | one's own number |
static LOCK: [AtomicU64; LAST as usize] = [const { AtomicU64::new(0) }; LAST as usize];

/// How often the lock is looked at before its holder, who may have lost the processor, is given time.
const SPINS: u32 = 100;

/// This thread holds the lock already.
pub(super) struct Busy;

/// Runs a change of this signal's handler alone.
pub(super) fn locked<R>(signal: Signal, change: impl FnOnce() -> R) -> Result<R, Busy> {
    in_region(|| {
        let before = sys::sigprocmask(How::Block, policy::BLOCKABLE.difference(policy::FAULTS));
        let lock = &LOCK[signal.number() as usize - 1];
        let result = if mutant!("no-table-lock") {
            Ok(change())
        } else {
            take(lock).map(|()| {
                let result = change();
                lock.store(0, Ordering::Release);
                result
            })
        };
        sys::sigprocmask(How::Set, before);
        result
    })
}

fn in_region<R>(f: impl FnOnce() -> R) -> R {
    if mutant!("change-without-region") { f() } else { critical(|_| f()) }
}

fn take(lock: &AtomicU64) -> Result<(), Busy> {
    let process = u64::from(sys::process_id());
    let me = process << 32 | u64::from(thread_id());
    let mut spins = 0;
    // SIGNAL: one instruction takes the lock and says who has it: there is no moment at which a handler finds it held by nobody.
    while let Err(holder) = lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
        if holder == me {
            return Err(Busy);
        }
        if holder >> 32 != process && !vfork::is_child(process as u32) {
            if lock.compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                break;
            }
        } else if spins < SPINS {
            spins += 1;
            hint::spin_loop();
        } else {
            // Asleep and not by a yield, so that a thread of a lower priority gets to its end.
            sys::nap();
        }
    }
    Ok(())
}
