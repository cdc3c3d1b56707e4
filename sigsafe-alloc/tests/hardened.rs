//! The feature `hardened`: each mistake ends the process by SIGABRT, with one line that says what it was.
//!
//! The allocator is not the program's, so that the blocks are those of the test alone.

#![cfg(all(feature = "hardened", target_os = "linux"))]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::thread;

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_test_harness::isolate::{DEFAULT_LIMIT, isolated, outcome};

static A: SigSafeAlloc = SigSafeAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn alloc(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { A.alloc(layout(size)) };
    assert!(!block.is_null());
    block
}

/// # Safety
///
/// None: what it is for is the mistake.
unsafe fn free(block: *mut u8, size: usize) {
    // SAFETY: the feature under test makes it defined what happens.
    unsafe { A.dealloc(block, layout(size)) };
}

/// So the addresses in the expected line are known to the parent: the child prints them first.
fn announce(block: *mut u8) -> *mut u8 {
    println!("block {:#x}", block.addr());
    block
}

/// Runs `body` in a child, which must die of SIGABRT. Its last line must be `sigsafe: ` and the message, in which `BLOCK` stands for the
/// address that it has announced.
#[track_caller]
fn dies(test_name: &str, message: &str, body: impl FnOnce()) {
    let ended = outcome(test_name, DEFAULT_LIMIT, body);
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{test_name}: {ended}");
    let block = ended.output.lines().find_map(|line| line.split_once("block 0x").map(|(_, address)| format!("0x{address}")));
    let expected = format!("sigsafe: {}", message.replace("BLOCK", &block.unwrap()));
    assert_eq!(ended.output.lines().next_back(), Some(&*expected), "{test_name}: {ended}");
    assert!(ended.output.ends_with('\n'));
}

#[test]
fn a_double_free_of_a_small_block() {
    dies("a_double_free_of_a_small_block", "bad free of BLOCK: double free, the block of 64 bytes there is free", || {
        let block = announce(alloc(64));
        // SAFETY: the mistake.
        unsafe {
            free(block, 64);
            free(block, 64);
        }
    });
}

#[test]
fn a_double_free_after_others_and_after_the_block_was_written_to() {
    const NAME: &str = "a_double_free_after_others_and_after_the_block_was_written_to";
    dies(NAME, "bad free of BLOCK: double free, the block of 5120 bytes there is free", || {
        let blocks: Vec<_> = (0..100).map(|_| alloc(5000)).collect();
        for block in &blocks {
            // SAFETY: the first free of each.
            unsafe { free(*block, 5000) };
        }
        // SAFETY: the mistake. The block is in this thread's cache.
        unsafe {
            announce(blocks[95]).write_bytes(0xA5, 5000);
            free(blocks[95], 5000);
        }
    });
}

#[test]
fn a_double_free_by_another_thread_after_the_first_has_ended() {
    const NAME: &str = "a_double_free_by_another_thread_after_the_first_has_ended";
    dies(NAME, "bad free of BLOCK: double free, the block of 112 bytes there is free", || {
        // Keeps the span.
        let other = alloc(100);
        let block = AtomicPtr::new(announce(alloc(100)));
        thread::scope(|scope| {
            // SAFETY: the first free.
            scope.spawn(|| unsafe { free(block.load(SeqCst), 100) }).join().unwrap();
            // SAFETY: the mistake.
            scope.spawn(|| unsafe { free(block.load(SeqCst), 100) }).join().unwrap();
        });
        // SAFETY: our block.
        unsafe { free(other, 100) };
    });
}

