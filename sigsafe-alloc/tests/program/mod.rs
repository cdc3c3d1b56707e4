//! Programs of allocator operations, with handlers between and inside them; and how proptest makes them.

use proptest::collection::vec;
use proptest::prelude::*;

/// An operation of the allocator.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alloc {
        size: usize,
        align: usize,
        zeroed: bool,
    },
    /// So many blocks of one size.
    Many {
        size: usize,
        count: usize,
    },
    Dealloc(Which),
    /// Every other block, or all.
    DeallocMany {
        all: bool,
    },
    Realloc {
        which: Which,
        size: Size,
    },
    Purge,
    /// The purge policy: so much may stay.
    Bound(usize),
}

/// A block: the one that came last, or one by its number, modulo how many there are.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Which {
    Newest,
    Numbered(usize),
}

/// A block's new size: bytes, or percents of the old one.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Size {
    Bytes(usize),
    Percent(usize),
}

/// What a thread does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Op(Op),
    /// A handler runs between two operations.
    Handler(Vec<Step>),
    /// A handler runs at this instruction boundary of an operation, if it has so many.
    Inside {
        op: Op,
        at: u64,
        handler: Vec<Step>,
    },
    /// A thread of its own does this, and ends.
    Thread(Vec<Step>),
}

/// The largest size that has a class.
const CLASSED: usize = 256 << 10;
/// The largest size that is a run of a chunk's units.
const RUN: usize = 1 << 20;
/// The largest size that is a run of a region's units.
const BIG: usize = 16 << 20;

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 1usize..=128,
        6 => 1usize..=1024,
        4 => 1025usize..=16 << 10,
        3 => 16usize << 10..=CLASSED,
        // On both sides of where the kind changes.
        2 => prop_oneof![
            6 => (prop_oneof![Just(128), Just(1024), Just(CLASSED), Just(RUN)], 0usize..=1).prop_map(|(size, over)| size + over),
            1 => Just(BIG + 1),
        ],
        2 => CLASSED + 1..=RUN,
        1 => RUN + 1..=3 * RUN,
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![1 => Just(Which::Newest), 2 => any::<usize>().prop_map(Which::Numbered)]
}

/// In its class or its run, over it, and under it.
fn new_size() -> impl Strategy<Value = Size> {
    prop_oneof![1 => size().prop_map(Size::Bytes), 2 => (20usize..=250).prop_map(Size::Percent)]
}

/// To four times a unit, by shifts.
fn align() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0u32..=3, 2 => 4u32..=12, 1 => 13u32..=18].prop_map(|shift| 1 << shift)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (size(), align(), any::<bool>()).prop_map(|(size, align, zeroed)| Op::Alloc { size, align, zeroed }),
        2 => (prop_oneof![8usize..=512, 8usize..=40_000], 1usize..200).prop_map(|(size, count)| {
            // At most a megabyte.
            Op::Many { size, count: count.min(1 + (1 << 20) / size) }
        }),
        8 => which().prop_map(Op::Dealloc),
        1 => any::<bool>().prop_map(|all| Op::DeallocMany { all }),
        6 => (which(), new_size()).prop_map(|(which, size)| Op::Realloc { which, size }),
        1 => Just(Op::Purge),
        1 => prop_oneof![Just(0usize), Just(1usize << 20), Just(256usize << 20)].prop_map(Op::Bound),
    ]
}

/// A fast path has some twenty boundaries, refills hundreds, purges thousands.
fn boundary() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1u64..=40, 3 => 1u64..=300, 1 => 1u64..=4000]
}

/// What a handler does: operations, and other handlers between them.
fn handler() -> impl Strategy<Value = Vec<Step>> {
    let inner = vec(op().prop_map(Step::Op), 1..4);
    vec(prop_oneof![6 => op().prop_map(Step::Op), 1 => inner.prop_map(Step::Handler)], 1..8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => op().prop_map(Step::Op),
        1 => handler().prop_map(Step::Handler),
        4 => (op(), boundary(), handler()).prop_map(|(op, at, handler)| Step::Inside { op, at, handler }),
    ]
}

pub(crate) fn program() -> impl Strategy<Value = Vec<Step>> {
    vec(prop_oneof![12 => step(), 1 => vec(step(), 1..10).prop_map(Step::Thread)], 1..40)
}
