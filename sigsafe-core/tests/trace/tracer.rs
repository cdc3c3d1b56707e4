//! The tracer's side: learns the boundaries of a story by stepping, and sends signals at them by breakpoints.
//!
//! The breakpoint is the processor's, in a debug register: of one thread alone, which may share its code with others, and in any code,
//! also in the page that the kernel lends.

use std::collections::{HashMap, HashSet};
use std::ffi::c_int;
use std::mem::{offset_of, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;

use super::{BEGIN, NEXT, NO_STORY, Script, sigsafe_sweep_mark};

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// The thread that performs the operation.
    Performer,
    /// A thread that began in it.
    New,
}

/// A boundary that a single step has shown.
struct Learnt {
    role: Role,
    pc: u64,
    /// A signal was delivered here, before the instruction: the thread comes by again when it has been handled.
    interrupted: bool,
}

/// A boundary: `steps` behind the `nth` execution of the instruction at `pc`. No breakpoint stops a thread where it does not execute
/// anything, as between a system call and the signal that this lets in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) role: Role,
    pub(super) pc: u64,
    nth: u32,
    steps: u32,
}

impl Boundary {
    /// Whether it lies in the kernel's code that reads the clock without a call. The traced process has it where this one has.
    pub(super) fn in_vdso(&self) -> bool {
        /// It has one or two pages.
        const LENGTH: u64 = 4 * 4096;
        // SAFETY: reads what the kernel has told this process.
        let start = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        start != 0 && (start..start + LENGTH).contains(&self.pc)
    }
}

struct Thread {
    id: c_int,
    /// Between its marks.
    active: bool,
    /// A new thread has stopped once for its tracer.
    attached: bool,
}

/// The signal of a run, and where it is due.
struct Due {
    at: Boundary,
    signal: c_int,
    hits: u32,
    /// The thread that is on its last steps, and how many have been made.
    stepping: Option<(c_int, u32)>,
}

pub(super) struct Tracer {
    pid: c_int,
    script: &'static Script,
    threads: Vec<Thread>,
    /// The boundaries found so far, if this is a run to learn them.
    learnt: Option<Vec<Learnt>>,
    due: Option<Due>,
}

/// The C libraries do not agree on its sign.
#[cfg(target_env = "musl")]
type Request = c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

fn request(what: Request, thread: c_int, address: u64, data: u64) -> i64 {
    // SAFETY: addresses are the tracee's, or a live value of this side where the request says so.
    unsafe { libc::ptrace(what, thread, address, data) }
}

fn registers(thread: c_int) -> libc::user_regs_struct {
    // SAFETY: plain data for which zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { zeroed() };
    assert_eq!(request(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers).addr() as u64), 0);
    registers
}

/// What has raised a SIGTRAP.
fn trap_code(thread: c_int) -> c_int {
    // SAFETY: plain data for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    assert_eq!(request(libc::PTRACE_GETSIGINFO, thread, 0, (&raw mut info).addr() as u64), 0);
    info.si_code
}

fn set_debug_register(thread: c_int, index: usize, value: u64) {
    let address = offset_of!(libc::user, u_debugreg) + index * size_of::<u64>();
    assert_eq!(request(libc::PTRACE_POKEUSER, thread, address as u64, value), 0, "debug register {index}");
}

/// Has the thread stop whenever it is about to execute the instruction at `pc`.
fn set_breakpoint(thread: c_int, pc: u64) {
    set_debug_register(thread, 0, pc);
    set_debug_register(thread, 7, 1);
}

fn remove_breakpoint(thread: c_int) {
    set_debug_register(thread, 7, 0);
}