/// A unit that was the third of a span says where that started. What starts there now is another span, and the next unit yet another.
#[test]
fn a_pointer_into_a_unit_that_a_longer_span_has_left() {
    const NAME: &str = "a_pointer_into_a_unit_that_a_longer_span_has_left";
    dies(NAME, "bad free of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        const UNIT: usize = 64 * KIB;
        let start = alloc(40_000);
        assert_eq!(start.addr() % UNIT, 0);
        // SAFETY: our block.
        unsafe { free(start, 40_000) };
        A.purge();
        let small: Vec<_> = (0..2 * UNIT / 16).map(|_| alloc(16)).collect();
        assert!(small.iter().all(|block| (0..2 * UNIT).contains(&(block.addr() - start.addr()))));
        // SAFETY: the mistake.
        unsafe { free(announce(start.add(2 * UNIT + 160)), 16) };
    });
}

#[test]
fn of_two_threads_that_free_the_same_block_at_once_one_is_told() {
    const NAME: &str = "of_two_threads_that_free_the_same_block_at_once_one_is_told";
    let ended = outcome(NAME, DEFAULT_LIMIT, || {
        let block = AtomicPtr::new(alloc(48));
        let ready = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    ready.fetch_add(1, SeqCst);
                    while ready.load(SeqCst) < 2 {
                        std::hint::spin_loop();
                    }
                    // SAFETY: the mistake.
                    unsafe { free(block.load(SeqCst), 48) };
                });
            }
        });
    });
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    assert!(ended.output.contains(": double free, the block of 48 bytes there is free\n"), "{ended}");
}

#[test]
fn a_double_free_in_a_span_that_went_back() {
    const NAME: &str = "a_double_free_in_a_span_that_went_back";
    dies(NAME, "bad free of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        let block = announce(alloc(64));
        // SAFETY: the second free is the mistake.
        unsafe {
            free(block, 64);
            A.purge();
            free(block, 64);
        }
    });
}

#[test]
fn a_double_free_of_a_run() {
    const NAME: &str = "a_double_free_of_a_run";
    dies(NAME, "bad free of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        let block = announce(alloc(500 * KIB));
        // SAFETY: the second free is the mistake.
        unsafe {
            free(block, 500 * KIB);
            free(block, 500 * KIB);
        }
    });
}

const FOREIGN: &str = "bad free of BLOCK: invalid pointer, no block starts there: not this allocator's, or a large block that was freed";

/// A large block is freed twice.
fn freed_twice(size: usize) {
    let block = announce(alloc(size));
    // SAFETY: the second free is the mistake.
    unsafe {
        free(block, size);
        free(block, size);
    }
}

#[test]
fn a_double_free_of_a_run_of_a_region() {
    dies("a_double_free_of_a_run_of_a_region", FOREIGN, || freed_twice(3 * MIB));
}

#[test]
fn a_double_free_of_a_mapping() {
    dies("a_double_free_of_a_mapping", FOREIGN, || freed_twice(20 * MIB));
}

#[test]
fn a_double_free_of_a_mapping_that_is_not_kept() {
    dies("a_double_free_of_a_mapping_that_is_not_kept", FOREIGN, || freed_twice(80 * MIB));
}

