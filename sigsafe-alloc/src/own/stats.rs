//! What there is at this moment, counted as it is asked for: nothing on a fast path counts.

use super::anchor::State;
use super::chunk::{self, UNIT, UNITS};
use super::hardened::OWN_UNITS;
use super::{pool, region};

/// A snapshot of what [`SigSafeAlloc`](super::SigSafeAlloc) has, in bytes unless it says otherwise.
///
/// Taken while other threads work: the fields are each right at some moment during the call, and not all at the same.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Address space of chunks and regions. It stays; of their memory, only what is in use or was lately is there.
    pub chunks: usize,
    /// Of blocks in use that have a size class, those in a thread's cache or on their way between caches included.
    pub blocks: usize,
    /// Of spans: the blocks above, those that are free in their span, and those that were never used.
    pub spans: usize,
    /// Of runs: blocks of 256 KiB to 16 MiB, in whole units.
    pub runs: usize,
    /// Of mappings of their own: larger blocks, those that are aligned to more than 64 KiB, or of more than 1 MiB to more than 4 KiB, and
    /// those for which there was no room for a region.
    pub mapped: usize,
    /// Free, and not given back to the system yet.
    pub free_resident: usize,
    /// Mappings that are kept for later blocks.
    pub kept: usize,
    /// Caches that threads have, a number. Those of threads that have ended without that being noticed, and of the parent's other threads in
    /// a child of `fork`, count until a later thread takes them over.
    pub caches: usize,
    /// Those of them that an operation works on at this moment, or that one has left by `longjmp`: these are their thread's until it
    /// ends, a number.
    pub caches_marked: usize,
}

pub(super) fn stats() -> Stats {
    let mut stats = Stats { chunks: chunk::count() * chunk::CHUNK, ..Stats::default() };
    for chunk in chunk::all() {
        let (free, _) = chunk.free_units();
        let mut in_spans = 0;
        for unit in OWN_UNITS..UNITS {
            let span = chunk.span(unit);
            let anchor = span.anchor();
            if anchor.state() == State::Idle {
                continue;
            }
            let size = span.class().map_or(0, |class| class.size());
            stats.blocks += span.carved().saturating_sub(anchor.count()) * size;
            in_spans += span.units();
        }
        let used = UNITS - OWN_UNITS - free.count_ones() as usize;
        stats.spans += in_spans * UNIT;
        stats.runs += used.saturating_sub(in_spans) * UNIT;
    }
    let (space, used) = region::bytes();
    stats.chunks += space;
    stats.runs += used;
    (stats.mapped, stats.kept) = super::large::bytes();
    stats.free_resident = chunk::dirty_units() * UNIT + region::dirty_units() * region::UNIT;
    (stats.caches, stats.caches_marked) = pool::counts();
    stats
}
