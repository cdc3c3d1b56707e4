//! A signal at every instruction, in two steps. The way of an operation is *learnt* with the processor's trap flag, which makes it
//! raise SIGTRAP after each instruction. Then it *runs* once for each boundary on that way, at full speed up to a breakpoint there, whose
//! SIGTRAP sends the signal under test. SIGTRAP's handler has everything blocked, so the signal arrives as that handler returns: exactly
//! at the boundary. One run may send two.
//!
//! Three things need care. A string instruction that repeats itself traps after each round, and counts as one boundary. After a `syscall` instruction the processor raises no trap, so that boundary would never be met; the
//! handler performs the call itself, a change of the mask by editing the mask that its own return restores, and steps over it. And
//! the kernel clears the trap flag as it enters a handler: a breakpoint on the trampoline's first instruction sets it again, so that
//! handlers are learnt too, to the instruction that returns from them. Those are the managed ones, if SIGUSR1's is, and else SIGUSR1's.
//!
//! x86_64 only. One thread at a time, in a process of its own, whose code is made writable.
//!
//! Where an operation changes more than a sweep can put back, each of its runs is a [`child`] of the process that has prepared the state.

pub mod child;
pub mod lines;
mod maps;
mod path;
mod trap;

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

pub use path::{Path, Stop};
use trap::{plan, sigsafe_step_trap};

/// Added to a signal's number: sent with a positive `si_code`, as the kernel sends a fault.
pub const AS_FAULT: c_int = 1 << 8;
/// A run of this many traps does not end by itself.
const ENDLESS: u64 = 200_000;

/// How often each signal has been sent in this run.
pub static SENT: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
/// Whether one was sent in the middle of sending another, so that nobody can say which came first.
pub static OVERLAPPED: AtomicBool = AtomicBool::new(false);
static SENDING: AtomicBool = AtomicBool::new(false);
/// Whether the run was ended because it would not end.
pub static STUCK: AtomicBool = AtomicBool::new(false);

/// Sends a signal to this thread, and counts it: its value says how many of its number were sent before it.
///
/// Async-signal safety: may be called from a handler.
pub fn send(signal: c_int) {
    let number = signal & !AS_FAULT;
    let sending = SENDING.swap(true, SeqCst);
    OVERLAPPED.fetch_or(sending, SeqCst);
    let value = SENT[number as usize].fetch_add(1, SeqCst);
    // SAFETY: zero is a value of every field.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    info.si_signo = number;
    info.si_code = if signal == number { libc::SI_QUEUE } else { 1 };
    // SAFETY: the value lies in the fourth word of the sixteen.
    unsafe { (&raw mut info).cast::<u64>().add(3).write(u64::from(value)) };
    // SAFETY: the kernel reads the siginfo, and may send anything to the thread itself.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), number, &raw const info) };
    SENDING.store(sending, SeqCst);
}

/// Sets the trap flag, or leaves it alone by the same instructions.
#[inline(always)]
fn trap_flag_on(flag: u64) {
    // SAFETY: sets a flag whose SIGTRAP has a handler; the stack is as it was.
    unsafe { asm!("pushfq", "or qword ptr [rsp], {}", "popfq", in(reg) flag) };
}

#[inline(always)]
fn trap_flag_off() {
    // SAFETY: clears the trap flag; the stack is as it was.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
}

/// Installs SIGTRAP's handler, and makes the code of this process writable.
///
/// # Panics
///
/// Where the system refuses either.
pub fn prepare() {
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = sigsafe_step_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: fills a set on this stack.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    // SAFETY: the handler may run anywhere.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &action, null_mut()) }, 0);
    for mapping in maps::mappings().iter().filter(|mapping| mapping.access == "r-xp" && mapping.name.contains('/')) {
        let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: more access to what is mapped.
        assert_eq!(unsafe { libc::mprotect(mapping.addresses.start as *mut c_void, mapping.addresses.len(), access) }, 0);
    }
}

/// Has the memory there for the next way that is learnt, in this process or a child, which may have none by then.
pub fn reserve() {
    plan().prepare_to_learn(trampoline(), None);
}

/// Runs `operation` under the trap flag, with a signal sent at the boundary of that index, and returns its way.
pub fn learn(send_at: Option<(usize, c_int)>, operation: &mut dyn FnMut()) -> Path {
    plan().prepare_to_learn(trampoline(), send_at);
    start(operation);
    Path { boundaries: std::mem::take(&mut plan().learnt), sent_at: send_at.map_or(0, |(at, _)| at) }
}

/// Runs `operation` and sends each signal where the run is then. Whether it has come to all of these stops.
pub fn run(sends: &[(Stop, c_int)], operation: &mut dyn FnMut()) -> bool {
    plan().prepare_to_run(sends);
    start(operation);
    plan().met == sends.len()
}

/// One copy for both ways, so that its instructions, too, are met again.
#[inline(never)]
fn start(operation: &mut dyn FnMut()) {
    let flag = reset();
    trap_flag_on(flag);
    operation();
    trap_flag_off();
    trap::disarm();
}

/// Begins to learn, or to run and send a signal at a stop, up to [`end`]; in a handler, up to its return at most.
#[inline(never)]
pub fn begin(send: Option<(Stop, c_int)>) {
    match &send {
        None => plan().prepare_to_learn(trampoline(), None),
        Some(send) => plan().prepare_to_run(std::slice::from_ref(send)),
    }
    let flag = reset();
    trap_flag_on(flag);
}

/// Ends what [`begin`] has begun. The way since then, if it was learnt, and whether the run came to its stop.
#[inline(always)]
pub fn end() -> (Path, bool) {
    trap_flag_off();
    trap::disarm();
    let plan = plan();
    (Path { boundaries: std::mem::take(&mut plan.learnt), sent_at: 0 }, plan.met == plan.sends.len())
}

/// The trap flag to begin with.
fn reset() -> u64 {
    STUCK.store(false, SeqCst);
    OVERLAPPED.store(false, SeqCst);
    for sent in &SENT {
        sent.store(0, SeqCst);
    }
    plan().begin();
    if plan().learns { 0x100 } else { 0 }
}

/// The entry of the handlers that are learnt: what SIGUSR1 leads to, the trampoline if that is managed.
fn trampoline() -> usize {
    // SAFETY: reads the disposition into a value for which zero is fine.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        assert_eq!(libc::sigaction(libc::SIGUSR1, null_mut(), &mut action), 0);
        action.sa_sigaction
    }
}