impl Tracer {
    /// Forks a tracee that runs `tracee` and waits until it asks for its first story.
    pub(super) fn start(script: &'static Script, tracee: impl FnOnce(&'static Script)) -> Tracer {
        script.failures.store(0, SeqCst);
        // SAFETY: the other threads of this process, the test's runner, wait; nothing that they may hold is used.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            request(libc::PTRACE_TRACEME, 0, 0, 0);
            // SAFETY: stops for the tracer.
            unsafe { libc::raise(libc::SIGSTOP) };
            // A panic must not end this thread alone: it is the process's only one, and its status would be 0.
            let failed = catch_unwind(AssertUnwindSafe(|| tracee(script))).is_err();
            // SAFETY: the process ends here, without the parent's exit handlers.
            unsafe { libc::_exit(c_int::from(failed)) };
        }
        assert!(pid > 0, "fork");
        let main = Thread { id: pid, active: false, attached: true };
        let mut tracer = Tracer { pid, script, threads: vec![main], learnt: None, due: None };
        let status = tracer.wait().1;
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "no stop to begin with: {status:#x}");
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        assert_eq!(request(libc::PTRACE_SETOPTIONS, pid, 0, options as u64), 0);
        request(libc::PTRACE_CONT, pid, 0, 0);
        assert_eq!(tracer.go_on(), None, "the status of a tracee that has not begun");
        tracer
    }

    /// Ends the tracee. How many of its checks have failed.
    pub(super) fn finish(mut self) -> u32 {
        self.script.story.store(NO_STORY, SeqCst);
        request(libc::PTRACE_CONT, self.pid, 0, 0);
        loop {
            let (thread, status) = self.wait();
            if thread == self.pid && libc::WIFEXITED(status) {
                assert_eq!(libc::WEXITSTATUS(status), 0, "the tracee failed");
                return self.script.failures.load(SeqCst);
            }
            assert!(!(thread == self.pid && libc::WIFSIGNALED(status)), "the tracee died: {status:#x}");
            if libc::WIFSTOPPED(status) {
                request(libc::PTRACE_CONT, thread, 0, 0);
            }
        }
    }

    /// Runs a story. The status of a tracee that ends in it.
    pub(super) fn run(&mut self, story: usize) -> Option<c_int> {
        self.script.story.store(story as u32, SeqCst);
        self.script.sent_to.store(0, SeqCst);
        self.script.signal.store(self.due.as_ref().map_or(0, |due| due.signal as u32), SeqCst);
        request(libc::PTRACE_CONT, self.pid, 0, 0);
        self.go_on()
    }

    /// Steps through a story. All its boundaries, each thread's in order.
    pub(super) fn learn(&mut self, story: usize) -> Vec<Boundary> {
        self.learnt = Some(Vec::new());
        self.run(story);
        let mut executed: HashMap<(Role, u64), u32> = HashMap::new();
        // Of each role, the last instruction that was executed.
        let mut last: HashMap<Role, Boundary> = HashMap::new();
        // The roles whose last boundary was interrupted there.
        let mut came_back: HashSet<Role> = HashSet::new();
        let mut boundaries = Vec::new();
        for Learnt { role, pc, interrupted } in self.learnt.take().unwrap_or_default() {
            // Within a string instruction, which is one execution.
            let repeated = last.get(&role).is_some_and(|last| last.pc == pc && !came_back.contains(&role));
            came_back.remove(&role);
            if interrupted {
                came_back.insert(role);
            }
            let boundary = if interrupted || repeated {
                let Some(last) = last.get_mut(&role) else { continue };
                last.steps += 1;
                *last
            } else {
                let nth = executed.entry((role, pc)).or_default();
                *nth += 1;
                let boundary = Boundary { role, pc, nth: *nth, steps: 0 };
                last.insert(role, boundary);
                boundary
            };
            boundaries.push(boundary);
        }
        boundaries
    }

    /// Runs a story and sends `signal` at a boundary. Whether that was reached, and the status of a tracee that has ended.
    pub(super) fn run_with(&mut self, story: usize, signal: c_int, at: Boundary) -> (bool, Option<c_int>) {
        self.due = Some(Due { at, signal, hits: 0, stepping: None });
        let end = self.run(story);
        self.due = None;
        (self.script.sent(), end)
    }

    pub(super) fn failures(&self) -> u32 {
        self.script.failures.load(SeqCst)
    }

    fn wait(&mut self) -> (c_int, c_int) {
        let mut status = 0;
        // SAFETY: the pointer is to a live value.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        assert!(thread > 0, "waitpid");
        (thread, status)
    }

    fn role(&self, thread: c_int) -> Role {
        if thread == self.pid { Role::Performer } else { Role::New }
    }

    fn thread(&mut self, id: c_int) -> &mut Thread {
        let index = self.threads.iter().position(|thread| thread.id == id).unwrap_or_else(|| {
            // Whatever begins in the operation is of interest from its first instruction.
            self.threads.push(Thread { id, active: true, attached: false });
            self.threads.len() - 1
        });
        &mut self.threads[index]
    }

    fn resume(&mut self, thread: c_int, signal: c_int) {
        let last_steps = self.due.as_ref().and_then(|due| due.stepping).is_some_and(|(stepping, _)| stepping == thread);
        let steps = last_steps || (self.learnt.is_some() && self.thread(thread).active);
        let how = if steps { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT };
        request(how, thread, 0, signal as u64);
    }

    /// Handles stops until the tracee asks for the next story, or ends: then with its status.
    fn go_on(&mut self) -> Option<c_int> {
        loop {
            let (thread, status) = self.wait();
            if !libc::WIFSTOPPED(status) {
                if thread == self.pid {
                    return Some(status);
                }
                self.threads.retain(|known| known.id != thread);
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let first = !self.thread(thread).attached;
            self.thread(thread).attached = true;
            if status >> 16 != 0 {
                self.resume(thread, 0);
            } else if first && signal == libc::SIGSTOP {
                self.begin(thread);
                self.resume(thread, 0);
            } else if signal == libc::SIGTRAP {
                if self.trapped(thread) {
                    return None;
                }
            } else {
                let role = self.role(thread);
                let last = self.learnt.iter_mut().flatten().rfind(|learnt| learnt.role == role);
                if let Some(last) = last.filter(|last| last.pc == registers(thread).rip) {
                    last.interrupted = true;
                }
                self.resume(thread, signal);
            }
        }
    }

    fn learn_boundary(&mut self, thread: c_int, pc: u64) {
        let role = self.role(thread);
        if self.thread(thread).active && pc != sigsafe_sweep_mark as *const () as u64 {
            self.learnt.iter_mut().for_each(|learnt| learnt.push(Learnt { role, pc, interrupted: false }));
        }
    }

    /// A mark, a breakpoint, or a step. Whether it was the mark that asks for the next story; the thread stays stopped there.
    fn trapped(&mut self, thread: c_int) -> bool {
        const SI_KERNEL: c_int = 0x80;
        let code = trap_code(thread);
        let registers = registers(thread);
        if code == SI_KERNEL {
            assert_eq!(registers.rip, sigsafe_sweep_mark as *const () as u64 + 1, "a breakpoint of nobody");
            if registers.rdi == NEXT {
                return true;
            }
            self.marked(thread, registers.rdi);
        } else if code == libc::TRAP_HWBKPT {
            self.hit(thread);
        } else {
            self.learn_boundary(thread, registers.rip);
            self.stepped(thread);
        }
        self.resume(thread, 0);
        false
    }

    fn marked(&mut self, thread: c_int, code: u64) {
        self.thread(thread).active = code == BEGIN;
        if code == BEGIN {
            self.begin(thread);
        } else if self.due.as_ref().is_some_and(|due| due.at.role == self.role(thread)) {
            remove_breakpoint(thread);
        }
    }

    /// From here on the thread's instructions are of interest.
    fn begin(&mut self, thread: c_int) {
        self.learn_boundary(thread, registers(thread).rip);
        if let Some(due) = &self.due
            && due.at.role == self.role(thread)
        {
            set_breakpoint(thread, due.at.pc);
        }
    }

    fn hit(&mut self, thread: c_int) {
        let Some(due) = &mut self.due else { return remove_breakpoint(thread) };
        due.hits += 1;
        if due.hits == due.at.nth {
            remove_breakpoint(thread);
            due.stepping = Some((thread, 0));
            self.send_if_due();
        }
    }

    fn stepped(&mut self, thread: c_int) {
        if let Some((stepping, steps)) = self.due.as_mut().and_then(|due| due.stepping.as_mut())
            && *stepping == thread
        {
            *steps += 1;
            self.send_if_due();
        }
    }

    fn send_if_due(&mut self) {
        if let Some(Due { at, signal, stepping: Some((thread, steps)), .. }) = self.due
            && steps == at.steps
        {
            self.due = None;
            self.script.sent_to.store(if at.role == Role::Performer { 1 } else { 2 }, SeqCst);
            // SAFETY: the call takes no pointer.
            assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, thread, signal) }, 0);
        }
    }
}
