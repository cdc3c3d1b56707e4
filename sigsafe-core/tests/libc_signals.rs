//! The signals that libc keeps for itself work while a thread is in a region. Without [`alone`](support::alone): the other threads
//! have to answer them.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sigsafe_core::Signal;
use sigsafe_test_harness::isolate::isolated_within;
use support::{Form, log, log_runs, send, spin_until};

/// Far more than `setgid` takes, far less than for ever.
const LIMIT: Duration = Duration::from_secs(10);

/// glibc makes every thread of the process set its own group, by a signal that they must not have blocked.
#[test]
fn setgid_in_another_thread_is_not_stalled_by_a_region() {
    isolated_within("setgid_in_another_thread_is_not_stalled_by_a_region", LIMIT, || {
        log_runs(Signal::USR1);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                assert_eq!(log::count(), 0, "{form:?}");
                let done = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        // SAFETY: the calls take no pointer; the group stays the same.
                        assert_eq!(unsafe { libc::setgid(libc::getgid()) }, 0);
                        done.store(true, Ordering::Relaxed);
                    });
                    spin_until(|| done.load(Ordering::Relaxed));
                });
                assert_eq!(log::count(), 0, "{form:?}: the region still holds back");
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
        }
    });
}
