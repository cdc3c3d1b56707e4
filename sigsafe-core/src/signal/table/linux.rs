//! Linux: 64 signals. Sources: signal(7), and the C libraries for what they keep of the real-time range.

use super::{Row, complete, rows};

/// The kernel's real-time range starts at 32. glibc keeps two for itself (cancellation, `setuid` and kin), musl a third.
const FIRST: i32 = if cfg!(target_env = "musl") { 35 } else { 34 };

pub(super) static TABLE: [Row; 64] = complete(&[NAMED, if FIRST == 35 { MUSL } else { GLIBC }], (FIRST, 64));

const NAMED: &[Row] = rows! {
    1 "SIGHUP" NOTIFY KILL;
    2 "SIGINT" NOTIFY KILL;
    3 "SIGQUIT" NOTIFY THROW;
    4 "SIGILL" THROW UNBLOCK SYNCHRONOUS;
    5 "SIGTRAP" THROW UNBLOCK SYNCHRONOUS;
    6 "SIGABRT" NOTIFY THROW;
    7 "SIGBUS" PANIC UNBLOCK SYNCHRONOUS;
    8 "SIGFPE" PANIC UNBLOCK SYNCHRONOUS;
    9 "SIGKILL";
    10 "SIGUSR1" NOTIFY;
    11 "SIGSEGV" PANIC UNBLOCK SYNCHRONOUS;
    12 "SIGUSR2" NOTIFY;
    13 "SIGPIPE" NOTIFY;
    14 "SIGALRM" NOTIFY;
    15 "SIGTERM" NOTIFY KILL;
    16 "SIGSTKFLT" THROW UNBLOCK;
    17 "SIGCHLD" NOTIFY UNBLOCK IGNORE;
    18 "SIGCONT" NOTIFY DEFAULT IGNORE;
    19 "SIGSTOP" STOP;
    20 "SIGTSTP" NOTIFY DEFAULT STOP;
    21 "SIGTTIN" NOTIFY DEFAULT STOP;
    22 "SIGTTOU" NOTIFY DEFAULT STOP;
    23 "SIGURG" NOTIFY IGNORE;
    24 "SIGXCPU" NOTIFY;
    25 "SIGXFSZ" NOTIFY;
    26 "SIGVTALRM" NOTIFY;
    27 "SIGPROF" NOTIFY UNBLOCK;
    28 "SIGWINCH" NOTIFY IGNORE;
    29 "SIGIO" NOTIFY;
    30 "SIGPWR" NOTIFY;
    31 "SIGSYS" THROW UNBLOCK SYNCHRONOUS;
};

const GLIBC: &[Row] = rows! { 32 _ RESERVED; 33 _ RESERVED; };
const MUSL: &[Row] = rows! { 32 _ RESERVED; 33 _ RESERVED; 34 _ RESERVED; };