#[test]
fn a_mapping_that_has_moved_is_freed_where_it_was() {
    dies("a_mapping_that_has_moved_is_freed_where_it_was", FOREIGN, || {
        let block = announce(alloc(20 * MIB));
        // SAFETY: our block; then the mistake.
        unsafe {
            // A page right behind it keeps it from growing where it is, unless that one is in use already.
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            libc::mmap(block.add(20 * MIB).cast(), 4096, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(A.realloc(block, layout(20 * MIB), 200 * MIB), block);
            free(block, 20 * MIB);
        }
    });
}

#[test]
fn the_old_layout_for_a_mapping_that_has_grown() {
    let message = "wrong layout, one of blocks of 20971520 bytes, and the block there has 201326592";
    let ended = outcome("the_old_layout_for_a_mapping_that_has_grown", DEFAULT_LIMIT, || {
        // SAFETY: our block; then the mistake.
        unsafe { free(A.realloc(alloc(20 * MIB), layout(20 * MIB), 192 * MIB), 20 * MIB) };
    });
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    assert!(ended.output.lines().next_back().unwrap().ends_with(message), "{ended}");
}

#[test]
fn a_pointer_to_the_stack() {
    dies("a_pointer_to_the_stack", FOREIGN, || {
        let mut here = 0u64;
        // SAFETY: the mistake.
        unsafe { free(announce((&raw mut here).cast()), 8) };
    });
}

#[test]
fn a_pointer_to_memory_that_is_not_mapped() {
    dies("a_pointer_to_memory_that_is_not_mapped", FOREIGN, || {
        alloc(64);
        // SAFETY: the mistake.
        unsafe { free(announce(std::ptr::without_provenance_mut(0x7123_4560)), 64) };
    });
}

#[test]
fn a_null_pointer() {
    dies("a_null_pointer", FOREIGN, || {
        // SAFETY: the mistake.
        unsafe { free(announce(std::ptr::null_mut()), 2 * MIB) };
    });
}

#[test]
fn a_null_pointer_as_a_mapping() {
    dies("a_null_pointer_as_a_mapping", FOREIGN, || {
        // SAFETY: the mistake.
        unsafe { free(announce(std::ptr::null_mut()), 20 * MIB) };
    });
}

#[test]
fn a_block_of_another_allocator() {
    dies("a_block_of_another_allocator", FOREIGN, || {
        // SAFETY: the mistake.
        unsafe { free(announce(std::alloc::alloc(layout(64))), 64) };
    });
}

#[test]
fn a_pointer_into_the_middle_of_a_block() {
    let message = "bad free of BLOCK: invalid pointer, 8 bytes inside the block of 80 bytes at START";
    let ended = outcome("a_pointer_into_the_middle_of_a_block", DEFAULT_LIMIT, || {
        let block = alloc(80);
        // SAFETY: the mistake.
        unsafe { free(announce(block.add(8)), 80) };
    });
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    let address = ended.output.lines().find_map(|line| usize::from_str_radix(line.split_once("block 0x")?.1, 16).ok()).unwrap();
    let expected = message.replace("BLOCK", &format!("{address:#x}")).replace("START", &format!("{:#x}", address - 8));
    assert_eq!(ended.output.lines().next_back(), Some(&*format!("sigsafe: {expected}")), "{ended}");
}

#[test]
fn a_pointer_into_the_middle_of_a_run() {
    let ended = outcome("a_pointer_into_the_middle_of_a_run", DEFAULT_LIMIT, || {
        let block = alloc(500 * KIB);
        // SAFETY: the mistake.
        unsafe { free(block.add(128 * KIB), 500 * KIB) };
    });
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    assert!(ended.output.contains(": invalid pointer, 131072 bytes inside the block of 524288 bytes at 0x"), "{ended}");
}

#[test]
fn a_pointer_to_the_allocator_s_own_memory() {
    const NAME: &str = "a_pointer_to_the_allocator_s_own_memory";
    dies(NAME, "bad free of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        let chunk = alloc(64).map_addr(|address| address & !(4 * MIB - 1));
        // SAFETY: the mistake.
        unsafe { free(announce(chunk), 8) };
    });
}

#[test]
fn a_block_that_was_never_given_out() {
    const NAME: &str = "a_block_that_was_never_given_out";
    dies(NAME, "bad free of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        let last = alloc(64).map_addr(|address| (address | (64 * KIB - 1)) - 63);
        // SAFETY: the mistake.
        unsafe { free(announce(last), 64) };
    });
}

#[test]
fn a_layout_of_another_class() {
    const NAME: &str = "a_layout_of_another_class";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 128 bytes, and the block there has 64", || {
        let block = announce(alloc(64));
        // SAFETY: the mistake.
        unsafe { free(block, 128) };
    });
}

#[test]
fn a_class_s_layout_for_a_run() {
    const NAME: &str = "a_class_s_layout_for_a_run";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 64 bytes, and the block there has 524288", || {
        let block = announce(alloc(500 * KIB));
        // SAFETY: the mistake.
        unsafe { free(block, 64) };
    });
}

