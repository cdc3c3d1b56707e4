//! The handler's work: a small tracing garbage collector over a graph of its own.
//!
//! It runs in signal context, in the middle of whatever the thread was doing, and never asks what that was. Its nodes come from
//! the subject; each run changes some edges, marks from the roots, frees what they no longer reach (checking the pattern of each
//! block), and allocates anew. One run is bounded: at most `NODES` nodes are visited and `BORN_PER_RUN` are born. All of
//! its own memory is in the struct, made before the storm.

use crate::block::{Block, draw_layout};
use crate::fault::{Fault, FaultKind};
use crate::rng::Generator;
use crate::subject::parts::Heap;

/// Places for nodes; one word has a bit for each.
const NODES: usize = 64;
/// Places for roots.
const ROOTS: usize = 6;
/// Edges of a node.
const EDGES: usize = 3;
/// Nodes that a run allocates, if it finds places.
const BORN_PER_RUN: usize = 3;
/// The largest node: smaller than the main flow's largest block, so that a run stays short.
const LARGEST_NODE: u32 = 3072;
/// The edges and their check word, at the head of each node.
const HEAD: usize = (EDGES + 1) * 2;
/// An edge or root that leads nowhere.
const NIL: u16 = u16::MAX;
/// What the check word of a node without any edge would be if `NIL` were zero: it keeps a zeroed head from looking right.
const CHECK: u16 = 0x5A5A;

/// The graph: which places are taken, and the roots. Edges live in the nodes, in the subject's memory.
pub(crate) struct Graph {
    heap: &'static Heap,
    nodes: [Option<Block>; NODES],
    roots: [u16; ROOTS],
    generator: Generator,
    serial: u64,
    /// Nodes freed so far.
    freed: u64,
}

impl Graph {
    /// An empty graph over `heap`, whose choices come from `generator`.
    pub(crate) fn new(heap: &'static Heap, generator: Generator) -> Graph {
        Graph { heap, nodes: [const { None }; NODES], roots: [NIL; ROOTS], generator, serial: 0, freed: 0 }
    }

    /// One run. Signal context.
    pub(crate) fn collect(&mut self) -> Result<(), Fault> {
        self.mutate()?;
        let reached = self.mark()?;
        self.sweep(reached)?;
        self.allocate()
    }

    /// Checks and frees every node. Thread context, when no handler can run any more.
    pub(crate) fn drain(&mut self) -> Result<(), Fault> {
        self.mark()?;
        self.roots = [NIL; ROOTS];
        self.sweep(0)
    }

    /// Cuts one root or edge at random, and leads another one somewhere else.
    fn mutate(&mut self) -> Result<(), Fault> {
        let root = self.generator.below(ROOTS as u32) as usize;
        if self.generator.one_in(4) {
            self.roots[root] = NIL;
        }
        let (from, to) = (self.any_place(), self.any_place());
        let target = if self.nodes[to].is_some() && !self.generator.one_in(3) { to as u16 } else { NIL };
        let edge = self.generator.below(EDGES as u32) as usize;
        if self.nodes[from].is_some() {
            let mut edges = self.edges(from)?;
            edges[edge] = target;
            self.set_edges(from, edges);
        }
        Ok(())
    }

    /// The set of nodes that the roots reach, walking the edges in the subject's memory.
    fn mark(&mut self) -> Result<u64, Fault> {
        let mut reached = 0_u64;
        let mut stack = [0_u16; NODES];
        let mut height = 0;
        for root in self.roots {
            push(root, &mut reached, &mut stack, &mut height);
        }
        while height > 0 {
            height -= 1;
            for edge in self.edges(stack[height].into())? {
                push(edge, &mut reached, &mut stack, &mut height);
            }
        }
        Ok(reached)
    }

    /// Frees every node outside `reached`.
    fn sweep(&mut self, reached: u64) -> Result<(), Fault> {
        for place in 0..NODES {
            if reached >> place & 1 == 0
                && let Some(node) = self.nodes[place].take()
            {
                node.release()?;
                self.freed += 1;
            }
        }
        Ok(())
    }

