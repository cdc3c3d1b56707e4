//! A subscription that comes and goes over somebody's handler, while threads are taking the signal.

mod support;

use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sigsafe_core::notifier::{self, Subscription};
use sigsafe_core::{SigInfo, SigSet};
use support::notify::{send_values, value};
use support::{Disposition, RT, alone, expect_success, spin_until};

static VALUES: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn keep_value(info: &SigInfo) {
    VALUES.lock().unwrap().push(value(info));
}

fn values() -> usize {
    VALUES.lock().unwrap().len()
}

static FOREIGN: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_foreign(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    FOREIGN.fetch_add(1, Ordering::Relaxed);
}

/// As often as the kernel's queue is full.
fn send_one(value: usize) {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: the value is carried and never dereferenced.
    spin_until(|| unsafe { libc::sigqueue(libc::getpid(), RT.number(), value) } == 0);
}

/// Several threads take them, so that some are in the notifier's handler when the subscription ends.
#[test]
fn every_signal_reaches_the_subscriber_or_the_handler_before_it() {
    alone("every_signal_reaches_the_subscriber_or_the_handler_before_it", || {
        const STREAM: usize = 20_000;
        // And one while there is a subscription, and one while there is none: however fast the stream is over.
        const COUNT: usize = STREAM + 2;
        let foreign = Disposition { handler: count_foreign as *const () as usize, flags: libc::SA_SIGINFO, mask: SigSet::EMPTY };
        foreign.install(RT);
        let over = AtomicBool::new(false);
        let sender = send_values(STREAM as i32);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| spin_until(|| over.load(Ordering::Relaxed)));
            }
            let subscription = Subscription::new(RT.into(), keep_value).unwrap();
            send_one(STREAM);
            spin_until(|| values() > 0);
            subscription.disable(RT.into());
            send_one(STREAM + 1);
            spin_until(|| FOREIGN.load(Ordering::Relaxed) > 0);
            subscription.enable(RT.into()).unwrap();
            let arrived = || values() + FOREIGN.load(Ordering::Relaxed) as usize + notifier::lost() as usize;
            while arrived() < COUNT {
                subscription.disable(RT.into());
                let before = arrived();
                spin_until(|| arrived() > before || before == COUNT);
                subscription.enable(RT.into()).unwrap();
                let before = values();
                spin_until(|| values() > before || arrived() == COUNT);
            }
            drop(subscription);
            over.store(true, Ordering::Relaxed);
        });
        expect_success(sender);
        let mut values = std::mem::take(&mut *VALUES.lock().unwrap());
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len() + FOREIGN.load(Ordering::Relaxed) as usize + notifier::lost() as usize, COUNT, "none twice");
        assert!(!values.is_empty() && FOREIGN.load(Ordering::Relaxed) > 0);
        assert_eq!(Disposition::of(RT), foreign);
    });
}
