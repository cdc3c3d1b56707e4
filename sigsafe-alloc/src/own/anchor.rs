//! The anchor: all of a span's shared state in one word, so that one compare-and-swap changes it.
//!
//! ```text
//!  63            32 31    30 29      16 15            0
//! |      tag       | state  |  count  |     head      |
//! ```
//!
//! `head` is where the first free block lies, in eighths of bytes from the span's start; the blocks link each other through their own
//! memory. `count` says how many they are. The tag goes up with every change.

/// What a span is doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// All of its blocks are out, and no stack or thread has it: whoever frees the next one puts it on its class's stack.
    Full = 2,
    /// On its class's stack, or just taken from there.
    Partial = 1,
    /// No span of a class: free units, or a run. Zero, as new memory is.
    Idle = 0,
    /// A holder takes from it.
    Held = 3,
}

/// A value of the anchor.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Anchor(pub(super) u64);

const COUNT_BITS: u32 = 14;
const TAG: u64 = 1 << 32;

impl Anchor {
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn new(head: usize, count: usize, state: State) -> Anchor {
        debug_assert!(head / 8 <= 0xFFFF && count < 1 << COUNT_BITS);
        Anchor((head / 8) as u64 | (count as u64) << 16 | (state as u64) << 30)
    }

    /// Where the first free block lies, in bytes from the span's start; meaningless when there is none.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn head(self) -> usize {
        (self.0 & 0xFFFF) as usize * 8
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn count(self) -> usize {
        (self.0 >> 16) as usize & ((1 << COUNT_BITS) - 1)
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn state(self) -> State {
        match (self.0 >> 30) & 3 {
            0 => State::Idle,
            1 => State::Partial,
            2 => State::Full,
            _ => State::Held,
        }
    }

    /// What follows this value.
    #[cfg_attr(target_os = "linux", unsafe(link_section = "sigsafe_alloc_text"))]
    pub(super) fn next(self, head: usize, count: usize, state: State) -> Anchor {
        Anchor(Anchor::new(head, count, state).0 | (self.0 & !(TAG - 1)).wrapping_add(TAG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_the_tag_goes_up() {
        let mut anchor = Anchor::new(0, 0, State::Idle);
        for (tag, (head, count, state)) in
            [(8, 1, State::Full), (0xFFFF * 8, 8192, State::Partial), (0, 16383, State::Idle)].into_iter().enumerate()
        {
            anchor = anchor.next(head, count, state);
            assert_eq!((anchor.head(), anchor.count(), anchor.state()), (head, count, state));
            assert_eq!(anchor.0 >> 32, tag as u64 + 1);
        }
        let last = Anchor(u64::MAX).next(16, 1, State::Full);
        assert_eq!((last.0 >> 32, last.head(), last.count()), (0, 16, 1));
    }
}
