//! Subscriptions, as the tests of the notifier make and read them.

use sigsafe_core::notifier::Receiver;
use sigsafe_core::{SigInfo, SigSet, Signal};

use super::{RT, fork_child, send, spin_until};

pub const NOT_TO_BE_SUBSCRIBED: SigSet = SigSet::SYNCHRONOUS.union(SigSet::RESERVED).with(Signal::KILL).with(Signal::STOP);

pub fn receiver(signals: SigSet) -> Receiver {
    Receiver::new(signals, 16).expect("it can be subscribed")
}

/// The next notification, which has to come.
pub fn next(receiver: &Receiver) -> SigInfo {
    receiver.recv().expect("in the process that made it")
}

pub fn value(info: &SigInfo) -> i32 {
    // SAFETY: the siginfo of `sigqueue` carries a value.
    unsafe { info.as_raw().si_value().sival_ptr.addr() as i32 }
}

/// Nothing is queued and nothing is under way: a second signal of another kind comes first.
pub fn expect_nothing(receiver: &Receiver) {
    receiver.enable(Signal::WINCH.into()).unwrap();
    send::kill(Signal::WINCH);
    assert_eq!(next(receiver).signal(), Signal::WINCH);
    receiver.disable(Signal::WINCH.into());
    assert!(receiver.try_recv().is_none());
}

fn of_task(thread: libc::pid_t, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).expect("a thread that is there")
}

/// The notifier's thread.
pub fn notifier_thread() -> libc::pid_t {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut threads = tasks.map(|task| task.unwrap().file_name().into_string().unwrap().parse().unwrap());
    threads.find(|thread| of_task(*thread, "comm").trim() == "sigsafe-notify").expect("it runs")
}

/// The kernel's mask of the notifier's thread.
pub fn notifier_mask() -> SigSet {
    let status = of_task(notifier_thread(), "status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    SigSet::from_bits(u64::from_str_radix(mask.trim(), 16).unwrap())
}

/// Sends numbered values of [`RT`] from another process, as fast as the kernel takes them.
pub fn send_values(count: i32) -> libc::pid_t {
    let parent = send::process();
    fork_child(|| {
        for value in 0..count {
            let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value as usize) };
            // SAFETY: the value is carried and never dereferenced. EAGAIN: the parent's queue is full.
            spin_until(|| unsafe { libc::sigqueue(parent, RT.number(), value) } == 0);
        }
    })
}
