//! SIGTRAP's handler: of single steps, where a way is learnt, and of breakpoints, where a run goes there at full speed.
//!
//! It runs between any two instructions of the code under test, and of what that calls, and shares no code with it as long as
//! breakpoints are in: the kernel calls a few instructions of assembler that take them out, and put them in as the last thing.

use std::arch::{asm, global_asm};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::path::{Boundary, SYSCALL, Stop};
use super::{ENDLESS, STUCK, send};

/// Two breakpoints: for each the address, 0 for none, and the byte that belongs there.
static BREAKPOINTS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

global_asm!(
    ".globl sigsafe_step_trap, sigsafe_step_return",
    ".hidden sigsafe_step_trap, sigsafe_step_return",
    "sigsafe_step_trap:",
    "mov rax, [rip + {breakpoints}]",
    "test rax, rax",
    "jz 2f",
    "mov rcx, [rip + {breakpoints} + 8]",
    "mov [rax], cl",
    "2:",
    "mov rax, [rip + {breakpoints} + 16]",
    "test rax, rax",
    "jz 2f",
    "mov rcx, [rip + {breakpoints} + 24]",
    "mov [rax], cl",
    "2:",
    "sub rsp, 8",
    "call {on_trap}",
    "add rsp, 8",
    "mov rax, [rip + {breakpoints}]",
    "test rax, rax",
    "jz 2f",
    "mov byte ptr [rax], 0xcc",
    "2:",
    "mov rax, [rip + {breakpoints} + 16]",
    "test rax, rax",
    "jz 2f",
    "mov byte ptr [rax], 0xcc",
    "2:",
    // The return address leads to libc's restorer, where a breakpoint may be. This does what it does.
    "add rsp, 8",
    "sigsafe_step_return:",
    "mov eax, 15",
    "syscall",
    breakpoints = sym BREAKPOINTS,
    on_trap = sym on_trap,
);

unsafe extern "C" {
    pub(super) fn sigsafe_step_trap(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void);
    /// Returns from the handler whose frame is on the stack.
    fn sigsafe_step_return();
}

/// A stop, and what is sent there.
pub(super) type Send = (Stop, c_int);

/// What the handler is to do. Touched by it, and by the thread itself while it can have no trap.
pub(super) struct Plan {
    /// The first instruction of every managed handler.
    pub(super) handler: usize,
    /// Whether to learn the way and not to run.
    pub(super) learns: bool,
    /// The boundary at which `signal` is sent while the way is learnt.
    pub(super) send_at: Option<(usize, c_int)>,
    pub(super) learnt: Vec<Boundary>,
    handlers: u32,
    /// Where the last instruction that repeats itself ends, or 0.
    behind_repetition: usize,
    pub(super) sends: Vec<Send>,
    /// How many of them have been met.
    pub(super) met: usize,
    hits: u32,
    traps: u64,
}

pub(super) struct Shared(UnsafeCell<Plan>);

// SAFETY: one thread has traps, and its handler is not interrupted.
unsafe impl Sync for Shared {}

static PLAN: Shared = Shared(UnsafeCell::new(Plan {
    handler: 0,
    learns: false,
    send_at: None,
    learnt: Vec::new(),
    handlers: 0,
    behind_repetition: 0,
    sends: Vec::new(),
    met: 0,
    hits: 0,
    traps: 0,
}));

/// The plan, for a thread that has no trap before it is done with it.
pub(super) fn plan() -> &'static mut Plan {
    // SAFETY: as the head of this function demands, and of one thread.
    unsafe { &mut *PLAN.0.get() }
}

fn set_breakpoint(index: usize, address: usize) {
    // SAFETY: an instruction of this program, which is never unmapped.
    let byte = if address == 0 { 0 } else { unsafe { (address as *const u8).read_volatile() } };
    BREAKPOINTS[2 * index + 1].store(usize::from(byte), SeqCst);
    BREAKPOINTS[2 * index].store(address, SeqCst);
}

fn clear_breakpoints() {
    set_breakpoint(0, 0);
    set_breakpoint(1, 0);
}

