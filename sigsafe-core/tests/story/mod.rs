//! One run of a sweep over the mask operations, and what POSIX says of it.
//!
//! A *story* is an operation in some layers of regions and handlers, with a signal at one of its instructions. It is told in the main flow,
//! or in a handler that this thread's own send runs at once, never at an arbitrary instruction.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::SeqCst;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, mask};

use crate::step::layers::{self, EARLIER, Earlier, Later, Layer, Same, within};
use crate::step::watch::{self, HANDLED, WRONG, handled, kernel_mask, set_kernel_mask};
use crate::step::{self, AS_FAULT, STUCK, Stop};

const RT: Signal = match Signal::real_time(2) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+2 exists"),
};
/// Its handler is immediate, and edits the mask.
pub(crate) const IMMEDIATE: Signal = Signal::USR2;
/// Of each kind: requeued, kept with a token, kept and requeued by the exit, a fault, dispatched by the exit, a stop, never deferred.
pub(crate) const KINDS: [i32; 7] = [
    Signal::USR1.number(),
    RT.number(),
    Signal::SEGV.number(),
    Signal::SEGV.number() | AS_FAULT,
    Signal::CONT.number(),
    Signal::TSTP.number(),
    IMMEDIATE.number(),
];

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Current,
    Pending,
    Block(SigSet),
    Unblock(SigSet),
    Set(SigSet),
}

impl Operation {
    fn perform(self) -> SigSet {
        match self {
            Operation::Current => mask::current(),
            Operation::Pending => mask::pending(),
            Operation::Block(set) => mask::block(set),
            Operation::Unblock(set) => mask::unblock(set),
            Operation::Set(set) => mask::set(set),
        }
    }

    /// The mask that it leaves in force.
    fn after(self, before: SigSet) -> SigSet {
        match self {
            Operation::Current | Operation::Pending => before,
            Operation::Block(set) => before | set,
            Operation::Unblock(set) => before.difference(set),
            Operation::Set(set) => set,
        }
    }
}

#[derive(Copy, Clone, Debug)]
pub(crate) struct Story {
    pub(crate) layers: &'static [Layer],
    /// The thread's mask before the first layer.
    pub(crate) mask: SigSet,
    pub(crate) operation: Operation,
    pub(crate) number: i32,
    /// The boundary at which it is sent, counted from 1; 0 to learn them.
    pub(crate) at: usize,
    pub(crate) stop: Stop,
}

/// What is seen right behind the operation.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Seen {
    returned: SigSet,
    current: SigSet,
    pending: SigSet,
    handled: u32,
    not_met: bool,
}

