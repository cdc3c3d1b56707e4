//! Forwarding: a handler passes a signal on to the disposition that it stands over.
//!
//! Runs in a handler. The handler below is called directly, with the delivery's own siginfo and context, on the same stack, with its mask
//! blocked around it. A foreign handler below may itself pass the signal on to what *it* has found when it was installed, and that may
//! be our trampoline. Such a call is no delivery: it is for the managed handler that was there before the foreign one, not for the one on
//! top, which would be called for ever. So the thread record points to the call that is under way, and the trampoline knows it
//! by the siginfo's address.
//!
//! ```text
//!  kernel ─► trampoline ─► top ─► forward ─► foreign ─► trampoline ─► the managed one under the foreign one
//! ```

use core::ffi::{c_int, c_void};
#[cfg(deferral)]
use core::mem::MaybeUninit;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::Ordering;

use super::Delivery;
use super::entry::{Below, Entry, REMOVED};
use super::table;
use crate::crash::crash;
use crate::defer::trampoline::call;
use crate::mask;
use crate::record::{ThreadRecord, record};
use crate::signal::{Flags, Signal};
use crate::sigset::SigSet;
use crate::sys;

type WithInfo = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
type Simple = unsafe extern "C" fn(c_int);

/// A foreign handler is being called for a delivery. Lies on the stack of the call.
pub(crate) struct ForeignCall<'d> {
    delivery: &'d Delivery<'d>,
    /// The one that this lies in: the foreign handler was interrupted, or calls back into ours.
    outer: usize,
}

/// The forwarded call that this entry into the trampoline comes from, if it is no delivery of the kernel's.
#[inline]
pub(crate) fn passed_on(r: &ThreadRecord, signal: Signal, info: *const libc::siginfo_t) -> Option<&ForeignCall<'_>> {
    let innermost = r.forwarding.load(Ordering::Relaxed);
    if innermost == 0 || mutant!("passed-on-to-the-top") {
        return None;
    }
    // SAFETY: the word is zero unless a call is under way on this thread, in a frame below this one.
    let innermost = unsafe { &*ptr::with_exposed_provenance::<ForeignCall<'_>>(innermost) };
    // A delivery has a siginfo of its own, in a frame of its own.
    let same = innermost.delivery.signal == signal && ptr::eq(innermost.delivery.info.as_ptr(), info);
    same.then_some(innermost)
}

impl ForeignCall<'_> {
    /// The foreign handler passes the signal on: to the managed handler that was there when it was installed, if there is one yet.
    #[cold]
    pub(crate) fn to_next(&self) {
        if let Some(entry) = self.delivery.entry.under {
            self.delivery.to(entry.effective());
        }
    }
}

