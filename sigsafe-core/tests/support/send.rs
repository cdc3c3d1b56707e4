//! Senders: every way in which a signal comes to a process, each a call that the test waits for.

use std::mem::zeroed;
use std::ptr::null_mut;

use sigsafe_core::{Signal, mask};

use super::{errno, log, spin_until};

/// The calling thread, as the kernel numbers it.
pub fn thread() -> libc::pid_t {
    // SAFETY: the call takes nothing and always succeeds. It is the kernel's own: musl's `gettid` remembers the number, and is wrong in a
    // child of vfork.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

/// This process.
pub fn process() -> libc::pid_t {
    // SAFETY: the call takes nothing and always succeeds.
    unsafe { libc::getpid() }
}

/// `kill` to this process: SI_USER.
pub fn kill(signal: Signal) {
    // SAFETY: the call takes no pointer.
    assert_eq!(unsafe { libc::kill(process(), signal.number()) }, 0);
}

/// `tgkill` to this thread: SI_TKILL.
pub fn tgkill(signal: Signal) {
    tgkill_to(thread(), signal);
}

/// `tgkill` to a thread of this process.
pub fn tgkill_to(thread: libc::pid_t, signal: Signal) {
    // SAFETY: the call takes no pointer.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process(), thread, signal.number()) }, 0);
}

fn value_of(value: i32) -> libc::sigval {
    libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value as usize) }
}

/// `sigqueue` to this process: SI_QUEUE with a value.
pub fn sigqueue(signal: Signal, value: i32) {
    assert!(try_sigqueue(signal, value));
}

/// The same; `false` when the kernel's queue is full.
pub fn try_sigqueue(signal: Signal, value: i32) -> bool {
    // SAFETY: the value is carried and never dereferenced.
    accepted(libc::c_long::from(unsafe { libc::sigqueue(process(), signal.number(), value_of(value)) }))
}

/// `sigqueue` to one thread, by the system call under `pthread_sigqueue`.
pub fn sigqueue_to(thread: libc::pid_t, signal: Signal, value: i32) {
    assert!(try_sigqueue_to(thread, signal, value));
}

/// The same; `false` when the kernel's queue is full.
pub fn try_sigqueue_to(thread: libc::pid_t, signal: Signal, value: i32) -> bool {
    // SAFETY: zero is a value of every field.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    info.si_signo = signal.number();
    info.si_code = libc::SI_QUEUE;
    let words = (&raw mut info).cast::<u64>();
    // SAFETY: the sender's pid and uid and the value lie in the third and fourth word of a siginfo's sixteen.
    unsafe {
        words.add(2).write(process() as u64 | u64::from(libc::getuid()) << 32);
        words.add(3).write(value as u64);
    }
    // SAFETY: the kernel reads the 128 bytes of `info`.
    accepted(unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process(), thread, signal.number(), &raw const info) })
}

/// Whether a call that queues was accepted; another failure than a full queue is the test's mistake.
fn accepted(result: libc::c_long) -> bool {
    assert!(result == 0 || errno() == libc::EAGAIN, "errno {}", errno());
    result == 0
}

/// Waits until `signal` has been handled, or waits for this thread.
pub fn wait_for_arrival(signal: Signal) {
    spin_until(|| log::count() > 0 || mask::pending().contains(signal));
}

/// A POSIX timer that signals this thread; deleted when dropped.
#[derive(Debug)]
pub struct Timer(libc::timer_t);

impl Timer {
    pub fn new(signal: Signal, value: i32) -> Timer {
        // SAFETY: zero is a value of every field.
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal.number();
        event.sigev_value = value_of(value);
        event.sigev_notify_thread_id = thread();
        let mut timer = null_mut();
        // SAFETY: both pointers are to live values.
        assert_eq!(unsafe { libc::timer_create(libc::CLOCK_REALTIME, &raw mut event, &raw mut timer) }, 0);
        Timer(timer)
    }

    /// Expires once, at once.
    pub fn fire(&self) {
        self.set(0, libc::timespec { tv_sec: 0, tv_nsec: 1 }, 0);
    }

    /// Expires at once, `periods` and a half of an hour each too late, and not again for half an hour: a delivery with that overrun count.
    pub fn fire_late(&self, periods: i64) {
        const HOUR: i64 = 3600;
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live value.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) }, 0);
        now.tv_sec -= periods * HOUR + HOUR / 2;
        self.set(libc::TIMER_ABSTIME, now, HOUR);
    }

    fn set(&self, flags: i32, first: libc::timespec, interval_s: i64) {
        let spec = libc::itimerspec { it_interval: libc::timespec { tv_sec: interval_s, tv_nsec: 0 }, it_value: first };
        // SAFETY: the timer lives, the pointers are to a live value and null.
        assert_eq!(unsafe { libc::timer_settime(self.0, flags, &raw const spec, null_mut()) }, 0);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer lives, and nobody uses it after this.
        unsafe { libc::timer_delete(self.0) };
    }
}
