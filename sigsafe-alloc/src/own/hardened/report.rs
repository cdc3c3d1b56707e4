//! What was found to be wrong, in one line on standard error, and the end of the process by SIGABRT.
//!
//! Runs in any context, also while a cache is taken: it allocates nothing, and comes back to nobody.

use core::str;

use sigsafe_core::fatal;

use super::super::class::Class;
use super::{Found, Wish, find};

/// A number as text.
struct Text {
    digits: [u8; 20],
    start: usize,
}

impl Text {
    fn decimal(number: usize) -> Text {
        Text::new(number, 10)
    }

    /// With `0x` before it, as every address has in these lines.
    fn address(number: usize) -> Text {
        let mut text = Text::new(number, 16);
        text.push(b'x');
        text.push(b'0');
        text
    }

    fn new(mut number: usize, base: usize) -> Text {
        let mut text = Text { digits: [0; 20], start: 20 };
        loop {
            text.push(b"0123456789abcdef"[number % base]);
            number /= base;
            if number == 0 {
                return text;
            }
        }
    }

    /// In front. There is room for 2^64 in either base.
    fn push(&mut self, digit: u8) {
        self.start = self.start.saturating_sub(1);
        self.digits[self.start] = digit;
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.digits[self.start..]).unwrap_or("?")
    }
}

/// The pointer is not of a live block of so many bytes.
#[cold]
#[inline(never)]
pub(super) fn bad_pointer(wish: Wish, block: *mut u8, bytes: usize) -> ! {
    let (wish, twice) = match wish {
        Wish::Free => ("free", "double free"),
        Wish::Realloc => ("realloc", "use after free"),
    };
    let (address, said) = (Text::address(block.addr()), Text::decimal(bytes));
    let start = ["bad ", wish, " of ", address.as_str(), ": "];
    let line = |rest: &[&str]| -> ! {
        let mut parts = [""; 16];
        for (part, text) in parts.iter_mut().zip(start.iter().chain(rest)) {
            *part = text;
        }
        fatal(&parts)
    };
    match find(block) {
        Found::Nothing => line(&["invalid pointer, no block starts there: not this allocator's, or a large block that was freed"]),
        Found::Unused => line(&["invalid pointer, no block is there: never given out, or freed with all around it"]),
        Found::Free(size) => line(&[twice, ", the block of ", Text::decimal(size).as_str(), " bytes there is free"]),
        Found::Live(at, size) if at == block.addr() => {
            line(&["wrong layout, one of blocks of ", said.as_str(), " bytes, and the block there has ", Text::decimal(size).as_str()])
        }
        Found::Live(at, size) => line(&[
            "invalid pointer, ",
            Text::decimal(block.addr() - at).as_str(),
            " bytes inside the block of ",
            Text::decimal(size).as_str(),
            " bytes at ",
            Text::address(at).as_str(),
        ]),
    }
}

/// A free block holds what is no link.
#[cold]
#[inline(never)]
pub(super) fn overwritten_link(block: *mut u8) -> ! {
    let size = match find(block) {
        Found::Free(size) | Found::Live(_, size) => size,
        Found::Nothing | Found::Unused => 0,
    };
    fatal(&[
        "overwritten link in the free block of ",
        Text::decimal(size).as_str(),
        " bytes at ",
        Text::address(block.addr()).as_str(),
        ": written past the end of the block before it, or after it was freed",
    ])
}

/// The lists lead to what is no free block of the class.
#[cold]
#[inline(never)]
pub(super) fn spoiled_list(block: *mut u8, class: Class) -> ! {
    fatal(&[
        "the free blocks of ",
        Text::decimal(class.size()).as_str(),
        " bytes lead to ",
        Text::address(block.addr()).as_str(),
        ", which is none: a link was overwritten with another",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for (number, decimal, address) in [
            (0, "0", "0x0"),
            (1, "1", "0x1"),
            (262_144, "262144", "0x40000"),
            (usize::MAX - 1, "18446744073709551614", "0xfffffffffffffffe"),
        ] {
            if usize::BITS == 64 || number < 1 << 20 {
                assert_eq!((Text::decimal(number).as_str(), Text::address(number).as_str()), (decimal, address));
            }
        }
    }
}
