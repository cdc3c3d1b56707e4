//! The tracer's side: learns the boundaries of a story by stepping, and sends signals at them by breakpoints.

use std::ffi::{c_int, c_void};
use std::fmt::Debug;
use std::mem::zeroed;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;

use sigsafe_core::Signal;

use super::{BEGIN, NEXT, NO_STORY, Script, sigsafe_sweep_mark};
use crate::step::watch::Tally;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Role {
    /// The thread that performs the operation.
    Performer,
    /// A thread that began in it.
    New,
}

/// A boundary: before the `nth` execution of the instruction at `pc`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Boundary {
    role: Role,
    pc: u64,
    nth: u32,
}

struct Thread {
    id: c_int,
    /// Between its marks.
    active: bool,
    /// A new thread has stopped once for its tracer.
    attached: bool,
}

struct Breakpoint {
    at: Boundary,
    original: Option<i64>,
    hits: u32,
    signal: c_int,
}

struct Tracer {
    pid: c_int,
    script: &'static Script,
    threads: Vec<Thread>,
    /// The boundaries found so far, if this is a run to learn them.
    learnt: Option<Vec<(Role, u64)>>,
    breakpoint: Option<Breakpoint>,
    /// Where the last breakpoint was: a thread may have hit it and not been waited for yet when it is removed.
    last_pc: u64,
    /// Steps over the breakpoint, which is not its.
    stepping_over: Option<c_int>,
}

fn request(what: libc::c_uint, thread: c_int, address: u64, data: u64) -> i64 {
    // SAFETY: addresses are the tracee's, or a live value of this side where the request says so.
    unsafe { libc::ptrace(what, thread, address, data) }
}

fn registers(thread: c_int) -> libc::user_regs_struct {
    // SAFETY: plain data for which zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { zeroed() };
    assert_eq!(request(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers).addr() as u64), 0);
    registers
}

/// Whether a SIGTRAP is that of a breakpoint and not of a step.
fn hit_breakpoint(thread: c_int) -> bool {
    const SI_KERNEL: c_int = 0x80;
    // SAFETY: plain data for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    assert_eq!(request(libc::PTRACE_GETSIGINFO, thread, 0, (&raw mut info).addr() as u64), 0);
    info.si_code == SI_KERNEL
}