#[test]
fn a_run_s_layout_for_a_block_of_a_class() {
    const NAME: &str = "a_run_s_layout_for_a_block_of_a_class";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 524288 bytes, and the block there has 64", || {
        let block = announce(alloc(64));
        // SAFETY: the mistake.
        unsafe { free(block, 500 * KIB) };
    });
}

#[test]
fn a_run_s_layout_for_a_longer_run() {
    const NAME: &str = "a_run_s_layout_for_a_longer_run";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 524288 bytes, and the block there has 655360", || {
        let block = announce(alloc(640 * KIB));
        // SAFETY: the mistake.
        unsafe { free(block, 500 * KIB) };
    });
}

#[test]
fn the_old_layout_for_a_run_that_was_cut() {
    const NAME: &str = "the_old_layout_for_a_run_that_was_cut";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 655360 bytes, and the block there has 393216", || {
        let block = announce(alloc(640 * KIB));
        // SAFETY: our block; then the mistake.
        unsafe {
            assert_eq!(A.realloc(block, layout(640 * KIB), 384 * KIB), block);
            free(block, 640 * KIB);
        }
    });
}

#[test]
fn the_old_layout_for_a_run_that_has_grown() {
    const NAME: &str = "the_old_layout_for_a_run_that_has_grown";
    dies(NAME, "bad free of BLOCK: wrong layout, one of blocks of 393216 bytes, and the block there has 655360", || {
        let block = announce(alloc(384 * KIB));
        // SAFETY: our block, behind which all units are free; then the mistake.
        unsafe {
            assert_eq!(A.realloc(block, layout(384 * KIB), 640 * KIB), block);
            free(block, 384 * KIB);
        }
    });
}

/// A block of one size is freed by the layout of another.
#[track_caller]
fn dies_of_the_layout(test_name: &str, size: usize, freed_as: usize) {
    let message = format!("bad free of BLOCK: wrong layout, one of blocks of {freed_as} bytes, and the block there has {size}");
    dies(test_name, &message, || {
        let block = announce(alloc(size));
        // SAFETY: the mistake.
        unsafe { free(block, freed_as) };
    });
}

#[test]
fn a_region_s_layout_for_a_longer_run_of_it() {
    dies_of_the_layout("a_region_s_layout_for_a_longer_run_of_it", 4 * MIB, 2 * MIB);
}

#[test]
fn a_class_s_layout_for_a_run_of_a_region() {
    dies_of_the_layout("a_class_s_layout_for_a_run_of_a_region", 4 * MIB, 64);
}

#[test]
fn a_region_s_layout_for_a_mapping() {
    dies_of_the_layout("a_region_s_layout_for_a_mapping", 20 * MIB, 4 * MIB);
}

#[test]
fn a_mapping_s_layout_for_a_run_of_a_region() {
    dies_of_the_layout("a_mapping_s_layout_for_a_run_of_a_region", 4 * MIB, 20 * MIB);
}

#[test]
fn a_mapping_s_layout_for_a_longer_mapping() {
    dies_of_the_layout("a_mapping_s_layout_for_a_longer_mapping", 40 * MIB, 20 * MIB);
}

#[test]
fn a_class_s_layout_for_a_mapping() {
    dies_of_the_layout("a_class_s_layout_for_a_mapping", 40 * MIB, 64);
}

#[test]
fn realloc_of_a_freed_block() {
    const NAME: &str = "realloc_of_a_freed_block";
    dies(NAME, "bad realloc of BLOCK: use after free, the block of 64 bytes there is free", || {
        let block = announce(alloc(60));
        // SAFETY: the second is the mistake; the size stays in the block's class.
        unsafe {
            free(block, 60);
            A.realloc(block, layout(60), 64);
        }
    });
}

