//! The POSIX rule, and nothing of the engine: a set of blocked signals, a queue of pending ones, and what was handled in which
//! order. A critical region is one more reason for a deferrable signal to be blocked.
//!
//! Where POSIX leaves the order open (several signals become deliverable at once) it is Linux's: the lowest number first, each
//! with a frame on top of the one before, so that the last one's handler runs first.

use std::collections::BTreeMap;

use super::program::{Backend, CAST, Event, Op, Program, Set};

/// How many signals a program may send, handlers included: they may send each other signals without end.
pub(crate) const BUDGET: u32 = 60;

/// What a handler's return puts back.
#[derive(Clone, Default)]
struct Frame {
    blocked: Set,
    regions: u32,
}

pub(crate) struct Model<'p> {
    program: &'p Program,
    now: Frame,
    /// Per member of the cast, the instances that wait, each with the serial numbers that have merged into it.
    pending: BTreeMap<usize, Vec<Vec<u32>>>,
    sent: u32,
    log: Vec<Event>,
}

/// Guards of one activation, a handler's call or the main flow's. Only their number matters here.
type Guards = Vec<Backend>;

impl Model<'_> {
    pub(crate) fn run(program: &Program) -> Vec<Event> {
        let mut model = Model { program, now: Frame::default(), pending: BTreeMap::new(), sent: 0, log: Vec::new() };
        let mut guards = Guards::new();
        model.ops(&program.main, &mut guards);
        while !guards.is_empty() {
            model.leave(&mut guards, 0);
        }
        model.observe();
        model.log
    }

    fn observe(&mut self) {
        let pending = self.pending.keys().fold(0, |set, index| set | 1 << index);
        self.log.push(Event::Observed { blocked: self.now.blocked, pending, regions: self.now.regions });
    }

    fn ops(&mut self, ops: &[Op], guards: &mut Guards) {
        for op in ops {
            self.op(op, guards);
        }
    }

    fn op(&mut self, op: &Op, guards: &mut Guards) {
        match op {
            Op::Enter(backend) => {
                self.now.regions += 1;
                guards.push(*backend);
            }
            Op::Drop(which) if !guards.is_empty() => self.leave(guards, which % guards.len()),
            Op::Forget(which) if !guards.is_empty() => drop(guards.remove(which % guards.len())),
            Op::Drop(_) | Op::Forget(_) => {}
            Op::Closure { ops, escaping, .. } => {
                self.now.regions += 1;
                self.ops(ops, guards);
                if let Some(backend) = escaping {
                    self.now.regions += 1;
                    guards.push(*backend);
                }
                self.now.regions -= 1;
                self.deliver();
            }
            Op::Panic { guards: kinds, ops } => {
                let mut inner = kinds.clone();
                self.now.regions += kinds.len() as u32;
                self.ops(ops, &mut inner);
                // A vector drops its elements in order, on unwinding too.
                while !inner.is_empty() {
                    self.leave(&mut inner, 0);
                }
            }
            Op::Send(index) => self.arrive(*index),
            Op::Block(set) => {
                self.log.push(Event::Mask(self.now.blocked));
                self.now.blocked |= set;
            }
            Op::Unblock(set) => {
                self.log.push(Event::Mask(self.now.blocked));
                self.now.blocked &= !set;
                self.deliver();
            }
            Op::SetMask(set) => {
                self.log.push(Event::Mask(self.now.blocked));
                self.now.blocked = *set;
                self.deliver();
            }
            Op::Observe => self.observe(),
        }
    }

    fn leave(&mut self, guards: &mut Guards, which: usize) {
        guards.remove(which);
        self.now.regions -= 1;
        self.deliver();
    }

    fn arrive(&mut self, index: usize) {
        if self.sent == BUDGET {
            return;
        }
        self.sent += 1;
        let waiting = self.pending.entry(index).or_default();
        match waiting.first_mut() {
            Some(instance) if !CAST[index].queues => instance.push(self.sent),
            _ => waiting.push(vec![self.sent]),
        }
        self.deliver();
    }

    fn deliverable(&self, index: usize) -> bool {
        self.now.blocked & 1 << index == 0 && (self.now.regions == 0 || CAST[index].immediate)
    }

    fn deliver(&mut self) {
        while let Some(index) = self.pending.keys().copied().find(|index| self.deliverable(*index)) {
            let waiting = self.pending.get_mut(&index).expect("it was found");
            let serials = waiting.remove(0);
            if waiting.is_empty() {
                self.pending.remove(&index);
            }
            let below = self.now.clone();
            self.now.blocked |= self.program.masks[index] | 1 << index;
            self.deliver();
            self.log.push(Event::Begin { index, serials });
            let program = self.program;
            self.ops(&program.handlers[index], &mut Guards::new());
            self.log.push(Event::End { index });
            // Guards that the handler left, forgotten or not, are gone with it, and so are its changes to the mask.
            self.now = below;
        }
    }
}
