//! Atomics that loom watches, for code that has them in statics, in zeroed memory and in blocks.
//!
//! Loom's own can be neither. These are the core library's, of which only the value that they start with is used: what is loaded and
//! stored is a loom atomic, which is found by the address, and made at the first use. So memory that models share stays
//! as it was mapped, and every execution starts from the same values.

use core::ptr;
use core::sync::atomic;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

pub(in super::super) use core::sync::atomic::Ordering;

type Watched = loom::sync::atomic::AtomicU64;

std::thread_local! {
    // All of a model's threads run on one thread of the system.
    static WATCHED: RefCell<HashMap<usize, Rc<Watched>>> = RefCell::default();
    /// All that executions have used, and with what it starts.
    static KNOWN: RefCell<BTreeMap<usize, u64>> = const { RefCell::new(BTreeMap::new()) };
    static NEW: Cell<bool> = const { Cell::new(false) };
}

/// A new model.
pub(super) fn forget() {
    KNOWN.with_borrow_mut(BTreeMap::clear);
}

/// A new execution. To loom, an atomic is made by the thread that asks for it first, and who uses it must be after that. Statics and
/// fresh memory are older than all threads; so all atomics that earlier executions have used are made here.
pub(super) fn start() {
    let known = KNOWN.with_borrow(|known| known.iter().map(|(address, first)| (*address, Rc::new(Watched::new(*first)))).collect());
    WATCHED.set(known);
    NEW.set(false);
}

/// Whether this execution has used atomics that were not known when it started.
pub(super) fn were_new() -> bool {
    NEW.get()
}

/// The loom atomic for this address.
#[track_caller]
fn watched(address: usize, first: impl FnOnce() -> u64) -> Rc<Watched> {
    let make = || {
        let first = first();
        KNOWN.with_borrow_mut(|known| known.insert(address, first));
        NEW.set(true);
        Rc::new(Watched::new(first))
    };
    WATCHED.with_borrow_mut(|all| Rc::clone(all.entry(address).or_insert_with(make)))
}

macro_rules! atomic {
    ($name:ident $(<$parameter:ident>)?, $value:ty, $to:expr, $from:expr) => {
        #[repr(transparent)]
        pub(in super::super) struct $name $(<$parameter>)? (atomic::$name $(<$parameter>)?);

        #[allow(dead_code, reason = "each type has what some other one needs")]
        impl $(<$parameter>)? $name $(<$parameter>)? {
            pub(in super::super) const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            #[track_caller]
            fn watched(&self) -> Rc<Watched> {
                watched(ptr::from_ref(self).addr(), || $to(self.0.load(Ordering::Relaxed)))
            }

            #[track_caller]
            pub(in super::super) fn load(&self, order: Ordering) -> $value {
                $from(self.watched().load(order))
            }

            #[track_caller]
            pub(in super::super) fn store(&self, value: $value, order: Ordering) {
                self.watched().store($to(value), order);
            }

            #[track_caller]
            pub(in super::super) fn swap(&self, value: $value, order: Ordering) -> $value {
                $from(self.watched().swap($to(value), order))
            }

            #[track_caller]
            pub(in super::super) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.watched().compare_exchange($to(current), $to(new), success, failure).map($from).map_err($from)
            }

            #[track_caller]
            pub(in super::super) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! number {
    ($name:ident, $value:ty) => {
        atomic!($name, $value, |value: $value| value as u64, |bits: u64| bits as $value);

        #[allow(dead_code, reason = "each type has what some other one needs")]
        impl $name {
            #[track_caller]
            pub(in super::super) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.watched().fetch_add(value as u64, order) as $value
            }

            #[track_caller]
            pub(in super::super) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.watched().fetch_sub(value as u64, order) as $value
            }

            #[track_caller]
            pub(in super::super) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.watched().fetch_and(value as u64, order) as $value
            }

            #[track_caller]
            pub(in super::super) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.watched().fetch_or(value as u64, order) as $value
            }
        }
    };
}

number!(AtomicU8, u8);
number!(AtomicU32, u32);
number!(AtomicU64, u64);
number!(AtomicUsize, usize);
atomic!(AtomicPtr<T>, *mut T, |value: *mut T| value.expose_provenance() as u64, |bits: u64| ptr::with_exposed_provenance_mut(
    bits as usize
));
