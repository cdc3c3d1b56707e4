//! SigSafeAlloc as a program's allocator.

use std::alloc::{GlobalAlloc, Layout};
use std::thread;

use sigsafe_alloc::SigSafeAlloc;

#[global_allocator]
static ALLOCATOR: SigSafeAlloc = SigSafeAlloc;

/// A small generator of numbers that look random: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

// SAFETY: a block belongs to whoever has this.
unsafe impl Send for Block {}

impl Block {
    fn new(numbers: &mut Numbers) -> Block {
        let largest = [64, 64, 64, 1024, 1024, 1024, 20_000, 20_000, 400_000][numbers.below(9)] * [1, 1, 1, 1, 8][numbers.below(5)];
        let size = 1 + numbers.below(largest);
        let align = 1 << [0, 3, 3, 4, 4, 6, 12, 17][numbers.below(8)];
        let layout = Layout::from_size_align(size, align).unwrap();
        let mark = numbers.next() as u8;
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

    fn resize(&mut self, numbers: &mut Numbers) {
        let size = 1 + numbers.below(2 * self.layout.size());
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
    let mut numbers = Numbers(seed | 1);
    let mut live: Vec<Block> = Vec::new();
    for _ in 0..rounds {
        match numbers.below(5) {
            0 | 1 if live.len() < 300 => live.push(Block::new(&mut numbers)),
            2 if !live.is_empty() => {
                let index = numbers.below(live.len());
                live[index].resize(&mut numbers);
            }
            _ if !live.is_empty() => {
                let index = numbers.below(live.len());
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
    let before = ALLOCATOR.stats();
    thread::spawn(|| drop(work(77, 20_000))).join().unwrap();
    println!("{:?}", ALLOCATOR.verify().unwrap());
    println!("{before:?} {:?}", ALLOCATOR.stats());
    println!("{} {:?}", ALLOCATOR.purge(), ALLOCATOR.stats());
}
