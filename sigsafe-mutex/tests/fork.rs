//! Fork: the child is the forking thread, with its locks. In a process of its own, because a child of a process with other
//! threads may do little.

mod support;

use sigsafe_mutex::{Mutex, TryLockError};
use support::watchdog;

/// Runs `act` in a forked child and returns its exit status; -1 if it did not exit by itself.
fn in_fork(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: `act` makes no call but on sigsafe locks, which touch neither the heap nor libc's locks; the child ends by
    // `_exit` and by nothing else.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        watchdog();
        let status = act();
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the status is a live local, and the child is this test's own.
    while unsafe { libc::waitpid(child, &mut status, 0) } != child {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

#[test]
fn the_child_uses_and_releases_what_the_forking_thread_held() {
    watchdog();
    let mutex = Mutex::new(5);
    let guard = mutex.lock();
    let status = in_fork(|| {
        if !mutex.is_owned() || mutex.try_lock().err() != Some(TryLockError::WouldDeadlock) {
            return 1;
        }
        // SAFETY: the child's copy of the guard: the parent's memory, and its release, are apart from this one.
        let inherited = unsafe { std::ptr::read(&guard) };
        drop(inherited);
        if mutex.is_locked() || sigsafe_core::in_region() {
            return 2;
        }
        let mut again = mutex.lock();
        *again += 1;
        if *again != 6 {
            return 3;
        }
        drop(again);
        42
    });
    assert_eq!(status, 42);
    assert_eq!(*guard, 5, "the parent's lock and data are its own");
    drop(guard);
    assert!(!mutex.is_locked());
}

#[test]
fn a_lock_that_another_thread_held_is_refused_in_the_child_and_not_claimed() {
    watchdog();
    let mutex = Mutex::new(0);
    let guard = mutex.lock();
    std::thread::scope(|scope| {
        let mutex = &mutex;
        let status = scope.spawn(move || in_fork(|| i32::from(mutex.try_lock().err() == Some(TryLockError::WouldBlock))));
        assert_eq!(status.join().expect("the forking thread does not panic"), 1);
    });
    drop(guard);
}
