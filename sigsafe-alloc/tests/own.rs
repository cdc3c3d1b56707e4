//! SigSafeAlloc as a program's allocator.

use std::alloc::{GlobalAlloc, Layout};
use std::thread;

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_test_harness::isolate::isolated;
use sigsafe_test_harness::rng::Generator;

#[global_allocator]
static ALLOCATOR: SigSafeAlloc = SigSafeAlloc;

/// Of a block that has a mapping of its own.
const MAPPED: usize = 20 << 20;

fn one_of<const N: usize>(all: [u32; N], numbers: &mut Generator) -> u32 {
    all[numbers.below(N as u32) as usize]
}

struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

// SAFETY: a block belongs to whoever has this.
unsafe impl Send for Block {}

impl Block {
    fn new(numbers: &mut Generator) -> Block {
        let largest = one_of([64, 64, 64, 1024, 1024, 1024, 20_000, 20_000, 400_000], numbers) * one_of([1, 1, 1, 1, 8], numbers);
        let size = numbers.between(1, largest) as usize;
        let align = 1 << one_of([0, 3, 3, 4, 4, 6, 12, 17], numbers);
        let layout = Layout::from_size_align(size, align).unwrap();
        let mark = numbers.word() as u8;
        let at = if mark & 1 == 0 {
            // SAFETY: the size is not zero.
            unsafe { ALLOCATOR.alloc(layout) }
        } else {
            // SAFETY: the size is not zero.
            let at = unsafe { ALLOCATOR.alloc_zeroed(layout) };
            // SAFETY: so many bytes, zeroed.
            assert!(unsafe { std::slice::from_raw_parts(at, size) }.iter().all(|byte| *byte == 0));
            at
        };
        assert!(!at.is_null() && at.addr() & (align - 1) == 0);
        // SAFETY: a new block.
        unsafe { at.write_bytes(mark, size) };
        Block { at, layout, mark }
    }

    fn check(&self) {
        // SAFETY: our block.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.mark));
    }

    fn resize(&mut self, numbers: &mut Generator) {
        let size = numbers.between(1, 2 * self.layout.size() as u32) as usize;
        let kept = size.min(self.layout.size());
        // SAFETY: our block.
        self.at = unsafe { ALLOCATOR.realloc(self.at, self.layout, size) };
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert!(!self.at.is_null() && self.at.addr() & (self.layout.align() - 1) == 0);
        // SAFETY: our block.
        unsafe {
            assert!(std::slice::from_raw_parts(self.at, kept).iter().all(|byte| *byte == self.mark));
            self.at.write_bytes(self.mark, size);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check();
        // SAFETY: our block.
        unsafe { ALLOCATOR.dealloc(self.at, self.layout) };
    }
}

fn work(seed: u64, rounds: usize) -> Vec<Block> {
    let mut numbers = Generator::new(seed, 0);
    let mut live: Vec<Block> = Vec::new();
    for _ in 0..rounds {
        match numbers.below(5) {
            0 | 1 if live.len() < 300 => live.push(Block::new(&mut numbers)),
            2 if !live.is_empty() => {
                let index = numbers.below(live.len() as u32) as usize;
                live[index].resize(&mut numbers);
            }
            _ if !live.is_empty() => {
                let index = numbers.below(live.len() as u32) as usize;
                live.swap_remove(index);
            }
            _ => {}
        }
    }
    live
}

#[test]
fn blocks_keep_what_is_in_them_and_threads_free_each_other_s() {
    for round in 0..5 {
        let threads: Vec<_> = (0..4).map(|thread| thread::spawn(move || work(round * 100 + thread + 1, 3000))).collect();
        for thread in threads {
            thread.join().unwrap().iter().for_each(Block::check);
        }
    }
}

#[test]
fn everything_is_in_order_and_goes_back() {
    // Nobody else's work is under way.
    isolated("everything_is_in_order_and_goes_back", || {
        ALLOCATOR.purge();
        let before = ALLOCATOR.stats();
        thread::spawn(|| drop((work(77, 20_000), Vec::<u8>::with_capacity(MAPPED)))).join().unwrap();
        ALLOCATOR.verify().unwrap();
        assert!(ALLOCATOR.stats().free_resident != 0 && ALLOCATOR.stats().kept == MAPPED, "{:?}", ALLOCATOR.stats());
        assert!(ALLOCATOR.purge() > MAPPED);
        let after = ALLOCATOR.stats();
        assert_eq!((after.free_resident, after.kept), (0, 0), "{after:?}");
        assert_eq!((after.blocks, after.runs, after.mapped, after.caches), (before.blocks, before.runs, before.mapped, before.caches));
    });
}
