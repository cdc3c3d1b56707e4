//! For each class, a stack of the spans that have blocks to give and no holder.
//!
//! Its head is the number of the top span, and a tag that goes up with every change, so that a pop whose top has come and gone
//! in between fails. Descriptors stay descriptors, so that reading the one below a stale top is harmless.
//!
//! Runs in any context.

use sigsafe_core::mutant;

use super::chunk;
use super::class::{CLASSES, Class};
use super::span::Span;
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// The number of the top span below, a tag above; 0 is none, since unit 0 is no span's.
struct Head(AtomicU64);

/// A cache line each.
#[repr(align(64))]
struct Stack {
    /// Where spans are put, and taken first.
    top: Head,
    /// Where [`trim`] puts what it has looked at. It is taken when there is nothing at the top.
    aside: Head,
    /// About how many of the spans have all their blocks free.
    idle: AtomicU32,
}

static STACKS: [Stack; CLASSES] =
    [const { Stack { top: Head(AtomicU64::new(0)), aside: Head(AtomicU64::new(0)), idle: AtomicU32::new(0) } }; CLASSES];

/// As a bound: all spans of the stacks are looked at.
pub(super) const ALL: usize = usize::MAX;

/// With twice as many idle spans and one more of a class, those that lie near the top of its stack go back to their chunks.
const IDLE_KEPT: u32 = 4;

impl Head {
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn push(&self, span: &'static Span) {
        let number = u64::from(span.number());
        let mut top = self.0.load(Ordering::Relaxed);
        loop {
            span.below.store(top as u32, Ordering::Relaxed);
            match self.0.compare_exchange_weak(top, tag_after(top) | number, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    fn pop(&self) -> Option<&'static Span> {
        let mut top = self.0.load(Ordering::Acquire);
        loop {
            if top as u32 == 0 {
                return None;
            }
            let span = chunk::by_number(top as u32)?;
            let below = span.below.load(Ordering::Relaxed);
            if mutant!("popped-in-two-steps") {
                self.0.store(tag_after(top) | u64::from(below), Ordering::Release);
                return Some(span);
            }
            match self.0.compare_exchange_weak(top, tag_after(top) | u64::from(below), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(span),
                Err(now) => top = now,
            }
        }
    }

    /// All spans, for checks while nobody is at work.
    fn spans(&self) -> impl Iterator<Item = &'static Span> {
        let by_number = |number: u32| if number == 0 { None } else { chunk::by_number(number) };
        let top = by_number(self.0.load(Ordering::Acquire) as u32);
        core::iter::successors(top, move |span| by_number(span.below.load(Ordering::Relaxed)))
    }
}

/// Puts a span on its class's stack. The caller held it, or has found it full.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn push(span: &'static Span) {
    if let Some(class) = span.class() {
        STACKS[class.index()].top.push(span);
    }
}

/// Takes a span from the class's stack, to hold it.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn pop(class: Class) -> Option<&'static Span> {
    let stack = &STACKS[class.index()];
    match stack.top.pop() {
        None => stack.aside.pop(),
        top => top,
    }
}

#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn tag_after(top: u64) -> u64 {
    let tag = if mutant!("stack-untagged") { 0 } else { 1 << 32 };
    (top & !0xFFFF_FFFF).wrapping_add(tag)
}

/// The last block of a span that lies on the stack has been freed. When there are many such spans, they go back to their chunks.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn note_idle(class: Option<Class>) {
    let Some(class) = class else { return };
    if STACKS[class.index()].idle.fetch_add(1, Ordering::Relaxed) >= 2 * IDLE_KEPT {
        trim(class, 4 * IDLE_KEPT as usize);
    }
}

/// Before new memory is mapped: gives the idle spans of all classes back to their chunks. Whether there were any.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
pub(super) fn trim_all(bound: usize) -> bool {
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
///
/// The others go aside and back, one at a time: whoever is stopped in between, or leaves by longjmp, keeps one span from everybody.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn trim(class: Class, bound: usize) {
    let stack = &STACKS[class.index()];
    stack.idle.store(0, Ordering::Relaxed);
    // With a bound it ends also while others put back what is taken here. Each span is met twice at most.
    let left = bound.min(2 * chunk::count() * chunk::UNITS);
    let left = sift(&stack.top, &stack.aside, left);
    let left = sift(&stack.aside, &stack.top, left);
    if left == 0 {
        // There may be more further down.
        stack.idle.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes up to `left` spans, and puts those that are to stay where they go. How many are left.
#[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
fn sift(from: &Head, to: &Head, mut left: usize) -> usize {
    while left != 0 {
        // SIGNAL: a handler that leaves by longjmp while the span is in hand keeps it from everybody.
        let Some(span) = from.pop() else { break };
        left -= 1;
        if span.anchor().count() == span.carved() {
            span.let_go();
        } else {
            to.push(span);
        }
    }
    left
}

/// The spans on the class's stack, for checks while nobody is at work.
pub(super) fn spans(class: Class) -> impl Iterator<Item = &'static Span> {
    let stack = &STACKS[class.index()];
    stack.top.spans().chain(stack.aside.spans())
}
