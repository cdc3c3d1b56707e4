//! Deferral: signals that arrive in a critical region wait until it ends, without a system call on the way in or out.
//!
//! Every managed handler sits behind one `trampoline`. Delivered outside a region, a signal goes straight to its handler. In a
//! region it is *captured*: given back to the kernel (or kept in a slot), and every deferrable signal is blocked by editing the
//! mask that the kernel restores when the trampoline returns. From then on the kernel queues what arrives. The outermost exit finds
//! the word `added` non-zero and unblocks what was blocked (`flush`); the kernel delivers what waits before that call returns.
//!
//! ```text
//!  main flow   enter ──────── work ───────────────── exit: counter 0 │ added ≠ 0 → added = 0, unblock ─┐ ┌─ goes on
//!  trampoline                  └ capture: requeue, added |= D, frame.mask |= D ┘                       └ handler ┘
//! ```
//!
//! `trampoline` receives, [`policy`] decides, `capture` holds back, `slots` keeps what must not wait in the kernel, `flush` lets
//! in, `order` finds out what a delivery really brings, `owed` remembers what an operation of the allocator is still to let in. `leave` sends on what a thread that exits leaves behind; `vfork` keeps a
//! child that shares its parent's memory from the parent's record.
//!
//! Where a signal cannot be given back to the kernel as it came there is no deferral: `direct` has what is left, under the same
//! names, and `policy` its sets.

#[cfg(deferral)]
pub(crate) mod capture;
#[cfg(not(deferral))]
pub(crate) mod direct;
#[cfg(deferral)]
pub(crate) mod flush;
#[cfg(deferral)]
pub(crate) mod leave;
#[cfg(deferral)]
pub(crate) mod order;
#[cfg(deferral)]
mod owed;
pub(crate) mod policy;
#[cfg(deferral)]
pub(crate) mod slots;
#[cfg(deferral)]
pub(crate) mod trampoline;
#[cfg(deferral)]
pub(crate) mod vfork;

#[cfg(not(deferral))]
pub(crate) use direct as flush;
#[cfg(not(deferral))]
pub(crate) use direct as order;
#[cfg(not(deferral))]
pub(crate) use direct as slots;
#[cfg(not(deferral))]
pub(crate) use direct as trampoline;
#[cfg(not(deferral))]
pub(crate) use direct as vfork;
#[cfg(not(deferral))]
pub use direct::leave_thread;
#[cfg(deferral)]
pub use leave::leave_thread;
