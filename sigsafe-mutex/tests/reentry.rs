//! The same thread again: handlers that no region holds back, and the main flow's own mistakes, are told so and never hang.

mod support;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::{mem, ptr};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, Signal};
use sigsafe_mutex::{Mutex, SpinMutex, TryLockError};
use support::{assert_aborted, in_child, raise, watchdog};

const MESSAGE: &str = "deadlock: lock() on a mutex that this thread already holds";

/// Installs `handler` by a plain `sigaction`, behind sigsafe's back.
fn install_unmanaged(signal: i32, handler: extern "C" fn(i32)) {
    watchdog();
    // SAFETY: all-zero is a valid `sigaction` (no flags, an empty mask); the handlers of this file touch atomics and locks that
    // report re-entry.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

#[test]
fn try_lock_in_an_unmanaged_handler_says_would_deadlock() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    /// 0 = the handler has not run; 1 = it got the lock; 2 and 3 = the two errors.
    static SAW: AtomicU32 = AtomicU32::new(0);
    extern "C" fn on_signal(_: i32) {
        let saw = match LOCK.try_lock() {
            Ok(_) => 1,
            Err(TryLockError::WouldBlock) => 2,
            Err(TryLockError::WouldDeadlock) => 3,
        };
        SAW.store(saw, SeqCst);
    }
    install_unmanaged(libc::SIGUSR1, on_signal);

    let mut guard = LOCK.lock();
    raise(libc::SIGUSR1);
    assert_eq!(SAW.swap(0, SeqCst), 3, "in the section");
    *guard += 1; // Still ours: the refused try took nothing away.
    assert!(sigsafe_core::in_region());
    drop(guard);
    assert!(!sigsafe_core::in_region());

    raise(libc::SIGUSR1);
    assert_eq!(SAW.swap(0, SeqCst), 1, "outside");
    assert_eq!(*LOCK.lock(), 1);

    // The same handler, while another thread holds the lock.
    let guard = LOCK.lock();
    std::thread::scope(|scope| {
        scope.spawn(|| raise(libc::SIGUSR1));
    });
    assert_eq!(SAW.load(SeqCst), 2, "on another thread");
    drop(guard);
}

#[test]
fn try_lock_in_an_immediate_handler_says_would_deadlock() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    fn on_signal(_: &Delivery<'_>) {
        if LOCK.try_lock().is_err_and(|error| error == TryLockError::WouldDeadlock) {
            REFUSED.fetch_add(1, SeqCst);
        }
    }
    watchdog();
    // SAFETY: the handler touches an atomic and a lock that reports re-entry.
    unsafe { Handler::new(on_signal).immediate(true).install(Signal::USR2) }.expect("SIGUSR2 can be handled");
    let guard = LOCK.lock();
    raise(libc::SIGUSR2);
    assert_eq!(REFUSED.load(SeqCst), 1, "it ran at once, in the section");
    drop(guard);
    assert!(!LOCK.is_locked() && !sigsafe_core::in_region());
}

#[test]
fn lock_in_an_unmanaged_handler_aborts() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    extern "C" fn on_signal(_: i32) {
        *LOCK.lock() += 1;
    }
    let output = in_child("lock_in_an_unmanaged_handler_aborts", || {
        install_unmanaged(libc::SIGUSR1, on_signal);
        let _guard = LOCK.lock();
        raise(libc::SIGUSR1);
    });
    assert_aborted(&output, MESSAGE);
}

#[test]
fn lock_twice_in_the_main_flow_aborts() {
    let output = in_child("lock_twice_in_the_main_flow_aborts", || {
        let mutex = Mutex::new(0);
        let _guard = mutex.lock();
        let _again = mutex.lock();
    });
    assert_aborted(&output, MESSAGE);
}

#[test]
fn lock_twice_with_the_full_backend_aborts_although_every_signal_is_blocked() {
    let output = in_child("lock_twice_with_the_full_backend_aborts_although_every_signal_is_blocked", || {
        let mutex = Mutex::<_, FullSyscall>::with_backend(0);
        let _guard = mutex.lock();
        let _again = mutex.lock();
    });
    assert_aborted(&output, MESSAGE);
}

#[test]
fn control_a_child_without_a_mistake_lives() {
    let output = in_child("control_a_child_without_a_mistake_lives", || {
        let mutex = Mutex::new(0);
        drop(mutex.lock());
        drop(mutex.lock());
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn try_lock_twice_on_a_spin_mutex_says_would_block() {
    let mutex = SpinMutex::new(0);
    let guard = mutex.lock();
    assert_eq!(mutex.try_lock().err(), Some(TryLockError::WouldBlock), "it knows no owner");
    drop(guard);
    assert!(mutex.try_lock().is_ok());
    assert!(!sigsafe_core::in_region());
}