#[test]
fn realloc_with_another_class_s_layout() {
    const NAME: &str = "realloc_with_another_class_s_layout";
    dies(NAME, "bad realloc of BLOCK: wrong layout, one of blocks of 10240 bytes, and the block there has 64", || {
        let block = announce(alloc(64));
        // SAFETY: the mistake.
        unsafe { A.realloc(block, layout(10_000), 20_000) };
    });
}

#[test]
fn realloc_of_a_freed_run() {
    const NAME: &str = "realloc_of_a_freed_run";
    dies(NAME, "bad realloc of BLOCK: invalid pointer, no block is there: never given out, or freed with all around it", || {
        let block = announce(alloc(500 * KIB));
        // SAFETY: the second is the mistake.
        unsafe {
            free(block, 500 * KIB);
            A.realloc(block, layout(500 * KIB), 600 * KIB);
        }
    });
}

/// A large block is resized after it was freed.
fn resized_when_free(size: usize, new: usize) {
    let block = announce(alloc(size));
    // SAFETY: the second is the mistake.
    unsafe {
        free(block, size);
        A.realloc(block, layout(size), new);
    }
}

#[test]
fn realloc_of_a_freed_run_of_a_region() {
    let message = FOREIGN.replace("free of BLOCK", "realloc of BLOCK");
    dies("realloc_of_a_freed_run_of_a_region", &message, || resized_when_free(3 * MIB, 5 * MIB));
}

#[test]
fn realloc_of_a_freed_mapping() {
    let message = FOREIGN.replace("free of BLOCK", "realloc of BLOCK");
    dies("realloc_of_a_freed_mapping", &message, || resized_when_free(20 * MIB, 40 * MIB));
}

const OVERWRITTEN: &str =
    "overwritten link in the free block of 64 bytes at BLOCK: written past the end of the block before it, or after it was freed";

/// Two blocks of 64 bytes, the second right behind the first.
fn neighbours() -> (*mut u8, *mut u8) {
    let mut first = alloc(64);
    loop {
        let second = alloc(64);
        if second.addr() == first.addr() + 64 {
            return (first, second);
        }
        first = second;
    }
}

#[test]
fn a_byte_written_past_a_block_into_the_next_free_one() {
    dies("a_byte_written_past_a_block_into_the_next_free_one", OVERWRITTEN, || {
        let (first, second) = neighbours();
        // SAFETY: our block; then the mistake.
        unsafe {
            free(announce(second), 64);
            first.add(64).write(first.add(64).read().wrapping_add(1));
        }
        alloc(64);
    });
}

#[test]
fn zeros_written_past_a_block_into_the_next_free_one() {
    dies("zeros_written_past_a_block_into_the_next_free_one", OVERWRITTEN, || {
        let (first, second) = neighbours();
        // SAFETY: our block; then the mistake.
        unsafe {
            free(announce(second), 64);
            first.write_bytes(0, 80);
        }
        alloc(64);
    });
}

#[test]
fn an_overwritten_link_that_is_found_when_lists_go_back_to_their_spans() {
    dies("an_overwritten_link_that_is_found_when_lists_go_back_to_their_spans", OVERWRITTEN, || {
        thread::spawn(|| {
            let (first, second) = neighbours();
            // SAFETY: our block; then the mistake.
            unsafe {
                free(announce(second), 64);
                first.write_bytes(b'x', 72);
            }
        })
        .join()
        .unwrap();
        A.purge();
    });
}

