//! What the tests with real signals share: the forms of a region, a log of handler runs, senders, and the kernel's own view.
//!
//! The tests run in ordinary thread context, one process each; what a handler may call here says so by touching atomics and raw system
//! calls alone: [`log`], [`kernel_mask`].

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file is a crate that uses its own part of this module")]

pub mod alone;
pub mod example;
pub mod fault;
pub mod hold;
pub mod landing;
pub mod log;
pub mod notify;
pub mod seccomp;
pub mod send;
pub mod stack;

pub use alone::{alone, alone_until_death, alone_within};

use std::mem::zeroed;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};

use sigsafe_core::handler::{Handler, Registration};
use sigsafe_core::{Backend, DefaultBackend, FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with};

pub const RT: Signal = match Signal::real_time(3) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+3 exists"),
};

/// Built to run under an emulator (scripts/targets.sh).
pub const EMULATED: bool = option_env!("SIGSAFE_TEST_RUNNER").is_some();

/// The signal of a fault, to be sent and not raised by an instruction. An emulator needs SIGSEGV and SIGBUS for itself, so that none waits
/// in the kernel, and a thread of its own takes SIGFPE and SIGILL: SIGTRAP stands for it there.
pub const SENT_FAULT: Signal = if EMULATED { Signal::TRAP } else { Signal::SEGV };

/// The signals that there are. An emulator keeps the last four for itself: they can be neither blocked nor sent.
pub const SIGNALS: SigSet = if EMULATED { SigSet::from_bits(u64::MAX >> 4) } else { SigSet::FULL };

/// A way to be in a region.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Closure,
    Guard,
    FullClosure,
    FullGuard,
    NestedClosures,
    GuardInFullClosure,
    FullClosureInGuard,
    FullGuardInClosure,
    ClosureInFullGuard,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 9] = [
        Form::Closure,
        Form::Guard,
        Form::FullClosure,
        Form::FullGuard,
        Form::NestedClosures,
        Form::GuardInFullClosure,
        Form::FullClosureInGuard,
        Form::FullGuardInClosure,
        Form::ClosureInFullGuard,
    ];

    /// Those in which nothing is blocked until a signal comes: it is captured.
    pub const CAPTURING: [Form; 3] = [Form::Closure, Form::Guard, Form::NestedClosures];

    /// Runs `body` in a region of this form, of which nothing is left when this returns.
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        match self {
            Form::Closure => critical(|_| body()),
            Form::Guard => under(MaskGuard::<DefaultBackend>::new(), body),
            Form::FullClosure => critical_with::<FullSyscall, _>(|_| body()),
            Form::FullGuard => under(MaskGuard::<FullSyscall>::new(), body),
            Form::NestedClosures => critical(|_| critical(|_| body())),
            Form::GuardInFullClosure => critical_with::<FullSyscall, _>(|_| under(MaskGuard::<DefaultBackend>::new(), body)),
            Form::FullClosureInGuard => under(MaskGuard::<DefaultBackend>::new(), || critical_with::<FullSyscall, _>(|_| body())),
            Form::FullGuardInClosure => critical(|_| under(MaskGuard::<FullSyscall>::new(), body)),
            Form::ClosureInFullGuard => under(MaskGuard::<FullSyscall>::new(), || critical(|_| body())),
        }
    }
}

/// Runs `body` and then drops the guard.
fn under<B: Backend, R>(guard: MaskGuard<B>, body: impl FnOnce() -> R) -> R {
    let result = body();
    drop(guard);
    result
}

/// Installs a handler of these tests.
pub fn manage(handler: Handler, signal: Signal) -> Registration {
    // SAFETY: the handlers of these tests touch atomics, make system calls and use regions; they return.
    unsafe { handler.install(signal) }.expect("the handler is installed")
}

/// Installs the handler that logs.
pub fn log_runs(signal: Signal) -> Registration {
    manage(Handler::new(log::record), signal)
}

/// The calling thread's mask as the kernel has it. Async-signal-safe.
pub fn kernel_mask() -> SigSet {
    let mut old = 0u64;
    // SAFETY: the kernel writes the eight bytes that it is told of.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, null::<u64>(), &raw mut old, 8usize) };
    SigSet::from_bits(old)
}