/// Takes the breakpoints out of the code.
pub(super) fn disarm() {
    for index in 0..2 {
        let address = BREAKPOINTS[2 * index].swap(0, SeqCst);
        if address != 0 {
            // SAFETY: the code is writable, and the byte was there.
            unsafe { (address as *mut u8).write_volatile(BREAKPOINTS[2 * index + 1].load(SeqCst) as u8) };
        }
    }
}

/// The context of a trap.
struct Frame(&'static mut libc::ucontext_t);

impl Frame {
    fn register(&mut self, index: c_int) -> &mut i64 {
        &mut self.0.uc_mcontext.gregs[index as usize]
    }

    fn pc(&mut self) -> usize {
        *self.register(libc::REG_RIP) as usize
    }

    fn at_syscall(&mut self) -> bool {
        // SAFETY: the interrupted code is about to execute the bytes there.
        unsafe { (self.pc() as *const [u8; SYSCALL]).read_unaligned() == [0x0f, 0x05] }
    }

    /// The end of the string instruction that comes next, if one comes that repeats itself: the processor traps after each round.
    fn behind_repetition(&mut self) -> Option<usize> {
        // SAFETY: the interrupted code is about to execute the bytes there, and code does not end with a page's first three.
        let code = unsafe { (self.pc() as *const [u8; 3]).read_unaligned() };
        match code {
            [0xf3, 0xa4 | 0xa5 | 0xaa | 0xab, _] => Some(self.pc() + 2),
            [0xf3, 0x48, 0xa4 | 0xa5 | 0xaa | 0xab] => Some(self.pc() + 3),
            _ => None,
        }
    }

    fn returns_from_handler(&mut self) -> bool {
        self.at_syscall() && *self.register(libc::REG_RAX) == libc::SYS_rt_sigreturn
    }

    fn single_step(&mut self, on: bool) {
        let flags = self.register(libc::REG_EFL);
        *flags = if on { *flags | 0x100 } else { *flags & !0x100 };
    }

    fn mask(&mut self) -> *mut u64 {
        (&raw mut self.0.uc_sigmask).cast()
    }

    /// Whether what was sent arrives as SIGTRAP's handler returns.
    fn lets_in(&mut self, signal: c_int) -> bool {
        // SAFETY: the kernel's mask has eight bytes.
        unsafe { *self.mask() & 1 << ((signal & 0xff) - 1) == 0 }
    }

    /// Does what the system call at the program counter would do, and moves past it.
    fn perform_syscall(&mut self) {
        let number = *self.register(libc::REG_RAX);
        let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9];
        let arguments = arguments.map(|index| *self.register(index));
        *self.register(libc::REG_RAX) = if number == libc::SYS_rt_sigprocmask {
            self.change_mask(arguments);
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
        *self.register(libc::REG_RIP) += SYSCALL as i64;
        *self.register(libc::REG_RCX) = *self.register(libc::REG_RIP);
        *self.register(libc::REG_R11) = *self.register(libc::REG_EFL);
    }

    fn change_mask(&mut self, [how, new, old, ..]: [i64; 6]) {
        let mask = self.mask();
        // SAFETY: the interrupted code passes valid or null pointers to eight bytes; the frame's mask is the kernel's eight.
        unsafe {
            let before = *mask;
            if new != 0 {
                let set = *(new as *const u64) & !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));
                *mask = match how as c_int {
                    libc::SIG_BLOCK => before | set,
                    libc::SIG_UNBLOCK => before & !set,
                    _ => set,
                };
            }
            if old != 0 {
                *(old as *mut u64) = before;
            }
        }
    }
}

