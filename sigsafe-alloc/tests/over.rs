//! A foreign handler that lands while a managed signal is being captured over an operation, and uses the allocator itself.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;

use std::alloc::GlobalAlloc;
use std::ffi::c_int;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use block::{A, Block, layout};
use sigsafe_core::handler::{Handler, Registration};
use sigsafe_core::{Signal, critical};
use sigsafe_test_harness::isolate::isolated_within;
use sigsafe_test_harness::step::{self, child};

static MANAGED: AtomicU32 = AtomicU32::new(0);
static FOREIGN: AtomicU32 = AtomicU32::new(0);

/// What the foreign handler asks for and frees: after so many operations over another one it would get a cache of its own.
static BLOCKS: AtomicU32 = AtomicU32::new(1);

extern "C" fn foreign(_: i32) {
    for _ in 0..BLOCKS.load(SeqCst) {
        drop(Block::new(64));
    }
    FOREIGN.fetch_add(1, SeqCst);
}

/// Has a signal held back by a region of its own and let in at its end; and then blocks that signal, as code does that nothing of ours
/// knows of.
extern "C" fn blocks_for_itself(_: i32) {
    // SAFETY: signals that have handlers; sets on this stack.
    unsafe {
        critical(|_| libc::raise(libc::SIGUSR1));
        assert_eq!(MANAGED.load(SeqCst), 1, "let in at the region's end");
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), null_mut());
        libc::raise(libc::SIGUSR1);
    }
    drop(Block::new(64));
    critical(|_| ());
    assert_eq!(MANAGED.load(SeqCst), 1, "what the handler has blocked stays blocked");
    FOREIGN.fetch_add(1, SeqCst);
}

fn pair() {
    let layout = layout(64, 8);
    // SAFETY: our block.
    unsafe { A.dealloc(A.alloc(layout), layout) };
}

/// SIGUSR1's handler, which is managed, and SIGUSR2's, which is not.
fn install(unmanaged: extern "C" fn(i32), flags: c_int) -> Registration {
    // SAFETY: the handler touches an atomic.
    let registration = unsafe { Handler::new(|_| _ = MANAGED.fetch_add(1, SeqCst)).install(Signal::USR1) }.unwrap();
    // SAFETY: zero is a value of every field; the handlers use what handlers may use.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = unmanaged as *const () as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, null_mut()), 0);
    }
    step::prepare();
    pair();
    registration
}

/// What the kernel has blocked.
fn blocked() -> Vec<i32> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: asks, and fills the set.
    let set = unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, null(), set.as_mut_ptr());
        set.assume_init()
    };
    // SAFETY: a set, and signals' numbers.
    (1..65).filter(|signal| unsafe { libc::sigismember(&raw const set, *signal) } == 1).collect()
}

/// The capture blocks what it has captured as it returns, after the foreign handler's operation has let everything in. `flags`: that
/// handler's.
fn nothing_stays_blocked(flags: c_int) {
    let _registration = install(foreign, flags);
    let whole = step::learn(None, &mut pair);
    let (mut captured, mut runs) = (0, 0);
    for at in 0..whole.len() {
        let before = sigsafe_core::deferrals();
        let path = step::learn(Some((at, libc::SIGUSR1)), &mut pair);
        // Those at which the cache is in hand are captured; one in six will do.
        if sigsafe_core::deferrals() == before || captured == 18 {
            continue;
        }
        captured += 1;
        if captured % 6 != 1 {
            continue;
        }
        BLOCKS.store(if captured == 7 { 300 } else { 1 }, SeqCst);
        let first = path.stop_of_sending();
        for second in path.stops_after_sending() {
            let ended = child::run(|| {
                MANAGED.store(0, SeqCst);
                let met = step::run(&[(first, libc::SIGUSR1), (second, libc::SIGUSR2)], &mut pair);
                assert!(!met || (MANAGED.load(SeqCst), FOREIGN.load(SeqCst)) == (1, 1), "both have run");
                assert!(blocked().is_empty(), "{:?} stay blocked", blocked());
                u8::from(met)
            });
            assert!(matches!(ended.code(), Some(0 | 1)), "sent at {at}, {:#x} then: {ended}", second.pc());
            runs += u32::from(ended.code() == Some(1));
        }
    }
    println!("{runs} runs, {captured} boundaries with the cache in hand");
    assert!(runs > 500 && captured == 18, "{runs} runs, {captured} captured");
}

#[test]
fn what_a_foreign_handler_lets_in_during_a_capture_is_not_blocked_for_good() {
    isolated_within("what_a_foreign_handler_lets_in_during_a_capture_is_not_blocked_for_good", Duration::from_secs(600), || {
        nothing_stays_blocked(0);
    });
}

/// Where that handler's stack lies above the thread's, its address says nothing of what it has interrupted.
#[test]
fn on_a_signal_stack_above_the_thread_s_neither() {
    isolated_within("on_a_signal_stack_above_the_thread_s_neither", Duration::from_secs(600), || {
        const BYTES: usize = 1 << 20;
        // SAFETY: new memory, which stays.
        let above = unsafe { libc::mmap(null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) };
        let above = above.expose_provenance();
        // The system maps from the top down: the thread's stack comes to lie below.
        let thread = std::thread::spawn(move || {
            let here = 0_u8;
            assert!((&raw const here).addr() < above, "the signal stack lies above");
            let stack = libc::stack_t { ss_sp: with_exposed_provenance_mut(above), ss_flags: 0, ss_size: BYTES };
            // SAFETY: nobody else's memory, which stays.
            assert_eq!(unsafe { libc::sigaltstack(&raw const stack, null_mut()) }, 0);
            nothing_stays_blocked(libc::SA_ONSTACK);
        });
        thread.join().unwrap();
    });
}

/// What a region of the foreign handler's has let in is nothing to the operation below.
#[test]
fn what_a_foreign_handler_blocks_over_an_operation_stays_blocked() {
    isolated_within("what_a_foreign_handler_blocks_over_an_operation_stays_blocked", Duration::from_secs(600), || {
        let _registration = install(blocks_for_itself, 0);
        let stops = step::learn(None, &mut pair).stops();
        let mut runs = 0;
        for stop in &stops {
            let ended = child::run(|| {
                let met = step::run(&[(*stop, libc::SIGUSR2)], &mut pair);
                // With the handler's return its mask ends, and what it had blocked comes.
                assert!(!met || (MANAGED.load(SeqCst), FOREIGN.load(SeqCst)) == (2, 1), "both have run");
                assert!(blocked().is_empty(), "{:?} stay blocked", blocked());
                u8::from(met)
            });
            assert!(matches!(ended.code(), Some(0 | 1)), "at {:#x}: {ended}", stop.pc());
            runs += usize::from(ended.code() == Some(1));
        }
        println!("{runs} of {} boundaries", stops.len());
        assert!(runs > 50 && runs * 10 > stops.len() * 9, "{runs} of {} boundaries", stops.len());
    });
}