#[test]
fn a_link_that_is_another_block_s_is_found_before_the_block_is_given_out() {
    const NAME: &str = "a_link_that_is_another_block_s_is_found_before_the_block_is_given_out";
    let ended = outcome(NAME, DEFAULT_LIMIT, || {
        let (a, b, live) = (alloc(64), alloc(64), announce(alloc(64)));
        // SAFETY: our blocks. Then a free block's first word becomes what it were if `live` came next: of the encoding, the product is
        // taken back, the addresses are exchanged, and the secret is not needed.
        unsafe {
            free(a, 64);
            free(b, 64);
            let factor = 0x9E37_79B9_7F4A_7C15_u64 as usize;
            let inverse = (0..5).fold(factor, |inverse, _| inverse.wrapping_mul(2usize.wrapping_sub(factor.wrapping_mul(inverse))));
            let word = b.cast::<usize>();
            word.write((word.read().wrapping_mul(inverse) ^ a.addr() ^ live.addr()).wrapping_mul(factor));
        }
        assert_eq!(alloc(64), b);
        alloc(64);
    });
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    let live = ended.output.lines().find_map(|line| line.split_once("block ").map(|(_, address)| address)).unwrap();
    let expected = format!("sigsafe: the free blocks of 64 bytes lead to {live}, which is none: a link was overwritten with another");
    assert_eq!(ended.output.lines().next_back(), Some(&*expected), "{ended}");
}

#[test]
fn links_differ_from_process_to_process_and_are_no_addresses() {
    const NAME: &str = "links_differ_from_process_to_process_and_are_no_addresses";
    let link = || {
        let ended = outcome(NAME, DEFAULT_LIMIT, || {
            let (a, b) = (alloc(64), alloc(64));
            // SAFETY: our blocks; a freed one's memory stays mapped.
            unsafe {
                free(a, 64);
                free(b, 64);
                println!("link {:#x}", b.cast::<usize>().read());
                assert_ne!(b.cast::<usize>().read(), a.addr());
            }
        });
        assert!(ended.passed(), "{ended}");
        ended.output.lines().find_map(|line| line.split_once("link ").map(|(_, words)| words.to_owned())).unwrap()
    };
    assert_ne!(link(), link());
}

static BLOCK: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn free_the_block(_: libc::c_int) {
    // SAFETY: the mistake.
    unsafe { free(BLOCK.load(SeqCst), 64) };
}

fn on_signal(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: plain data for which zero is a value; the handler calls what may be called in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_double_free_in_a_handler() {
    dies("a_double_free_in_a_handler", "bad free of BLOCK: double free, the block of 64 bytes there is free", || {
        on_signal(libc::SIGUSR1, free_the_block);
        // The line must come, and the process die of SIGABRT, also where a handler is set for that.
        extern "C" fn on_abort(_: libc::c_int) {
            // SAFETY: ends the process.
            unsafe { libc::_exit(3) };
        }
        on_signal(libc::SIGABRT, on_abort);
        BLOCK.store(announce(alloc(64)), SeqCst);
        // SAFETY: sends a signal to this thread, twice.
        unsafe {
            libc::raise(libc::SIGUSR1);
            libc::raise(libc::SIGUSR1);
        }
    });
}

#[test]
fn errno_and_the_blocks_around_are_as_they_were_when_nothing_is_wrong() {
    isolated("errno_and_the_blocks_around_are_as_they_were_when_nothing_is_wrong", || {
        let sizes = [1, 8, 16, 24, 100, 1000, 1025, 5000, 40_000, 256 * KIB, 300 * KIB, MIB, MIB + 1, 9 * MIB, 17 * MIB, 30 * MIB];
        for size in sizes {
            // SAFETY: errno is this thread's; our blocks.
            unsafe {
                *libc::__errno_location() = 77;
                let block = alloc(size);
                block.write_bytes(1, size);
                for new in sizes {
                    let there = A.realloc(alloc(size), layout(size), new);
                    assert!(!there.is_null());
                    free(there, new);
                }
                free(block, size);
                assert_eq!(*libc::__errno_location(), 77);
            }
        }
        A.verify().unwrap();
    });
}

#[test]
fn more_large_blocks_than_the_table_has_are_freed_all_the_same() {
    isolated("more_large_blocks_than_the_table_has_are_freed_all_the_same", || {
        // The memory is never touched.
        let blocks: Vec<_> = (0..80_000).map(|_| alloc(256 * KIB + 1)).collect();
        for block in blocks {
            // SAFETY: our block.
            unsafe { free(block, 256 * KIB + 1) };
        }
    });
}

/// A block that cannot be made longer without a copy: after each call the old one, or the new one, is the program's.
#[test]
fn a_block_that_cannot_be_resized_stays_the_program_s() {
    isolated("a_block_that_cannot_be_resized_stays_the_program_s", || {
        for (old, new) in [
            (300 * KIB, MIB),
            (2 * MIB, 9 * MIB),
            (9 * MIB, 20 * MIB),
            (20 * MIB, 40 * MIB),
            (40 * MIB, 20 * MIB),
            (20 * MIB, 400 * KIB),
            (20 * MIB, 100),
        ] {
            let (block, behind) = (alloc(old), alloc(old));
            // SAFETY: our blocks. No address space has room for the first size.
            unsafe {
                assert!(A.realloc(block, layout(old), isize::MAX as usize & !0xFFF).is_null());
                let block = A.realloc(block, layout(old), new);
                free(behind, old);
                free(block, new);
            }
        }
        A.verify().unwrap();
    });
}

/// What says which blocks are live goes back with their memory.
#[test]
fn purge_with_nothing_live_leaves_nothing_of_the_checks() {
    isolated("purge_with_nothing_live_leaves_nothing_of_the_checks", || {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 * KIB
        };
        let mut blocks = Vec::with_capacity(64 * MIB / 16);
        let start = resident();
        (0..blocks.capacity()).for_each(|_| blocks.push(alloc(16)));
        // SAFETY: our blocks.
        blocks.drain(..).for_each(|block| unsafe { free(block, 16) });
        // Its pages are not ours to count.
        drop(blocks);
        A.purge();
        let left = resident().saturating_sub(start);
        assert!(left < 2 * MIB, "{left}");
    });
}

