//! A signal at every instruction: the processor's trap flag makes it raise SIGTRAP after each one, and the handler of SIGTRAP sends
//! the signal under test at the boundary that is its turn. SIGTRAP's handler has everything blocked, so the signal arrives as that
//! handler returns: exactly at the boundary.
//!
//! Two things need care. After a `syscall` instruction the processor raises no trap, so that boundary would never be met; the
//! handler performs the call itself, a change of the mask by editing the mask that its own return restores, and steps over it. And
//! the kernel clears the trap flag as it enters a handler: [`wrap`] puts a stepping handler around an installed one, so that the
//! trampoline is stepped too.
//!
//! x86_64 only. One thread at a time, in a process of its own.

#![allow(dead_code, reason = "each sweep is a crate that uses its own part of this module")]

pub(crate) mod layers;
pub(crate) mod watch;

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Signals to send, each at its boundary.
pub(crate) const SENDS: usize = 2;
/// Added to a signal's number: sent with a positive `si_code`, as the kernel sends a fault.
pub(crate) const AS_FAULT: c_int = 1 << 8;
/// A run of this many steps does not end by itself.
const ENDLESS: u64 = 200_000;

static STEP: AtomicU64 = AtomicU64::new(0);
static AT: [AtomicU64; SENDS] = [const { AtomicU64::new(0) }; SENDS];
static WHICH: [AtomicI32; SENDS] = [const { AtomicI32::new(0) }; SENDS];
/// The step after which nothing is sent any more, and stepping on would only cost time; 0 to step to the end.
static LAST: AtomicU64 = AtomicU64::new(0);
static STEPPING: AtomicBool = AtomicBool::new(false);
static WRAPPED: [AtomicUsize; 65] = [const { AtomicUsize::new(0) }; 65];

/// How often each signal has been sent in this run.
pub(crate) static SENT: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
/// Whether the run was ended because it would not end.
pub(crate) static STUCK: AtomicBool = AtomicBool::new(false);

/// Sends a signal to this thread, and counts it.
pub(crate) fn send(signal: c_int) {
    let number = signal & !AS_FAULT;
    SENT[number as usize].fetch_add(1, SeqCst);
    // SAFETY: zero is a value of every field.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    info.si_signo = number;
    info.si_code = if signal == number { libc::SI_QUEUE } else { 1 };
    // SAFETY: the kernel reads the siginfo, and may send anything to the thread itself.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), number, &raw const info) };
}

fn send_what_is_due(step: u64) -> bool {
    let mut sent = false;
    for index in 0..SENDS {
        if AT[index].load(SeqCst) == step {
            send(WHICH[index].load(SeqCst));
            sent = true;
        }
    }
    sent
}

extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context of this delivery, which nobody else touches while the handler runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    let step = STEP.fetch_add(1, SeqCst) + 1;
    let next = context.uc_mcontext.gregs[libc::REG_RIP as usize] as *const [u8; 2];
    // SAFETY: the interrupted code is about to execute the bytes there.
    let at_syscall = unsafe { next.read_unaligned() } == [0x0f, 0x05];
    let sent = send_what_is_due(step);
    if at_syscall {
        // The boundary behind it has a number whether or not it can be met this time: sent before the call, the signal's handler
        // runs first, and the call is then executed by the processor.
        let behind = STEP.fetch_add(1, SeqCst) + 1;
        if !sent {
            perform_syscall(context);
            send_what_is_due(behind);
        }
    }
    let last = LAST.load(SeqCst);
    if step > ENDLESS {
        STUCK.store(true, SeqCst);
    }
    if step > ENDLESS || (last != 0 && step >= last) {
        context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x100;
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Does what the system call at the context's program counter would do, and moves past it.
fn perform_syscall(context: &mut libc::ucontext_t) {
    let frame_mask = (&raw mut context.uc_sigmask).cast::<u64>();
    let regs = &mut context.uc_mcontext.gregs;
    let reg = |index: c_int| index as usize;
    let number = regs[reg(libc::REG_RAX)];
    let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9].map(|index| regs[reg(index)]);
    regs[reg(libc::REG_RAX)] = if number == libc::SYS_rt_sigprocmask {
        let [how, new, old, ..] = arguments;
        // SAFETY: the interrupted code passes valid or null pointers to eight bytes; the frame's mask is the kernel's eight.
        unsafe {
            let before = *frame_mask;
            if new != 0 {
                let set = *(new as *const u64) & !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));
                *frame_mask = match how as c_int {
                    libc::SIG_BLOCK => before | set,
                    libc::SIG_UNBLOCK => before & !set,
                    _ => set,
                };
            }
            if old != 0 {
                *(old as *mut u64) = before;
            }
        }
        0
    } else {
        let result: i64;
        // SAFETY: the interrupted code was about to make this very call with these very arguments.
        unsafe {
            asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
                in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5], lateout("rcx") _, lateout("r11") _);
        }
        result
    };
    regs[reg(libc::REG_RIP)] += 2;
    regs[reg(libc::REG_RCX)] = regs[reg(libc::REG_RIP)];
    regs[reg(libc::REG_R11)] = regs[reg(libc::REG_EFL)];
}