/// Edits the kernel's mask behind the library's back, as foreign code does. Async-signal-safe.
pub fn raw_mask(how: i32, set: SigSet) {
    let new = set.bits();
    // SAFETY: the kernel reads the eight bytes that it is told of.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const new, null_mut::<u64>(), 8usize) };
}

/// libc's form of a set.
pub fn libc_set(set: SigSet) -> libc::sigset_t {
    // SAFETY: zero is the empty set.
    let mut long: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: libc's set begins with the kernel's eight bytes.
    unsafe { (&raw mut long).cast::<u64>().write(set.bits()) };
    long
}

/// A disposition that is not the library's, as far as two can be told apart: handler, flags, mask.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    pub handler: usize,
    pub flags: i32,
    pub mask: SigSet,
}

impl Disposition {
    pub const DEFAULT: Disposition = Disposition { handler: libc::SIG_DFL, flags: 0, mask: SigSet::EMPTY };
    pub const IGNORE: Disposition = Disposition { handler: libc::SIG_IGN, flags: 0, mask: SigSet::EMPTY };

    /// The plain C handler that logs.
    pub fn plain() -> Disposition {
        Disposition { handler: log::plain as *const () as usize, flags: libc::SA_SIGINFO, mask: SigSet::EMPTY }
    }

    /// What is installed now.
    pub fn of(signal: Signal) -> Disposition {
        // SAFETY: zero is a value of every field.
        let mut old: libc::sigaction = unsafe { zeroed() };
        // SAFETY: nothing is installed; the pointer is to a live value.
        assert_eq!(unsafe { libc::sigaction(signal.number(), null(), &raw mut old) }, 0);
        // SAFETY: libc's set begins with the kernel's eight bytes.
        let mask = SigSet::from_bits(unsafe { (&raw const old.sa_mask).cast::<u64>().read() });
        // SA_RESTORER is libc's own on x86_64 and says nothing about the disposition.
        Disposition { handler: old.sa_sigaction, flags: old.sa_flags & !0x0400_0000, mask }
    }

    /// Installs it by libc, behind the library's back.
    pub fn install(self, signal: Signal) {
        // SAFETY: zero is a value of every field.
        let mut new: libc::sigaction = unsafe { zeroed() };
        new.sa_sigaction = self.handler;
        new.sa_flags = self.flags;
        new.sa_mask = libc_set(self.mask);
        // SAFETY: the plain handlers of these tests touch atomics alone.
        assert_eq!(unsafe { libc::sigaction(signal.number(), &raw const new, null_mut()) }, 0);
    }
}

/// Gives the processor away until `condition` holds. The test's watchdog ends a wait in vain.
pub fn spin_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Forks; the child runs `body` and exits with 0, or with 1 when it panics. Returns the child's pid to the parent alone.
pub fn fork_child(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: these tests fork from a process of one thread.
    match unsafe { libc::fork() } {
        0 => {
            let passed = catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!passed)) }
        }
        child => {
            assert!(child > 0, "fork");
            child
        }
    }
}

/// Waits for a child and returns its wait status.
pub fn reap(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the pointer is to a live value. EINTR, from a handler without restart, asks for another try.
    spin_until(|| unsafe { libc::waitpid(child, &raw mut status, 0) } == child);
    status
}

/// Waits for a child and fails unless its body returned.
pub fn expect_success(child: libc::pid_t) {
    let status = reap(child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with wait status {status:#x}");
}

/// Sets `RLIMIT_SIGPENDING` to zero: the kernel queues no further siginfo for this user from here.
pub fn exhaust_pending() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const none) }, 0);
}

/// The pages that are mapped.
pub fn mapped_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse().unwrap()
}

/// The calling thread's `errno`. Async-signal-safe.
pub fn errno() -> i32 {
    // SAFETY: libc's errno is valid for the life of the thread.
    unsafe { *libc::__errno_location() }
}

/// Sets it. Async-signal-safe.
pub fn set_errno(value: i32) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value }
}
