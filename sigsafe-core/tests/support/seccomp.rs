//! A seccomp filter over one system call, as a sandbox has it. It holds for the calling thread and its children, and cannot be taken off.

use std::mem::offset_of;

use sigsafe_core::Signal;

/// What becomes of the system call.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Fails with `EPERM`.
    Refuse,
    /// Raises SIGSYS.
    Trap,
}

/// Puts the filter on the calling thread.
pub fn install(filter: Filter, system_call: libc::c_long) {
    let action = match filter {
        Filter::Refuse => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        Filter::Trap => libc::SECCOMP_RET_TRAP,
    };
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset_of!(libc::seccomp_data, nr) as u32),
        // The next statement if it is this call, else the one after.
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, system_call as u32) },
        statement(libc::BPF_RET | libc::BPF_K, action),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    load(&program);
}

/// Refuses `rt_tgsigqueueinfo` of one signal with `EPERM`.
pub fn refuse_queueing(signal: Signal) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let equal = |k: u32, else_skip: u8| libc::sock_filter { jf: else_skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) };
    // The low half of the third argument.
    let number = offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>();
    load(&[
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset_of!(libc::seccomp_data, nr) as u32),
        equal(libc::SYS_rt_tgsigqueueinfo as u32, 3),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number as u32),
        equal(signal.number() as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// Answers the call by SIGSYS, unless the low half of its sixth argument, which it does not have, is `pass`.
pub fn trap_unless_passed(system_call: libc::c_long, pass: u32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let equal =
        |k: u32, skip: [u8; 2]| libc::sock_filter { jt: skip[0], jf: skip[1], ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) };
    let sixth = offset_of!(libc::seccomp_data, args) + 5 * size_of::<u64>();
    load(&[
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset_of!(libc::seccomp_data, nr) as u32),
        equal(system_call as u32, [0, 2]),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, sixth as u32),
        equal(pass, [0, 1]),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_TRAP),
    ]);
}

fn load(program: &[libc::sock_filter]) {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the call takes no pointer.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is live, and the kernel copies it.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}
