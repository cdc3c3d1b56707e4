//! A signal at every instruction boundary: the processor's trap flag raises SIGTRAP after each instruction, and SIGTRAP's handler, which
//! nobody manages, is the handler under test.
//!
//! After a `syscall` instruction the processor raises no trap, so the handler performs the call itself, at the boundary before it, and
//! the boundary behind it gets its turn all the same.
//!
//! x86_64 only; one thread at a time.

#![allow(dead_code, reason = "each test is a crate that uses its own part of this module")]

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

static STEP: AtomicU64 = AtomicU64::new(0);
/// The boundary whose turn it is; 0 for all of them.
static AT: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicBool = AtomicBool::new(false);
static RUNS: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicU64 = AtomicU64::new(0);
static HANDLER: AtomicUsize = AtomicUsize::new(0);
/// A function that changes where the interrupted code goes on, or 0.
static LEAVE: AtomicUsize = AtomicUsize::new(0);

/// The trap flag.
const TF: i64 = 0x100;

/// What a stepped run was.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Stepped {
    /// Boundaries that were met.
    pub(crate) boundaries: u64,
    /// How often the handler ran.
    pub(crate) runs: u64,
    /// How often it ran while the allocator had the cache in hand.
    pub(crate) inside: u64,
}

fn boundary(context: &mut libc::ucontext_t) {
    let step = STEP.fetch_add(1, SeqCst) + 1;
    let at = AT.load(SeqCst);
    if at == 0 || at == step {
        RUNS.fetch_add(1, SeqCst);
        if sigsafe_alloc::in_allocator() {
            INSIDE.fetch_add(1, SeqCst);
        }
        // SAFETY: only `during` stores there, a function of this type.
        let handler: fn() = unsafe { std::mem::transmute(HANDLER.load(SeqCst)) };
        handler();
        let leave = LEAVE.load(SeqCst);
        if leave != 0 {
            // SAFETY: only `during_and_leave` stores there, a function of this type.
            let leave: fn(&mut libc::ucontext_t) = unsafe { std::mem::transmute(leave) };
            leave(context);
        }
        if at == step {
            // Nothing is sent any more: the rest runs at full speed.
            context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TF;
        }
    }
}

extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context of this delivery, which nobody else touches while the handler runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    if ENDED.load(SeqCst) {
        context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TF;
        return;
    }
    boundary(context);
    let next = context.uc_mcontext.gregs[libc::REG_RIP as usize] as *const [u8; 2];
    // SAFETY: the interrupted code is about to execute the bytes there.
    let at_syscall = unsafe { next.read_unaligned() } == [0x0f, 0x05];
    if at_syscall && context.uc_mcontext.gregs[libc::REG_EFL as usize] & TF != 0 && step_over_call(context) {
        boundary(context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Performs the system call that comes next. Those that end a thread or concern signals are left to the processor.
fn step_over_call(context: &mut libc::ucontext_t) -> bool {
    let registers = &mut context.uc_mcontext.gregs;
    let number = registers[libc::REG_RAX as usize];
    if ![libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_clock_gettime].contains(&number) {
        return false;
    }
    let result: i64;
    // SAFETY: the call that the interrupted code was about to make, with its arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") registers[libc::REG_RDI as usize],
            in("rsi") registers[libc::REG_RSI as usize],
            in("rdx") registers[libc::REG_RDX as usize],
            in("r10") registers[libc::REG_R10 as usize],
            in("r8") registers[libc::REG_R8 as usize],
            in("r9") registers[libc::REG_R9 as usize],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    registers[libc::REG_RAX as usize] = result;
    registers[libc::REG_RIP as usize] += 2;
    true
}

/// Installs the handler of SIGTRAP, by plain `sigaction`.
pub(crate) fn install() {
    install_with(false, 0);
}

/// As [`install`], and the handler runs on the signal stack of a thread that has one.
pub(crate) fn install_on_signal_stack() {
    install_with(false, libc::SA_ONSTACK);
}

/// As [`install`], and a signal that the handler sends arrives as it returns, exactly at the boundary.
pub(crate) fn install_blocking() {
    install_with(true, 0);
}

fn install_with(blocking: bool, flags: c_int) {
    // SAFETY: zero is a value of every field; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | flags;
        if blocking {
            libc::sigfillset(&raw mut action.sa_mask);
        }
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, null_mut()), 0);
    }
}

/// Runs `operation` one instruction at a time, with `handler` at boundary `at`, or at each of them if that is 0.
pub(crate) fn during<R>(at: u64, handler: fn(), operation: impl FnOnce() -> R) -> (R, Stepped) {
    for counter in [&STEP, &RUNS, &INSIDE] {
        counter.store(0, SeqCst);
    }
    HANDLER.store(handler as usize, SeqCst);
    AT.store(at, SeqCst);
    ENDED.store(false, SeqCst);
    // SAFETY: changes the trap flag alone; the red zone is stepped over.
    unsafe { asm!("sub rsp, 128", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "lea rsp, [rsp + 128]") };
    let result = operation();
    // SAFETY: as above.
    unsafe { asm!("sub rsp, 128", "pushfq", "and qword ptr [rsp], ~0x100", "popfq", "lea rsp, [rsp + 128]") };
    ENDED.store(true, SeqCst);
    let stepped = Stepped { boundaries: STEP.load(SeqCst), runs: RUNS.load(SeqCst), inside: INSIDE.load(SeqCst) };
    (result, stepped)
}

/// As [`during`], and at boundary `at` the interrupted code is left.
pub(crate) fn during_and_leave(at: u64, leave: fn(&mut libc::ucontext_t), operation: impl FnOnce()) -> ((), Stepped) {
    LEAVE.store(leave as usize, SeqCst);
    let result = during(at, || {}, operation);
    LEAVE.store(0, SeqCst);
    result
}