#[cfg(target_arch = "x86_64")]
mod step;

/// Whichever comes second of two frees of the same block is told, also when the one lands in the middle of the other.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_free_at_every_instruction_of_another_free_of_the_same_block() {
    use std::os::unix::process::ExitStatusExt;

    use sigsafe_test_harness::step::child;

    isolated("a_free_at_every_instruction_of_another_free_of_the_same_block", || {
        step::install();
        let _other = alloc(64);
        BLOCK.store(alloc(64), SeqCst);
        let mut at = 1;
        loop {
            let ended = child::run(|| {
                // SAFETY: the first free, or the mistake.
                let ((), stepped) = step::during(at, || free_the_block(0), || unsafe { free(BLOCK.load(SeqCst), 64) });
                println!("{stepped:?}");
                u8::from(stepped.runs != 0)
            });
            if ended.success() {
                break;
            }
            assert_eq!(ended.signal(), Some(libc::SIGABRT), "boundary {at}: {ended}");
            at += 1;
        }
        // SAFETY: our block.
        unsafe { free(BLOCK.load(SeqCst), 64) };
        assert!(at > 20, "{at} boundaries");
    });
}

/// In the middle of an operation, where the handler finds no cache.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_double_free_in_a_handler_in_the_middle_of_an_operation() {
    const NAME: &str = "a_double_free_in_a_handler_in_the_middle_of_an_operation";
    static SEEN: AtomicBool = AtomicBool::new(false);
    fn twice_inside() {
        if sigsafe_alloc::in_allocator() && !SEEN.swap(true, SeqCst) {
            free_the_block(0);
            free_the_block(0);
        }
    }
    dies(NAME, "bad free of BLOCK: double free, the block of 64 bytes there is free", || {
        step::install();
        // Keeps the span, which the handler's free would let go otherwise.
        let _other = alloc(64);
        BLOCK.store(announce(alloc(64)), SeqCst);
        step::during(0, twice_inside, || {
            let block = alloc(64);
            // SAFETY: our block.
            unsafe { free(block, 64) };
        });
    });
}