impl Tracer {
    /// Forks a tracee that runs `tracee` and waits until it asks for its first story.
    fn start(tracee: impl FnOnce(&'static Script)) -> Tracer {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping touches no memory of anyone's.
        let page = unsafe { libc::mmap(null_mut::<c_void>(), 4096, access, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: the mapping is never given back; zero is a value of every field.
        let script: &'static Script = unsafe { &*page.cast::<Script>() };
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
        let mut tracer = Tracer { pid, script, threads: vec![main], learnt: None, breakpoint: None, last_pc: 0, stepping_over: None };
        let status = tracer.wait().1;
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "no stop to begin with: {status:#x}");
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        assert_eq!(request(libc::PTRACE_SETOPTIONS, pid, 0, options as u64), 0);
        request(libc::PTRACE_CONT, pid, 0, 0);
        tracer.go_on();
        tracer
    }

    /// Ends the tracee. How many of its checks have failed.
    fn finish(mut self) -> u32 {
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

    /// Runs a story without a signal.
    fn run(&mut self, story: usize) {
        self.script.story.store(story as u32, SeqCst);
        self.script.sent_to.store(0, SeqCst);
        self.script.signal.store(self.breakpoint.as_ref().map_or(0, |breakpoint| breakpoint.signal as u32), SeqCst);
        request(libc::PTRACE_CONT, self.pid, 0, 0);
        self.go_on();
    }

    /// Steps through a story. All its boundaries, each thread's in order.
    fn learn(&mut self, story: usize) -> Vec<Boundary> {
        self.learnt = Some(Vec::new());
        self.run(story);
        let mut boundaries: Vec<Boundary> = Vec::new();
        for (role, pc) in self.learnt.take().unwrap_or_default() {
            let before = boundaries.iter().rev().find(|boundary| boundary.role == role && boundary.pc == pc);
            boundaries.push(Boundary { role, pc, nth: before.map_or(1, |before| before.nth + 1) });
        }
        boundaries
    }

    /// Runs a story and sends `signal` at a boundary. Whether that was reached.
    fn run_with(&mut self, story: usize, signal: c_int, at: Boundary) -> bool {
        self.breakpoint = Some(Breakpoint { at, original: None, hits: 0, signal });
        self.run(story);
        self.breakpoint = None;
        self.script.sent()
    }

    fn failures(&self) -> u32 {
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
        let steps = (self.learnt.is_some() && self.thread(thread).active) || self.stepping_over == Some(thread);
        let how = if steps { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT };
        request(how, thread, 0, signal as u64);
    }

    /// Handles stops until the tracee asks for the next story.
    fn go_on(&mut self) {
        loop {
            let (thread, status) = self.wait();
            if !libc::WIFSTOPPED(status) {
                assert!(thread != self.pid, "the tracee has ended: {status:#x}, in story {}", self.script.story.load(SeqCst));
                self.threads.retain(|known| known.id != thread);
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let first = !self.thread(thread).attached;
            self.thread(thread).attached = true;
            if status >> 16 != 0 {
                self.resume(thread, 0);
            } else if first && signal == libc::SIGSTOP {
                self.learn_boundary(thread, registers(thread).rip);
                self.resume(thread, 0);
            } else if signal == libc::SIGTRAP {
                if self.trapped(thread) {
                    return;
                }
            } else {
                self.resume(thread, signal);
            }
        }
    }

    fn learn_boundary(&mut self, thread: c_int, pc: u64) {
        let role = self.role(thread);
        if self.thread(thread).active && pc != sigsafe_sweep_mark as *const () as u64 {
            self.learnt.iter_mut().for_each(|learnt| learnt.push((role, pc)));
        }
    }

    /// A mark, a breakpoint, or a step. Whether it was the mark that asks for the next story; the thread stays stopped there.
    fn trapped(&mut self, thread: c_int) -> bool {
        if self.stepping_over == Some(thread) {
            self.stepping_over = None;
            self.insert(thread);
        }
        let registers = registers(thread);
        if !hit_breakpoint(thread) {
            self.learn_boundary(thread, registers.rip);
        } else if registers.rip == sigsafe_sweep_mark as *const () as u64 + 1 {
            if registers.rdi == NEXT {
                self.remove(thread);
                // Another thread may be asleep in a system call that it was to step over.
                self.stepping_over = None;
                return true;
            }
            self.marked(thread, registers.rdi);
            self.learn_boundary(thread, registers.rip);
        } else if registers.rip == self.last_pc + 1 {
            self.hit(thread, registers);
        }
        self.resume(thread, 0);
        false
    }

    fn marked(&mut self, thread: c_int, code: u64) {
        self.thread(thread).active = code == BEGIN;
        if code == BEGIN {
            self.insert(thread);
        } else if self.breakpoint.as_ref().is_some_and(|breakpoint| breakpoint.at.role == self.role(thread)) {
            self.remove(thread);
        }
    }

    fn hit(&mut self, thread: c_int, mut registers: libc::user_regs_struct) {
        registers.rip -= 1;
        assert_eq!(request(libc::PTRACE_SETREGS, thread, 0, (&raw const registers).addr() as u64), 0);
        let counts = self.thread(thread).active;
        let role = self.role(thread);
        let Some(breakpoint) = self.breakpoint.as_mut().filter(|breakpoint| breakpoint.original.is_some()) else { return };
        let mut due = None;
        if counts && breakpoint.at.role == role {
            breakpoint.hits += 1;
            due = (breakpoint.hits == breakpoint.at.nth).then_some(breakpoint.signal);
        }
        self.remove(thread);
        if let Some(signal) = due {
            self.breakpoint = None;
            self.script.sent_to.store(if role == Role::Performer { 1 } else { 2 }, SeqCst);
            // SAFETY: the call takes no pointer.
            assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, thread, signal) }, 0);
        } else {
            self.stepping_over = Some(thread);
        }
    }

    /// By a thread that is stopped; they share their memory.
    fn insert(&mut self, thread: c_int) {
        if let Some(breakpoint) = self.breakpoint.as_mut().filter(|breakpoint| breakpoint.original.is_none()) {
            self.last_pc = breakpoint.at.pc;
            let word = request(libc::PTRACE_PEEKTEXT, thread, breakpoint.at.pc, 0);
            // Refused in the kernel's own page of code.
            if request(libc::PTRACE_POKETEXT, thread, breakpoint.at.pc, (word as u64 & !0xff) | 0xcc) == 0 {
                breakpoint.original = Some(word);
            }
        }
    }

    fn remove(&mut self, thread: c_int) {
        if let Some(breakpoint) = &mut self.breakpoint
            && let Some(word) = breakpoint.original.take()
        {
            assert_eq!(request(libc::PTRACE_POKETEXT, thread, breakpoint.at.pc, word as u64), 0);
        }
    }
}

/// Sends each of `kinds` at every `stride`th boundary of the stories, counted through all of them; with `to_new` also to threads that are
/// not the performer. The tracee runs `tracee`.
pub(crate) fn sweep<S: Debug>(stories: &[S], kinds: &[Signal], stride: u64, to_new: bool, tracee: impl FnOnce(&Script)) {
    let mut tracer = Tracer::start(tracee);
    let mut tally = Tally::new();
    let (mut turn, mut missed) = (0, 0);
    for (index, story) in stories.iter().enumerate() {
        // The first runs map memory and bind functions.
        tracer.run(index);
        tracer.run(index);
        let mut boundaries = tracer.learn(index);
        boundaries.retain(|boundary| to_new || boundary.role == Role::Performer);
        println!("{story:?}: {} boundaries", boundaries.len());
        assert!(boundaries.len() > 50);
        for signal in kinds {
            for (place, at) in boundaries.iter().enumerate() {
                turn += 1;
                if turn % stride == 0 {
                    let before = tracer.failures();
                    missed += u64::from(!tracer.run_with(index, signal.number(), *at));
                    let failed = tracer.failures() != before;
                    tally.add(failed, || format!("{story:?}, {signal} at {place} of {}: {at:x?}", boundaries.len()));
                }
            }
        }
    }
    println!("{missed} boundaries were not met again");
    assert_eq!(tracer.finish(), 0);
    // What std's allocations of a thread find in libc's arenas differs from run to run.
    assert!(missed * 8 < tally.conclude());
}