    /// Allocates into free places, each new node behind a root and leading to what that root led to.
    fn allocate(&mut self) -> Result<(), Fault> {
        for _ in 0..BORN_PER_RUN {
            let start = self.any_place();
            let Some(place) = (0..NODES).map(|step| (start + step) % NODES).find(|place| self.nodes[*place].is_none()) else {
                return Ok(());
            };
            self.serial += 1;
            let layout = draw_layout(&mut self.generator, LARGEST_NODE);
            self.nodes[place] = Some(Block::obtain(self.heap, layout, HEAD, self.serial));
            let root = self.generator.below(ROOTS as u32) as usize;
            let mut edges = [NIL; EDGES];
            edges[0] = self.roots[root];
            self.set_edges(place, edges);
            self.roots[root] = place as u16;
        }
        Ok(())
    }

    /// The edges of a live node, checked: each leads nowhere or to a live node, and the check word fits.
    fn edges(&self, place: usize) -> Result<[u16; EDGES], Fault> {
        let Some(node) = &self.nodes[place] else { return Ok([NIL; EDGES]) };
        let mut words = [0_u16; EDGES + 1];
        for (word, bytes) in words.iter_mut().zip(node.bytes().chunks_exact(2)) {
            *word = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        let [edges @ .., check] = words;
        let leads = |edge: &u16| *edge == NIL || self.nodes.get(usize::from(*edge)).is_some_and(Option::is_some);
        if check != check_of(edges) || !edges.iter().all(leads) {
            return Err(node.fault(FaultKind::Edges, 0, check_of(edges).into(), check.into()));
        }
        Ok(edges)
    }

    fn set_edges(&mut self, place: usize, edges: [u16; EDGES]) {
        if let Some(node) = &mut self.nodes[place] {
            let words = edges.into_iter().chain([check_of(edges)]);
            for (bytes, word) in node.bytes_mut().chunks_exact_mut(2).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    fn any_place(&mut self) -> usize {
        self.generator.below(NODES as u32) as usize
    }
}

fn check_of(edges: [u16; EDGES]) -> u16 {
    edges.iter().fold(CHECK, |check, edge| check.rotate_left(3) ^ edge)
}

/// Puts a node on the stack the first time that it is reached. The stack has room for every node once.
fn push(node: u16, reached: &mut u64, stack: &mut [u16; NODES], height: &mut usize) {
    if node != NIL && *reached >> node & 1 == 0 {
        *reached |= 1 << node;
        stack[*height] = node;
        *height += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    static HEAP: System = System;

    #[test]
    fn garbage_keeps_flowing_and_the_graph_stays_alive() {
        for seed in 0..20 {
            let mut graph = Graph::new(&HEAP, Generator::new(seed, 0));
            for _ in 0..2000 {
                graph.collect().unwrap();
            }
            assert!(graph.freed > 2000, "seed {seed}: only {} freed", graph.freed);
            assert!(graph.mark().unwrap().count_ones() > 4, "seed {seed}");
            graph.drain().unwrap();
            assert!(graph.nodes.iter().all(Option::is_none));
            assert_eq!(graph.freed, graph.serial);
        }
    }

    #[test]
    fn a_damaged_node_is_noticed() {
        for head in [true, false] {
            let mut graph = Graph::new(&HEAP, Generator::new(4, 0));
            for _ in 0..50 {
                graph.collect().unwrap();
            }
            let node = graph.nodes.iter_mut().flatten().next().unwrap();
            if head {
                node.bytes_mut()[1] ^= 1;
            } else {
                node.damage();
            };
            let fault = (0..2000).find_map(|_| graph.collect().err()).expect("damage to be noticed");
            assert_eq!(fault.kind == FaultKind::Edges, head, "{fault}");
        }
    }
}
