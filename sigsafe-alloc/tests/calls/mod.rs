//! System calls that fail when a test wants them to: a seccomp filter has the kernel raise SIGSYS in place of those that are watched,
//! and SIGSYS's handler refuses the call or makes it itself.
//!
//! x86_64 Linux only, and not under an emulator, which knows no filters.

#![allow(dead_code, reason = "each test is a crate that uses its own part of this module")]

use std::arch::asm;
use std::ffi::{c_int, c_long, c_void};
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

/// The sixth argument of the handler's own calls, which the filter lets through. None of those that are watched here uses it (of mmap it
/// is a file's offset).
const OWN: u32 = 0x5155_0000;

/// Says of a call's number and first two arguments whether it is one of those that are counted.
pub(crate) type Chosen = fn(c_long, usize, usize) -> bool;

static CHOSEN: AtomicUsize = AtomicUsize::new(0);
/// How many chosen calls have been made, the refused ones included.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// So many chosen calls succeed before one is refused.
static SPARED: AtomicI64 = AtomicI64::new(i64::MAX);
/// So many are refused then.
static REFUSED: AtomicI64 = AtomicI64::new(0);
static ERROR: AtomicI64 = AtomicI64::new(0);

extern "C" fn on_sys(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's context of this delivery.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let argument = |register: c_int| registers[register as usize];
    // The kernel has put the number back.
    let number = argument(libc::REG_RAX);
    // SAFETY: only `counting` stores there, a function of this type.
    let chosen: Option<Chosen> = unsafe { std::mem::transmute(CHOSEN.load(SeqCst)) };
    let (first, second) = (argument(libc::REG_RDI), argument(libc::REG_RSI));
    let mut refused = false;
    if chosen.is_some_and(|chosen| chosen(number, first as usize, second as usize)) {
        COUNT.fetch_add(1, SeqCst);
        refused = SPARED.fetch_sub(1, SeqCst) <= 0 && REFUSED.fetch_sub(1, SeqCst) > 0;
    }
    let mut result = -ERROR.load(SeqCst);
    if !refused {
        // SAFETY: the call that the interrupted code has made, with its arguments.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") first,
                in("rsi") second,
                in("rdx") argument(libc::REG_RDX),
                in("r10") argument(libc::REG_R10),
                in("r8") argument(libc::REG_R8),
                in("r9") u64::from(OWN),
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
    }
    registers[libc::REG_RAX as usize] = result;
}

/// Watches these system calls, to the end of the process and in its children.
pub(crate) fn watch(numbers: &[c_long]) {
    let load = |offset| libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset };
    let equal = |k, jt| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf: 0, k };
    let give = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    // Of `seccomp_data`, the number is the first word, and the sixth argument the last.
    const SIXTH: u32 = 16 + 5 * 8;
    let mut filter = vec![load(0)];
    for (index, number) in numbers.iter().enumerate() {
        filter.push(equal(*number as u32, (numbers.len() - index) as u8));
    }
    filter.extend([give(libc::SECCOMP_RET_ALLOW), load(SIXTH), equal(OWN, 1), give(libc::SECCOMP_RET_TRAP), give(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: zero is a value of every field; the handler has the signature that SA_SIGINFO asks for; the program outlives the call.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_sys as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSYS, &raw const action, null_mut()), 0);
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0), 0);
    }
}

/// How many chosen calls `body` makes.
pub(crate) fn counting<R>(chosen: Chosen, body: impl FnOnce() -> R) -> (R, usize) {
    refusing(chosen, usize::MAX >> 1, 0, 0, body)
}

/// Runs `body` while the chosen calls that come after the first `spared` ones are refused with this error, `refused` of them; and how
/// many it makes.
pub(crate) fn refusing<R>(chosen: Chosen, spared: usize, refused: usize, error: c_int, body: impl FnOnce() -> R) -> (R, usize) {
    SPARED.store(spared as i64, SeqCst);
    REFUSED.store(refused as i64, SeqCst);
    ERROR.store(error.into(), SeqCst);
    COUNT.store(0, SeqCst);
    CHOSEN.store(chosen as usize, SeqCst);
    let result = body();
    CHOSEN.store(0, SeqCst);
    (result, COUNT.load(SeqCst))
}
