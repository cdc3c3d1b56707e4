//! For each class, a stack of the spans that have blocks to give and no holder.
//!
//! Its head is the number of the top span, and a tag that goes up with every change, so that a pop whose top has come and gone
//! in between fails. Descriptors stay descriptors, so that reading the one below a stale top is harmless.
//!
//! Runs in any context.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::chunk;
use super::class::{CLASSES, Class};
use super::span::Span;

/// A cache line each.
#[repr(align(64))]
struct Head {
    /// Tag above, number of the top span below; 0 is none, since unit 0 is no span's.
    top: AtomicU64,
    /// About how many of the spans have all their blocks free.
    idle: AtomicU32,
}

static STACKS: [Head; CLASSES] = [const { Head { top: AtomicU64::new(0), idle: AtomicU32::new(0) } }; CLASSES];

/// As a bound: all spans of the stacks are looked at.
pub(super) const ALL: u32 = u32::MAX;

/// So many idle spans of a class stay where they are.
const IDLE_KEPT: u32 = 4;

/// Puts a span on its class's stack. The caller held it, or has found it full.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn push(span: &'static Span) {
    let Some(class) = span.class() else { return };
    let head = &STACKS[class.index()].top;
    let number = u64::from(span.number());
    let mut top = head.load(Ordering::Relaxed);
    loop {
        span.below.store(top as u32, Ordering::Relaxed);
        match head.compare_exchange_weak(top, (tag_after(top)) | number, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

/// Takes a span from the class's stack, to hold it.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn pop(class: Class) -> Option<&'static Span> {
    let head = &STACKS[class.index()].top;
    let mut top = head.load(Ordering::Acquire);
    loop {
        if top as u32 == 0 {
            return None;
        }
        let span = chunk::by_number(top as u32)?;
        let below = span.below.load(Ordering::Relaxed);
        match head.compare_exchange_weak(top, tag_after(top) | u64::from(below), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(span),
            Err(now) => top = now,
        }
    }
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn tag_after(top: u64) -> u64 {
    (top & !0xFFFF_FFFF).wrapping_add(1 << 32)
}

/// The last block of a span that lies on the stack has been freed. When there are many such spans, they go back to their chunks.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn note_idle(class: Option<Class>) {
    let Some(class) = class else { return };
    if STACKS[class.index()].idle.fetch_add(1, Ordering::Relaxed) >= 2 * IDLE_KEPT {
        trim(class, 4 * IDLE_KEPT);
    }
}

/// Before new memory is mapped: gives the idle spans of all classes back to their chunks. Whether there were any.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn trim_all(bound: u32) -> bool {
    let mut any = false;
    for class in Class::all() {
        // The count misses those that somebody had in hand; who wants all looks.
        if bound == ALL || STACKS[class.index()].idle.load(Ordering::Relaxed) != 0 {
            trim(class, bound);
            any = true;
        }
    }
    any
}

/// Looks through up to `bound` spans of the stack and lets go of those that have all their blocks free.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn trim(class: Class, bound: u32) {
    let head = &STACKS[class.index()];
    head.idle.store(0, Ordering::Relaxed);
    // What is to stay is put back at the end, so that the walk does not meet it again.
    let mut kept: Option<&'static Span> = None;
    let mut left = bound;
    while let Some(span) = pop(class) {
        if span.anchor().count() == span.carved() {
            span.let_go();
        } else {
            // Held spans are on no stack: the word is free for this one.
            span.below.store(kept.map_or(0, Span::number), Ordering::Relaxed);
            kept = Some(span);
        }
        left -= 1;
        if left == 0 {
            // There may be more further down.
            head.idle.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    while let Some(span) = kept {
        let next = span.below.load(Ordering::Relaxed);
        push(span);
        kept = if next == 0 { None } else { chunk::by_number(next) };
    }
}

/// The spans on the class's stack, for checks while nobody is at work.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn spans(class: Class) -> impl Iterator<Item = &'static Span> {
    let by_number = |number: u32| if number == 0 { None } else { chunk::by_number(number) };
    let top = by_number(STACKS[class.index()].top.load(Ordering::Acquire) as u32);
    core::iter::successors(top, move |span| by_number(span.below.load(Ordering::Relaxed)))
}