#[inline(always)]
fn trap_flag_on() {
    // SAFETY: sets the trap flag, whose SIGTRAP has a handler; the stack is as it was.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

#[inline(always)]
fn trap_flag_off() {
    // SAFETY: clears the trap flag; the stack is as it was.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
}

fn action_of(signal: c_int) -> libc::sigaction {
    // SAFETY: reads the disposition into a value for which zero is fine.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        assert_eq!(libc::sigaction(signal, null_mut(), &mut action), 0);
        action
    }
}

fn set_action(signal: c_int, action: &libc::sigaction) {
    // SAFETY: the handlers of this file may run anywhere.
    assert_eq!(unsafe { libc::sigaction(signal, action, null_mut()) }, 0);
}

extern "C" fn stepping_handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: `wrap` stored a three-argument handler there.
    let inner: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(WRAPPED[signal as usize].load(SeqCst)) };
    let last = LAST.load(SeqCst);
    if STEPPING.load(SeqCst) && (last == 0 || STEP.load(SeqCst) < last) {
        trap_flag_on();
    }
    inner(signal, info, context);
    // It may have begun to step itself.
    trap_flag_off();
}

/// Makes the current handler of `signal` be stepped too.
pub(crate) fn wrap(signal: c_int) {
    let mut action = action_of(signal);
    WRAPPED[signal as usize].store(action.sa_sigaction, SeqCst);
    action.sa_sigaction = stepping_handler as *const () as usize;
    set_action(signal, &action);
}

/// Installs SIGTRAP's handler.
pub(crate) fn prepare() {
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: fills a set on this stack.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    set_action(libc::SIGTRAP, &action);
}

/// Runs `operation` under the trap flag, sending each signal at its boundary (0 for never). Returns how many boundaries it has had.
pub(crate) fn run(sends: [(u64, c_int); SENDS], operation: impl FnOnce()) -> u64 {
    LAST.store(0, SeqCst);
    start(sends, operation)
}

/// As [`run`], but steps no further than to the last boundary at which something is sent.
pub(crate) fn run_until_sent(sends: [(u64, c_int); SENDS], operation: impl FnOnce()) {
    LAST.store(sends.iter().map(|(at, _)| *at).max().unwrap_or(0), SeqCst);
    start(sends, operation);
}

fn start(sends: [(u64, c_int); SENDS], operation: impl FnOnce()) -> u64 {
    prepare_to_send(sends);
    STEPPING.store(true, SeqCst);
    trap_flag_on();
    operation();
    end()
}

/// Begins to step: to the last boundary at which something is sent, if there is one, or to [`end`]. In a handler that was wrapped, to its
/// return at most.
pub(crate) fn begin(sends: [(u64, c_int); SENDS]) {
    LAST.store(sends.iter().map(|(at, _)| *at).max().unwrap_or(0), SeqCst);
    prepare_to_send(sends);
    trap_flag_on();
}

/// How many boundaries there were since the beginning.
#[inline(always)]
pub(crate) fn end() -> u64 {
    trap_flag_off();
    STEPPING.store(false, SeqCst);
    STEP.load(SeqCst)
}

fn prepare_to_send(sends: [(u64, c_int); SENDS]) {
    STEP.store(0, SeqCst);
    STUCK.store(false, SeqCst);
    for sent in &SENT {
        sent.store(0, SeqCst);
    }
    for (index, (at, signal)) in sends.into_iter().enumerate() {
        AT[index].store(at, SeqCst);
        WHICH[index].store(signal, SeqCst);
    }
}