extern "C" fn on_trap(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    const SI_KERNEL: c_int = 0x80;
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel's siginfo and context of this delivery, which nobody else touches while the handler runs.
    let (info, mut frame) = unsafe { (&*info, Frame(&mut *context.cast::<libc::ucontext_t>())) };
    let at_breakpoint = info.si_code == SI_KERNEL;
    if at_breakpoint {
        *frame.register(libc::REG_RIP) -= 1;
    }
    clear_breakpoints();
    let plan = plan();
    plan.traps += 1;
    if plan.traps > ENDLESS {
        STUCK.store(true, SeqCst);
        frame.single_step(false);
    } else if plan.learns {
        plan.learn(&mut frame, at_breakpoint);
    } else {
        plan.go_on(&mut frame, at_breakpoint);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

impl Plan {
    pub(super) fn prepare_to_learn(&mut self, handler: usize, send_at: Option<(usize, c_int)>) {
        (self.learns, self.handler, self.send_at) = (true, handler, send_at);
        self.sends.clear();
        self.learnt.clear();
        self.learnt.reserve(2 * ENDLESS as usize);
    }

    pub(super) fn prepare_to_run(&mut self, sends: &[Send]) {
        self.learns = false;
        self.sends.clear();
        self.sends.extend_from_slice(sends);
    }

    /// Before a run, and as the last thing: a breakpoint may be anywhere.
    pub(super) fn begin(&mut self) {
        self.learnt.clear();
        (self.handlers, self.behind_repetition, self.met, self.hits, self.traps) = (0, 0, 0, 0, 0);
        if let Some((stop, _)) = self.sends.first() {
            set_breakpoint(0, stop.pc);
            // SAFETY: the code is writable.
            unsafe { (stop.pc as *mut u8).write_volatile(0xcc) };
        }
    }

    /// Notes a boundary, and steps on to the next, that of an instruction that repeats itself being behind its last round: also into a
    /// handler, at whose beginning the kernel clears the trap flag, and out of it.
    fn learn(&mut self, frame: &mut Frame, at_breakpoint: bool) {
        let begins = at_breakpoint && frame.pc() == self.handler;
        self.handlers += u32::from(begins);
        if begins || at_breakpoint && frame.pc() == self.behind_repetition {
            frame.single_step(true);
        }
        let delivered = self.note(frame, false, begins);
        if frame.returns_from_handler() {
            self.handlers = self.handlers.saturating_sub(1);
            let below = *frame.register(libc::REG_RSP) as *const libc::ucontext_t;
            // SAFETY: there lies the frame that the kernel is about to take down.
            set_breakpoint(1, unsafe { (*below).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize);
        } else if frame.at_syscall() && !delivered {
            frame.perform_syscall();
            self.note(frame, true, false);
        }
        if let Some(behind) = frame.behind_repetition() {
            self.behind_repetition = behind;
            set_breakpoint(1, behind);
            frame.single_step(false);
        }
        if frame.pc() != self.handler {
            set_breakpoint(0, self.handler);
        }
    }

    /// Whether a signal was sent that arrives here.
    fn note(&mut self, frame: &mut Frame, behind_syscall: bool, begins_handler: bool) -> bool {
        let index = self.learnt.len();
        self.learnt.push(Boundary { pc: frame.pc(), behind_syscall, handlers: self.handlers, begins_handler });
        match self.send_at {
            Some((at, signal)) if at == index => {
                send(signal);
                frame.lets_in(signal)
            }
            _ => false,
        }
    }

    /// At a breakpoint, or a step behind one.
    fn go_on(&mut self, frame: &mut Frame, at_breakpoint: bool) {
        let Some(&(stop, _)) = self.sends.get(self.met) else { return };
        if !at_breakpoint {
            frame.single_step(false);
            return set_breakpoint(0, stop.pc);
        }
        self.hits += 1;
        if self.hits < stop.nth {
            return self.step_over(frame, stop.pc);
        }
        let mut arrives = false;
        while let Some(&(stop, signal)) = self.sends.get(self.met)
            && (stop.nth == 0 || self.hits != 0)
        {
            if stop.behind_syscall {
                frame.perform_syscall();
            }
            send(signal);
            arrives |= frame.lets_in(signal);
            self.met += 1;
            self.hits = 0;
        }
        if let Some(&(stop, _)) = self.sends.get(self.met) {
            if stop.pc == frame.pc() && !arrives {
                self.step_over(frame, stop.pc);
            } else {
                set_breakpoint(0, stop.pc);
            }
        }
    }

    /// Executes the instruction at the program counter with the breakpoint at `pc` out, and then puts it in again.
    fn step_over(&mut self, frame: &mut Frame, pc: usize) {
        if frame.returns_from_handler() {
            *frame.register(libc::REG_RIP) = sigsafe_step_return as *const () as i64;
            set_breakpoint(0, pc);
        } else if frame.at_syscall() {
            frame.perform_syscall();
            set_breakpoint(0, pc);
        } else {
            frame.single_step(true);
        }
    }
}
