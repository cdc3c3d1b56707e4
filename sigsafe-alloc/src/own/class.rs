//! Size classes: every size up to [`LARGEST`] is rounded up to one of [`CLASSES`].
//!
//! 8 bytes, then steps of 16 to 128 bytes, then eight steps to each doubling: above 128 bytes less than an eighth of a block is lost.
//! The classes that are powers of two are all there, so that every alignment up to a unit has its blocks.

use core::alloc::Layout;

use super::chunk::UNIT;

/// The largest size that has a class.
pub(super) const LARGEST: usize = 256 << 10;
/// Sizes up to here find their class in a table.
const TABLED: usize = 2048;
/// How many classes there are.
pub(super) const CLASSES: usize = 1 + 8 + 8 * DOUBLINGS;
const DOUBLINGS: usize = (LARGEST / 128).ilog2() as usize;
/// The longest span, in units.
pub(super) const MOST_UNITS: usize = 8;

/// A class, as the place of its bin in a cache: so many words behind the first one. Lower ones are of smaller blocks.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Class(usize);

/// Bytes of a bin.
pub(super) const BIN: usize = 32;
/// In such words the place of a bin is counted, so that one of a small block's fits a byte.
pub(super) const WORD: usize = 8;
/// Bytes before the bins.
pub(super) const BINS: usize = 32;

/// The size of each class's blocks, in bytes.
pub(super) const SIZES: [u32; CLASSES] = {
    let mut sizes = [8; CLASSES];
    let mut class = 1;
    while class < CLASSES {
        sizes[class] = if class <= 8 {
            16 * class as u32
        } else {
            let (doubling, step) = ((class - 9) / 8, (class - 9) % 8 + 1);
            ((128 + 16 * step) << doubling) as u32
        };
        class += 1;
    }
    sizes
};

/// The class of each size up to [`TABLED`]. Of a table by eights the place would have to be computed: four instructions more in each
/// pair of operations, and a cycle of thirteen.
static BY_SIZE: [u8; TABLED + 1] = {
    let mut table = [0; TABLED + 1];
    let (mut size, mut class) = (0, 0);
    while size < table.len() {
        if size > SIZES[class] as usize {
            class += 1;
        }
        assert!(Class::at(class).0 <= u8::MAX as usize);
        table[size] = Class::at(class).0 as u8;
        size += 1;
    }
    table
};

/// How many units a span of each class has: the fewest that hold eight blocks and lose at most a sixteenth at the end, or else what loses
/// least.
const UNITS: [u8; CLASSES] = {
    let mut units = [1; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as usize;
        let mut best = 0;
        let mut best_loss = usize::MAX;
        let mut count = 1;
        while count <= MOST_UNITS {
            let blocks = count * UNIT / size;
            if blocks > 0 {
                // In 1/4096 of the span.
                let loss = (count * UNIT - blocks * size) * 4096 / (count * UNIT);
                if blocks >= 8 && loss <= 256 {
                    best = count;
                    break;
                }
                if loss < best_loss {
                    best_loss = loss;
                    best = count;
                }
            }
            count += 1;
        }
        units[class] = best as u8;
        class += 1;
    }
    units
};

/// How many free blocks of each class a list of a thread's cache takes before it is full: 16 KiB of small ones, 64 KiB of others, but
/// enough that blocks freed and asked for at random are mostly found there.
const LIST: [u16; CLASSES] = {
    let mut list = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as usize;
        let (bytes, fewest) = match size {
            ..=1024 => (16 << 10, 8),
            1025..=UNIT => (64 << 10, 8),
            _ => (64 << 10, 4),
        };
        let fit = bytes / size;
        list[class] = if fit > MOST_LISTED {
            MOST_LISTED as u16
        } else if fit < fewest {
            fewest as u16
        } else {
            fit as u16
        };
        class += 1;
    }
    list
};

/// Blocks of a list.
const MOST_LISTED: usize = 128;

/// Bytes of a full list of a class.
pub(super) const fn bytes_of_list(class: usize) -> usize {
    LIST[class] as usize * SIZES[class] as usize
}

static SIZE_OF: [u32; CLASSES] = SIZES;
static UNITS_OF: [u8; CLASSES] = UNITS;
static LIST_OF: [u16; CLASSES] = LIST;

/// Whether `value` is above `MOST`: a comparison and a branch that is not taken in the common case. Left to itself, the compiler makes
/// numbers of two such comparisons, to branch once.
#[inline(always)]
fn exceeds<const MOST: usize>(value: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: compares two numbers.
        unsafe {
            core::arch::asm!(
                "cmp {value}, {most}",
                "ja {above}",
                value = in(reg) value,
                most = const MOST,
                above = label { return true },
                options(nomem, nostack),
            );
        }
        // SAFETY: compared above.
        unsafe { core::hint::assert_unchecked(value <= MOST) };
        false
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        value > MOST
    }
}

impl Class {
    /// The class of blocks for `layout`, if it is of the small and common kind.
    #[inline(always)]
    pub(super) fn of_small(layout: Layout) -> Option<Class> {
        // Blocks of 8 bytes are not aligned to 16.
        if exceeds::<8>(layout.align()) || exceeds::<TABLED>(layout.size()) {
            return None;
        }
        Some(Class(BY_SIZE[layout.size()].into()))
    }

