//! A foreign handler that lands while a managed signal is being captured over an operation, and uses the allocator itself.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;

use std::alloc::GlobalAlloc;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use block::{A, Block, layout};
use sigsafe_core::Signal;
use sigsafe_core::handler::Handler;
use sigsafe_test_harness::isolate::isolated_within;
use sigsafe_test_harness::step::{self, child};

static MANAGED: AtomicU32 = AtomicU32::new(0);
static FOREIGN: AtomicU32 = AtomicU32::new(0);

extern "C" fn foreign(_: i32) {
    drop(Block::new(64));
    FOREIGN.fetch_add(1, SeqCst);
}

fn pair() {
    let layout = layout(64, 8);
    // SAFETY: our block.
    unsafe { A.dealloc(A.alloc(layout), layout) };
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

/// The capture blocks what it has captured as it returns, after the foreign handler's operation has let everything in.
#[test]
fn what_a_foreign_handler_lets_in_during_a_capture_is_not_blocked_for_good() {
    isolated_within("what_a_foreign_handler_lets_in_during_a_capture_is_not_blocked_for_good", Duration::from_secs(600), || {
        // SAFETY: the handlers touch atomics, and the allocator that handlers may use.
        let _registration = unsafe { Handler::new(|_| _ = MANAGED.fetch_add(1, SeqCst)).install(Signal::USR1) }.unwrap();
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGUSR2, foreign as *const () as usize) };
        step::prepare();
        pair();
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
    });
}
