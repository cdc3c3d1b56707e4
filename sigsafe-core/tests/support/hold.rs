//! A thread that is held at one of its system calls, in the middle of the library's code, until the test lets it go on.
//!
//! A filter answers the call by SIGSYS on that thread alone. The handler waits, and then makes the call itself, with a sixth argument
//! that the filter lets through. The library never blocks SIGSYS, so this works wherever it makes a call.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::with_exposed_provenance;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sigsafe_core::Signal;

use super::{Disposition, seccomp, spin_until};

/// Before the call is made, or when it has been made and its caller does not know yet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Before,
    After,
}

/// The sixth argument.
const PASS: u32 = 0x5165_a4e0;

/// The call that is held, counted down; 0 when it has come.
static LEFT: AtomicUsize = AtomicUsize::new(0);
static AFTER: AtomicBool = AtomicBool::new(false);
static HELD: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);

/// The calling thread is to be held at the `nth` `system_call` that it makes from here on, once in its process's life.
pub fn hold_at(nth: usize, system_call: libc::c_long, hold: Hold) {
    LEFT.store(nth, Ordering::Relaxed);
    AFTER.store(hold == Hold::After, Ordering::Relaxed);
    Disposition { handler: on_refusal as *const () as usize, ..Disposition::plain() }.install(Signal::SYS);
    seccomp::trap_unless_passed(system_call, PASS);
}

/// Waits until the thread is held.
pub fn wait_until_held() {
    spin_until(|| HELD.load(Ordering::Acquire));
}

/// Lets it go on.
pub fn go_on() {
    GO_ON.store(true, Ordering::Release);
}

fn wait_here() {
    HELD.store(true, Ordering::Release);
    spin_until(|| GO_ON.load(Ordering::Acquire));
}

extern "C" fn on_refusal(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context of this delivery, which nobody else touches while the handler runs.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let [number, arguments @ .., _] = call_of(registers);
    let is_due = LEFT.fetch_sub(1, Ordering::Relaxed) == 1;
    let after = AFTER.load(Ordering::Relaxed);
    if is_due && !after {
        wait_here();
    }
    let [a, b, c, d, e] = arguments.map(|argument| with_exposed_provenance::<c_void>(argument as usize));
    let errno = super::errno();
    // SAFETY: the interrupted code was about to make this very call with these very arguments; it takes no sixth.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, libc::c_long::from(PASS)) };
    let error = super::errno();
    super::set_errno(errno);
    if is_due && after {
        wait_here();
    }
    set_result(registers, if result == -1 { -i64::from(error) } else { result });
}

/// The call's number and its six arguments.
#[cfg(target_arch = "x86_64")]
fn call_of(registers: &libc::mcontext_t) -> [i64; 7] {
    let names = [libc::REG_RAX, libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9];
    names.map(|name| registers.gregs[name as usize])
}

#[cfg(target_arch = "x86_64")]
fn set_result(registers: &mut libc::mcontext_t, result: i64) {
    registers.gregs[libc::REG_RAX as usize] = result;
}

/// The call's number and its six arguments.
#[cfg(target_arch = "aarch64")]
fn call_of(registers: &libc::mcontext_t) -> [i64; 7] {
    [8, 0, 1, 2, 3, 4, 5].map(|index| registers.regs[index] as i64)
}

#[cfg(target_arch = "aarch64")]
fn set_result(registers: &mut libc::mcontext_t, result: i64) {
    registers.regs[0] = result as u64;
}

/// The state of a thread of this process, as the kernel names it: `'S'` asleep.
pub fn state_of(thread: libc::pid_t) -> char {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).expect("a thread that is there");
    // Its name, which may contain anything, ends in the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().next().unwrap()
}

/// How often a thread of this process has gone to sleep.
pub fn sleeps_of(thread: libc::pid_t) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("a thread that is there");
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    count.trim().parse().unwrap()
}

/// The processor's time that a thread of this process has had, in nanoseconds.
pub fn time_of(thread: libc::pid_t) -> i64 {
    // The kernel's number of a thread's clock: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    let clock = !thread << 3 | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
