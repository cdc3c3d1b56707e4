//! macOS and the BSDs: the 31 signals of 4.4BSD, and what each has added. Sources: the systems' `sys/signal.h` and signal(7), and
//! their thread libraries for what those keep for themselves.

use super::{Row, complete, rows};

/// No real-time signals.
const NONE: (i32, i32) = (i32::MAX, 0);

pub(super) static MAC_OS: [Row; 31] = complete(&[COMMON], NONE);

/// 32 is the thread library's, 33 that of librt's notifications. The kernel takes all 128 numbers of its set.
pub(super) static FREE_BSD: [Row; 128] = complete(&[COMMON, rows! { 32 "SIGTHR" RESERVED; 33 "SIGLIBRT" RESERVED; }], (65, 126));

/// 32 is the thread library's; 33 and 34 write a checkpoint of the process. The kernel takes every number below 128.
pub(super) static DRAGON_FLY: [Row; 127] =
    complete(&[COMMON, rows! { 32 "SIGTHR" RESERVED; 33 "SIGCKPT" NOTIFY; 34 "SIGCKPTEXIT" NOTIFY KILL; }], NONE);

pub(super) static NET_BSD: [Row; 63] = complete(&[COMMON, rows! { 32 "SIGPWR" NOTIFY IGNORE; }], (33, 63));

/// 32 is the thread library's.
pub(super) static OPEN_BSD: [Row; 32] = complete(&[COMMON, rows! { 32 "SIGTHR" RESERVED; }], NONE);

const COMMON: &[Row] = rows! {
    1 "SIGHUP" NOTIFY KILL;
    2 "SIGINT" NOTIFY KILL;
    3 "SIGQUIT" NOTIFY THROW;
    4 "SIGILL" THROW UNBLOCK SYNCHRONOUS;
    5 "SIGTRAP" THROW UNBLOCK SYNCHRONOUS;
    6 "SIGABRT" NOTIFY THROW;
    7 "SIGEMT" THROW SYNCHRONOUS;
    8 "SIGFPE" PANIC UNBLOCK SYNCHRONOUS;
    9 "SIGKILL";
    10 "SIGBUS" PANIC UNBLOCK SYNCHRONOUS;
    11 "SIGSEGV" PANIC UNBLOCK SYNCHRONOUS;
    12 "SIGSYS" THROW UNBLOCK SYNCHRONOUS;
    13 "SIGPIPE" NOTIFY;
    14 "SIGALRM" NOTIFY;
    15 "SIGTERM" NOTIFY KILL;
    16 "SIGURG" NOTIFY IGNORE;
    17 "SIGSTOP" STOP;
    18 "SIGTSTP" NOTIFY DEFAULT STOP;
    19 "SIGCONT" NOTIFY DEFAULT IGNORE;
    20 "SIGCHLD" NOTIFY UNBLOCK IGNORE;
    21 "SIGTTIN" NOTIFY DEFAULT STOP;
    22 "SIGTTOU" NOTIFY DEFAULT STOP;
    23 "SIGIO" NOTIFY IGNORE;
    24 "SIGXCPU" NOTIFY;
    25 "SIGXFSZ" NOTIFY;
    26 "SIGVTALRM" NOTIFY;
    27 "SIGPROF" NOTIFY UNBLOCK;
    28 "SIGWINCH" NOTIFY IGNORE;
    29 "SIGINFO" NOTIFY IGNORE;
    30 "SIGUSR1" NOTIFY;
    31 "SIGUSR2" NOTIFY;
};