impl Delivery<'_> {
    /// Passes the signal on to the disposition that was there before this handler was installed, and returns when that is through.
    ///
    /// - A **managed handler** is called with this delivery, its mask blocked around it. Regions that this handler is in do not hold it
    ///   back. It may forward in its turn.
    /// - A **foreign handler** is called as the kernel would, with the siginfo and the machine context (a handler without `SA_SIGINFO` gets
    ///   the number alone), with its `sa_mask` and, unless it has `SA_NODEFER`, the signal itself blocked. After a handler with
    ///   `SA_RESETHAND` the disposition is the default action, for later forwards and for the removal of this handler. Both run on
    ///   the stack of this handler, whatever they ask for, and with their signal blocked if this one has.
    /// - **SIG_IGN**: nothing happens, unless the signal is a fault that the interrupted instruction has raised; as with the kernel,
    ///   that cannot be ignored.
    /// - **SIG_DFL**: the default action happens. The process dies of the signal, or stops (this returns when it is continued), or
    ///   nothing happens.
    ///
    /// A delivery that was dispatched by a region's exit has no machine context ([`ucontext`](Delivery::ucontext) is `None`). A foreign
    /// handler then gets one that is zero but for the mask, `uc_sigmask`, and what it writes there has no effect.
    ///
    /// Async-signal safety: for handlers; `errno` is kept. Cost: two system calls around a handler below, none around the one that was
    /// adopted; five more for a managed one-shot.
    #[doc(alias = "sa_handler")]
    #[doc(alias = "SIG_DFL")]
    pub fn forward(&self) {
        let errno = sys::errno();
        self.to(self.entry.next());
        sys::set_errno(errno);
    }

    /// Whether this handler has been removed since the kernel chose it for this delivery.
    pub(crate) fn is_late(&self) -> bool {
        self.entry.is(REMOVED)
    }

    /// [`forward`](Delivery::forward) for such a delivery: to a handler, but not to the default action. The signal came before that was in
    /// force again.
    pub(crate) fn forward_late(&self) {
        if !matches!(self.entry.next(), Below::Foreign(action) if action.sa_sigaction == libc::SIG_DFL) {
            self.forward();
        }
    }

    fn to(&self, below: Below) {
        match below {
            Below::Managed(entry) => self.to_managed(entry),
            Below::Foreign(action) => match action.sa_sigaction {
                libc::SIG_DFL => self.to_default(),
                // The interrupted instruction would raise it again.
                libc::SIG_IGN if self.info().is_raised() => die(self),
                libc::SIG_IGN => {}
                _ => self.to_foreign(&action),
            },
        }
    }

    fn to_managed(&self, entry: &'static Entry) {
        if entry.one_shot() && !table::fire(self.signal, entry) {
            return self.to_default();
        }
        let delivery = Delivery { entry, ..*self };
        self.with_blocked(entry.mask(), entry.no_defer(), || call(entry, &delivery));
    }

    fn to_foreign(&self, action: &libc::sigaction) {
        let has = |flag| action.sa_flags & flag != 0;
        if self.entry.adopted() {
            // Its mask and flags are those of the delivery.
            return self.call_foreign(action);
        }
        if has(libc::SA_RESETHAND) && !self.entry.fire_below() {
            return self.to_default();
        }
        self.with_blocked(sys::from_sigset(&action.sa_mask), has(libc::SA_NODEFER), || self.call_foreign(action));
    }

    /// Blocks what the kernel would, and puts the mask back as the return from a handler does.
    fn with_blocked(&self, mask: SigSet, no_defer: bool, f: impl FnOnce()) {
        let mask = if no_defer { mask } else { mask.with(self.signal) };
        let before = mask::block(mask);
        f();
        mask::set(before);
    }

    fn call_foreign(&self, action: &libc::sigaction) {
        match self.context {
            Some(context) => self.call_with_context(action, context.as_ptr()),
            #[cfg(deferral)]
            None => self.call_without_context(action),
            #[cfg(not(deferral))]
            // There every delivery is the kernel's.
            None => self.call_with_context(action, ptr::null_mut()),
        }
    }

    #[cfg(deferral)]
    #[cold]
    #[inline(never)]
    fn call_without_context(&self, action: &libc::sigaction) {
        let mut context: MaybeUninit<libc::ucontext_t> = MaybeUninit::zeroed();
        // SAFETY: the context is whole; zero is a value of every field.
        unsafe { (*context.as_mut_ptr()).uc_sigmask = sys::to_sigset(mask::current()) };
        self.call_with_context(action, context.as_mut_ptr());
    }

    fn call_with_context(&self, action: &libc::sigaction, context: *mut libc::ucontext_t) {
        let r = record();
        let this = ForeignCall { delivery: self, outer: r.forwarding.load(Ordering::Relaxed) };
        // SIGNAL: a handler in between does its own forwarding and leaves the word as it was.
        r.forwarding.store((&raw const this).expose_provenance(), Ordering::Relaxed);
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            // SAFETY: neither SIG_DFL nor SIG_IGN, so whoever installed it says that it is such a function.
            let function: WithInfo = unsafe { transmute(action.sa_sigaction) };
            // SAFETY: a handler, called in a handler, with what it expects.
            unsafe { function(self.signal.number(), self.info.as_ptr(), context.cast()) };
        } else {
            // SAFETY: as above; without SA_SIGINFO the function takes the number alone.
            let function: Simple = unsafe { transmute(action.sa_sigaction) };
            // SAFETY: a handler, called in a handler, with what it expects.
            unsafe { function(self.signal.number()) };
        }
        r.forwarding.store(this.outer, Ordering::Relaxed);
    }

    fn to_default(&self) {
        match default_action(self.signal) {
            DefaultAction::Terminate => die(self),
            DefaultAction::Stop => {
                if !table::stop(self.signal) {
                    sys::send_to_self(libc::SIGSTOP);
                }
            }
            DefaultAction::Nothing => {}
        }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum DefaultAction {
    Terminate,
    Stop,
    Nothing,
}

/// What the signal table says. The continuing of SIGCONT is done when it is sent.
fn default_action(signal: Signal) -> DefaultAction {
    match signal.flags() {
        flags if flags.contains(Flags::STOP) => DefaultAction::Stop,
        flags if flags.contains(Flags::IGNORE) => DefaultAction::Nothing,
        _ => DefaultAction::Terminate,
    }
}

/// The process dies of the delivery's signal, with the delivery's siginfo in the core dump if the kernel takes it.
fn die(delivery: &Delivery<'_>) -> ! {
    if let Below::Foreign(default) = Below::default_action() {
        // SAFETY: the default action is no handler.
        unsafe { sys::restore_action(delivery.signal.number(), &default) };
    }
    #[cfg(deferral)]
    // SAFETY: a delivery's siginfo is a whole one.
    unsafe {
        sys::queue_to_self(sys::process_id(), delivery.signal.number(), delivery.info.as_ptr())
    };
    crash(delivery.signal)
}
