//! The notifier's descriptors in a program that treats descriptors badly.

mod support;

use sigsafe_core::Signal;
use sigsafe_core::notifier::Subscription;
use support::notify::{next, receiver};
use support::{alone, alone_until_death, fork_child, reap, send};

fn close(descriptor: i32) {
    // SAFETY: a number; whoever uses it is under test.
    unsafe { libc::close(descriptor) };
}

/// Where a descriptor of this process leads.
fn target(descriptor: i32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
    Some(path.into_os_string().into_string().unwrap())
}

/// A daemon may have closed its standard input, output and error. What it prints all the same must not become a notification.
#[test]
fn what_a_daemon_prints_does_not_get_into_the_notifier_s_pipes() {
    alone("what_a_daemon_prints_does_not_get_into_the_notifier_s_pipes", || {
        let child = fork_child(|| {
            (0..3).for_each(close);
            let receiver = receiver(Signal::USR1.into());
            assert!(receiver.as_raw_fd() > 2);
            assert_eq!([0, 1, 2].map(target), [None, None, None]);
            let stray = [1u8; 128];
            for descriptor in 0..3 {
                // SAFETY: the bytes are live.
                assert_eq!(unsafe { libc::write(descriptor, stray.as_ptr().cast(), stray.len()) }, -1);
            }
            send::kill(Signal::USR1);
            assert_eq!((next(&receiver).signal(), receiver.try_recv().is_none()), (Signal::USR1, true));
        });
        assert_eq!(reap(child), 0);
    });
}

/// Whichever end of the notifier's pipe the program closes.
fn closes_an_end(test_name: &str, end: usize) {
    const MESSAGE: &str = "sigsafe: the notifier's pipe was closed by the program";
    alone_until_death(test_name, Signal::ABRT, MESSAGE, || {
        let pipes = || (3..64).filter(|descriptor| target(*descriptor).is_some_and(|target| target.starts_with("pipe:")));
        let before: Vec<i32> = pipes().collect();
        let _subscription = Subscription::new(Signal::USR1.into(), |_| ()).unwrap();
        let ends: Vec<i32> = pipes().filter(|descriptor| !before.contains(descriptor)).collect();
        assert_eq!(ends.len(), 2);
        close(ends[end]);
        // The thread may sleep in the pipe, or find its notification lost.
        send::kill(Signal::USR1);
        loop {
            std::thread::park();
        }
    });
}

#[test]
fn a_program_that_closes_the_pipe_s_reading_end_is_told_so() {
    closes_an_end("a_program_that_closes_the_pipe_s_reading_end_is_told_so", 0);
}

#[test]
fn a_program_that_closes_the_pipe_s_writing_end_is_told_so() {
    closes_an_end("a_program_that_closes_the_pipe_s_writing_end_is_told_so", 1);
}
