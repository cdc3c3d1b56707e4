//! Programs of regions, signals and mask changes; how proptest makes them; and the events by which the model and the engine are
//! compared.

use proptest::collection::vec;
use proptest::prelude::*;

/// Bits by index into [`CAST`].
pub(crate) type Set = u32;

pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) immediate: bool,
    /// Instances queue up (POSIX, real-time signals) instead of merging.
    pub(crate) queues: bool,
}

const fn member(name: &'static str, immediate: bool, queues: bool) -> Member {
    Member { name, immediate, queues }
}

/// In the order of their numbers, which is the order in which Linux takes them off the queue.
pub(crate) const CAST: [Member; 8] = [
    member("SIGUSR1", false, false),
    member("SIGUSR2", false, false),
    member("SIGALRM", true, false),
    member("SIGTERM", false, false),
    member("SIGVTALRM", true, false),
    member("SIGRTMIN", false, true),
    member("SIGRTMIN+1", false, true),
    member("SIGRTMIN+2", true, true),
];

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Deferred,
    Full,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Enter(Backend),
    Drop(usize),
    Forget(usize),
    Closure { backend: Backend, ops: Vec<Op>, escaping: Option<Backend> },
    Panic { guards: Vec<Backend>, ops: Vec<Op> },
    Send(usize),
    Block(Set),
    Unblock(Set),
    SetMask(Set),
    Observe,
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) main: Vec<Op>,
    pub(crate) handlers: Vec<Vec<Op>>,
    pub(crate) masks: Vec<Set>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// With the serial number of the instance, or of all that have merged into one: POSIX does not say whose siginfo survives.
    Begin {
        index: usize,
        serials: Vec<u32>,
    },
    End {
        index: usize,
    },
    /// What a mask operation returned.
    Mask(Set),
    Observed {
        blocked: Set,
        pending: Set,
        regions: u32,
    },
}

fn backend() -> impl Strategy<Value = Backend> {
    prop_oneof![Just(Backend::Deferred), Just(Backend::Full)]
}

fn set() -> impl Strategy<Value = Set> {
    0..(1u32 << CAST.len())
}

/// The deferrable ones that queue.
fn kept() -> Set {
    (0..CAST.len()).filter(|index| CAST[*index].queues && !CAST[*index].immediate).fold(0, |set, index| set | 1 << index)
}

/// What a handler must not do: panic, and let in a signal that the engine may have kept, while a frame of the same number lies
/// unstarted below it. The kernel then runs the second one first, and the engine both in the order in which they were sent.
fn op(in_handler: bool) -> impl Strategy<Value = Op> {
    let kept = if in_handler { kept() } else { 0 };
    let leaf = prop_oneof![
        3 => backend().prop_map(Op::Enter),
        3 => (0usize..8).prop_map(Op::Drop),
        1 => (0usize..8).prop_map(Op::Forget),
        6 => (0..CAST.len()).prop_map(Op::Send),
        1 => set().prop_map(Op::Block),
        1 => set().prop_map(move |set| Op::Unblock(set & !kept)),
        1 => set().prop_map(move |set| Op::SetMask(set | kept)),
        1 => Just(Op::Observe),
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        let closure = (backend(), vec(inner.clone(), 0..6), proptest::option::of(backend()))
            .prop_map(|(backend, ops, escaping)| Op::Closure { backend, ops, escaping });
        let panic = (vec(backend(), 0..4), vec(inner, 0..6)).prop_map(|(guards, ops)| Op::Panic { guards, ops });
        if in_handler { closure.boxed() } else { prop_oneof![2 => closure, 1 => panic].boxed() }
    })
}

pub(crate) fn program() -> impl Strategy<Value = Program> {
    (vec(op(false), 1..24), vec(vec(op(true), 0..5), CAST.len()), vec(set(), CAST.len())).prop_map(|(main, handlers, masks)| Program {
        main,
        handlers,
        masks,
    })
}

impl Program {
    /// Whether an immediate handler blocks deferrable signals while it runs. Interrupted by another one before its first
    /// instruction, over a region, it has its mask in the kernel and nobody knows: the other one is told that those signals are not
    /// blocked. What is delivered when is right all the same.
    fn masks_meet(&self) -> bool {
        let blocks = |index: usize| (0..CAST.len()).any(|other| self.masks[index] & 1 << other != 0 && !CAST[other].immediate);
        (0..CAST.len()).any(|index| CAST[index].immediate && blocks(index))
    }

    /// Whether the engine's story is one that the model allows.
    pub(crate) fn same_story(&self, engine: &[Event], model: &[Event]) -> bool {
        let masks_count = !self.masks_meet();
        let same = |(engine, model): (&Event, &Event)| match (engine, model) {
            (Event::Begin { index, serials }, Event::Begin { index: expected, serials: merged }) => {
                index == expected && serials.iter().all(|serial| merged.contains(serial))
            }
            (Event::Mask(engine), Event::Mask(model)) => engine == model || !masks_count,
            (
                Event::Observed { blocked, pending, regions },
                Event::Observed { blocked: expected, pending: expected_pending, regions: expected_regions },
            ) => (blocked == expected || !masks_count) && pending == expected_pending && regions == expected_regions,
            _ => engine == model,
        };
        engine.len() == model.len() && engine.iter().zip(model).all(same)
    }
}