thread_local! {
    static STOPS: RefCell<Vec<Stop>> = const { RefCell::new(Vec::new()) };
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

impl Story {
    fn signal(&self) -> Signal {
        Signal::new(self.number & !AS_FAULT).unwrap()
    }

    fn is_fault(&self) -> bool {
        self.number & AS_FAULT != 0
    }

    fn in_handler(&self) -> bool {
        layers::in_handler(self.layers)
    }

    fn in_region(&self) -> bool {
        layers::in_region(self.layers)
    }

    /// A region that begins in a handler over no other ends there, with the handler's mask in force.
    fn region_ends_in_handler(&self) -> bool {
        self.layers.first() == Some(&Later) && self.in_region()
    }

    /// A real fault never waits: it kills a thread that has it blocked. (One sent in its likeness would, until the kernel delivers the
    /// next SIGTRAP, which lets it in over the mask.)
    pub(crate) fn happens(&self) -> bool {
        !self.is_fault() || !(self.before() | self.after()).contains(self.signal())
    }

    /// Whether a region holds the signal back at the operation.
    fn defers(&self) -> bool {
        self.in_region() && self.signal() != IMMEDIATE && !self.is_fault()
    }

    /// The logical mask in which the operation begins.
    fn before(&self) -> SigSet {
        layers::mask_within(self.layers, self.mask)
    }

    fn after(&self) -> SigSet {
        self.operation.after(self.before())
    }

    /// The mask in force after the last layer.
    fn at_last(&self) -> SigSet {
        if self.in_handler() { self.mask } else { self.after() }
    }

    fn sends_earlier(&self) -> bool {
        self.layers.contains(&Earlier)
    }

    /// The boundaries of the operation.
    pub(crate) fn learn(self) -> Vec<Stop> {
        let seen = Story { at: 0, ..self }.run();
        assert!(seen.is_some(), "the operation is reached");
        mask::set(SigSet::EMPTY);
        STOPS.take()
    }

    pub(crate) fn run(self) -> Option<Seen> {
        WRONG.store(0, SeqCst);
        HANDLED.iter().for_each(|count| count.store(0, SeqCst));
        SEEN.set(None);
        mask::set(self.mask);
        within(self.layers, self.number, &|| self.operate());
        SEEN.take()
    }

    fn operate(self) {
        let mut returned = SigSet::EMPTY;
        let mut operation = || returned = self.operation.perform();
        let not_met = if self.at == 0 {
            STOPS.set(step::learn(None, &mut operation).stops());
            false
        } else {
            !step::run(&[(self.stop, self.number)], &mut operation)
        };
        let handled = handled(self.signal());
        SEEN.set(Some(Seen { returned, current: mask::current(), pending: mask::pending(), handled, not_met }));
    }

    /// How many signals of the number under test were sent.
    fn sent(&self) -> u32 {
        1 + u32::from(self.layers.contains(&Same))
    }

    /// What is wrong after a run, first right behind the operation and then at the end. Leaves the thread as it was before the first
    /// story.
    pub(crate) fn judge(&self, seen: Option<Seen>, boundaries: usize) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what| {
            if !right {
                wrong.push(what);
            }
        };
        if let Some(seen) = seen {
            self.judge_operation(seen, boundaries, &mut check);
            check(!seen.not_met, "the boundary was not met");
        } else {
            check(false, "the operation was not reached");
        }

        let signal = self.signal();
        let at_last = SigSet::from_bits(kernel_mask());
        check(at_last == self.at_last(), "the kernel's mask at the end");
        check(mask::current() == self.at_last(), "the logical mask at the end");
        let count = handled(signal);
        if !self.at_last().contains(signal) || (self.region_ends_in_handler() && !self.after().contains(signal)) {
            check(self.all_handled(count), "the signal is not handled at the end, or is handled twice");
            check(!mask::pending().contains(signal), "handled, and waits at the end");
        } else if let Some(seen) = seen {
            check(seen.handled == count, "handled after the operation although blocked");
            check(mask::pending().contains(signal) == seen.pending.contains(signal), "what waits at the end");
        }

        mask::set(SigSet::EMPTY);
        check(self.all_handled(handled(signal)), "lost or doubled");
        check(handled(EARLIER) == u32::from(self.sends_earlier()), "the earlier signal is lost or doubled");
        check(kernel_mask() == 0 && mask::pending().is_empty(), "something is left");
        check(!watch::holds_back(), "still held back");
        let bits = WRONG.load(SeqCst);
        check(bits & watch::RAN_IN_REGION == 0, "a handler ran in a region");
        check(bits & watch::DEPTH_CHANGED == 0, "the depth in a handler");
        check(bits & watch::HANDLER_MASK == 0, "a mask operation in a handler");
        check(!STUCK.load(SeqCst), "stuck");
        set_kernel_mask(0);
        wrong
    }

    /// A legacy signal that was sent twice may have merged into one, where both waited.
    fn all_handled(&self, count: u32) -> bool {
        count == self.sent() || (count == 1 && !self.signal().is_real_time())
    }

    fn judge_operation(&self, seen: Seen, boundaries: usize, check: &mut impl FnMut(bool, &'static str)) {
        let signal = self.signal();
        let (before, after) = (self.before(), self.after());
        check(seen.current == after, "the logical mask behind the operation");
        if self.defers() || (before.contains(signal) && after.contains(signal)) {
            check(seen.handled == 0, "handled although held back");
        } else if !after.contains(signal) {
            check(self.all_handled(seen.handled), "not handled by the operation's end");
        }
        let set_if = |here: bool, signal| if here { SigSet::from(signal) } else { SigSet::EMPTY };
        let earlier = set_if(self.sends_earlier(), EARLIER);
        let own = set_if((self.defers() || after.contains(signal)) && seen.handled < self.sent(), signal);
        check(seen.pending == earlier | own, "what waits behind the operation");
        if self.operation == Operation::Pending {
            let own_by_now = if self.at == 1 || self.layers.contains(&Same) { own } else { SigSet::EMPTY };
            let own_ever = if self.at < boundaries || self.layers.contains(&Same) { own } else { SigSet::EMPTY };
            check((earlier | own_by_now).is_subset(seen.returned), "a signal that waits is left out");
            check(seen.returned.is_subset(earlier | own_ever), "a signal that does not wait is named");
        } else {
            check(seen.returned == before, "the mask that the operation returned");
        }
    }
}

fn on_immediate(delivery: &Delivery<'_>) {
    watch::on_any_time(delivery);
    watch::use_masks();
}

pub(crate) fn install() {
    step::prepare();
    layers::install();
    for number in KINDS {
        let signal = Signal::new(number & !AS_FAULT).unwrap();
        let handler = if signal == IMMEDIATE { Handler::new(on_immediate).immediate(true) } else { Handler::new(watch::on_deferrable) };
        // SAFETY: the handlers touch atomics, regions and masks.
        unsafe { handler.install(signal).unwrap() };
    }
}