    /// The class of blocks for a layout that [`of_small`](Self::of_small) has refused, if it is of the common kind.
    #[inline(always)]
    pub(super) fn of_medium(layout: Layout) -> Option<Class> {
        if exceeds::<8>(layout.align()) || exceeds::<LARGEST>(layout.size()) {
            return None;
        }
        // Not refused for its alignment, so it is larger than what is small.
        Some(Class::of_large_step(layout.size()))
    }

    /// The class of blocks for `layout`; `None` when it is too large, or aligned to more than a unit.
    #[inline]
    pub(super) fn of(layout: Layout) -> Option<Class> {
        let (size, align) = (layout.size(), layout.align());
        if align <= 8 && size <= LARGEST { Some(Class::of_size(size)) } else { Class::of_aligned(size, align) }
    }

    #[cold]
    fn of_aligned(size: usize, align: usize) -> Option<Class> {
        if align > UNIT || size > LARGEST || align > LARGEST {
            return None;
        }
        let size = size.max(align);
        let mut class = Class::of_size(size.next_multiple_of(align).min(LARGEST));
        while class.size() & (align - 1) != 0 {
            class = Class::at(class.index() + 1);
        }
        Some(class)
    }

    /// The class of a size up to [`LARGEST`].
    #[inline]
    pub(super) fn of_size(size: usize) -> Class {
        if size <= TABLED { Class(BY_SIZE[size].into()) } else { Class::of_large_step(size) }
    }

    /// The class of a size above 128 and up to [`LARGEST`]: eight steps to each doubling.
    #[inline(always)]
    fn of_large_step(size: usize) -> Class {
        // The lowest bit is of no account. Without it the compiler would ask whether there is a bit at all.
        let last = (size - 1) | 1;
        let highest = last.ilog2() as usize;
        // The four highest bits: 8 to 15.
        let step = last >> (highest - 3);
        // 129 has the first class behind those in steps of 16, and these bits are 8 then.
        Class::at(8 * (highest - 7) + step + 1)
    }

    #[inline(always)]
    const fn at(index: usize) -> Class {
        Class(BIN / WORD * index)
    }

    /// Its number.
    #[inline(always)]
    pub(super) const fn index(self) -> usize {
        let index = self.0 / (BIN / WORD);
        // SAFETY: made above only, of numbers from the tables and of sizes up to `LARGEST`.
        unsafe { core::hint::assert_unchecked(index < CLASSES) };
        index
    }

    /// Where its bin lies in a cache, in words behind the first bin.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn words(self) -> usize {
        self.0
    }

    /// Where its bin lies in a cache, in bytes.
    #[inline(always)]
    pub(super) fn bin(self) -> usize {
        BINS + WORD * self.0
    }

    #[inline(always)]
    pub(super) fn from_index(index: usize) -> Option<Class> {
        (index < CLASSES).then(|| Class::at(index))
    }

    /// Bytes of a block.
    #[inline(always)]
    pub(super) fn size(self) -> usize {
        SIZE_OF[self.index()] as usize
    }

    /// Units of a span.
    #[inline(always)]
    pub(super) fn units(self) -> usize {
        UNITS_OF[self.index()].into()
    }

    /// Blocks of a span.
    #[inline(always)]
    pub(super) fn capacity(self) -> usize {
        self.units() * UNIT / self.size()
    }

    /// Blocks that one list of a cache takes.
    #[inline(always)]
    pub(super) fn list(self) -> usize {
        LIST_OF[self.index()].into()
    }

    /// All classes.
    pub(super) fn all() -> impl Iterator<Item = Class> {
        (0..CLASSES).map(Class::at)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 1..=LARGEST {
            let class = Class::of_size(size);
            assert!(class.size() >= size, "{size}");
            assert!(class.index() == 0 || Class::at(class.index() - 1).size() < size, "{size}");
            assert!(size <= 128 || (class.size() - size) * 8 < class.size(), "{size} loses more than 12.5 % in {}", class.size());
            assert_eq!(Class::of(Layout::from_size_align(size, 1).unwrap()), Some(class));
        }
        assert_eq!(Class::of_size(LARGEST).index(), CLASSES - 1);
        assert_eq!(Class::of(Layout::from_size_align(LARGEST + 1, 1).unwrap()), None);
    }

    #[test]
    fn every_alignment_up_to_a_unit_has_a_class_whose_blocks_keep_it() {
        for shift in 0..=UNIT.ilog2() {
            let align = 1 << shift;
            for size in [1, 7, 8, 9, 24, 40, 100, 129, 1000, 1025, 5000, 40_000, 65_536, 65_537, LARGEST] {
                let class = Class::of(Layout::from_size_align(size, align).unwrap()).unwrap();
                assert!(class.size() >= size && class.size() & (align - 1) == 0, "{size} {align}");
            }
        }
        assert_eq!(Class::of(Layout::from_size_align(8, 2 * UNIT).unwrap()), None);
    }

    #[test]
    fn spans_hold_blocks_and_lose_little() {
        for class in Class::all() {
            let span = class.units() * UNIT;
            assert!(class.units() <= MOST_UNITS && class.capacity() >= 1 && class.capacity() < 1 << 14);
            let lost = span - class.capacity() * class.size();
            assert!(lost * 10 <= span, "{} loses {lost} of {span}", class.size());
        }
    }
}
