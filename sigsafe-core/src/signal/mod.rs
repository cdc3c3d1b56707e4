//! Signal numbers as a type, and [what is known of each](Platform::table) on each platform.
//!
//! A [`Signal`] is a number that the kernel knows, with its name and its [`Flags`]. Constants, names, ranges and the sets that are
//! derived from them (`SigSet::ESSENTIAL` and kin) come out of one table (`table/`); libc's constants are compared with
//! it while compiling. Data only, no system call; usable in any context.

mod flags;
mod table;
mod text;

pub use flags::Flags;
pub use table::{Platform, Row};

use core::num::NonZeroU8;

/// The highest signal number of this platform.
pub(crate) const LAST: i32 = Platform::CURRENT.table().len() as i32;

/// The first and the last real-time signal that are not the thread library's own; an empty range where there are none.
const REAL_TIME: (i32, i32) = Platform::CURRENT.real_time();

/// A number that is a signal on this platform: 1 to 64 on Linux.
///
/// The type says that the number exists, not that a handler may be installed for it: [`Handler::install`] refuses what
/// nobody can catch and what libc keeps for itself.
///
/// Prints as the C name (`SIGPROF`, `SIGRTMIN+3`; numbers that have none as `SIG32`) and parses from it, with or
/// without `SIG`, or from the number.
///
/// ```
/// use sigsafe_core::Signal;
/// assert_eq!("SIGPROF".parse(), Ok(Signal::PROF));
/// assert_eq!("usr1".parse(), Ok(Signal::USR1));
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert!(Signal::new(0).is_err());
/// ```
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
///
/// [`Handler::install`]: crate::handler::Handler::install
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(NonZeroU8);

/// The number or name is no signal of this kernel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct InvalidSignal;

macro_rules! named {
    ($($(#[$only:meta])* $short:ident = $number:expr, $doc:literal;)*) => {
        impl Signal {
            $($(#[$only])*
            #[doc = $doc]
            pub const $short: Signal = Signal::in_table(concat!("SIG", stringify!($short)));)*
        }

        // What this crate's table says is what libc says.
        $($(#[$only])*
        const _: () = assert!(Signal::$short.number() == $number, concat!("SIG", stringify!($short), " has another number in libc"));)*
    };
}

named! {
    HUP = libc::SIGHUP, "The terminal is gone.";
    INT = libc::SIGINT, "Interrupt from the keyboard.";
    QUIT = libc::SIGQUIT, "Quit from the keyboard.";
    ILL = libc::SIGILL, "Illegal instruction.";
    TRAP = libc::SIGTRAP, "Trace or breakpoint trap.";
    ABRT = libc::SIGABRT, "`abort()`.";
    BUS = libc::SIGBUS, "Access to memory that is mapped and not there.";
    FPE = libc::SIGFPE, "Arithmetic fault.";
    KILL = libc::SIGKILL, "Kill; cannot be caught or blocked.";
    USR1 = libc::SIGUSR1, "Free for the program's use.";
    SEGV = libc::SIGSEGV, "Access to memory that is not mapped or not permitted.";
    USR2 = libc::SIGUSR2, "Free for the program's use.";
    PIPE = libc::SIGPIPE, "Write to a pipe that nobody reads.";
    ALRM = libc::SIGALRM, "`alarm()` or the real-time interval timer.";
    TERM = libc::SIGTERM, "Request to terminate.";
    CHLD = libc::SIGCHLD, "A child stopped, continued or ended.";
    CONT = libc::SIGCONT, "Continue when stopped.";
    STOP = libc::SIGSTOP, "Stop; cannot be caught or blocked.";
    TSTP = libc::SIGTSTP, "Stop from the terminal.";
    TTIN = libc::SIGTTIN, "A background process reads the terminal.";
    TTOU = libc::SIGTTOU, "A background process writes to the terminal.";
    URG = libc::SIGURG, "Urgent data on a socket.";
    XCPU = libc::SIGXCPU, "CPU time limit exceeded.";
    XFSZ = libc::SIGXFSZ, "File size limit exceeded.";
    VTALRM = libc::SIGVTALRM, "The virtual interval timer.";
    PROF = libc::SIGPROF, "The profiling interval timer.";
    WINCH = libc::SIGWINCH, "The terminal's size changed.";
    IO = libc::SIGIO, "Input or output is possible.";
    SYS = libc::SIGSYS, "Bad or trapped system call.";
    #[cfg(target_os = "linux")]
    STKFLT = libc::SIGSTKFLT, "Unused by the kernel. Linux only.";
    #[cfg(any(target_os = "linux", target_os = "illumos"))]
    PWR = libc::SIGPWR, "Power failure. Linux, NetBSD and illumos only.";
    // libc has no constant for it.
    #[cfg(target_os = "netbsd")]
    PWR = 32, "Power failure. Linux, NetBSD and illumos only.";
    #[cfg(not(target_os = "linux"))]
    EMT = libc::SIGEMT, "Emulated instruction. Not on Linux.";
    #[cfg(not(target_os = "linux"))]
    INFO = libc::SIGINFO, "Request for status from the keyboard. Not on Linux.";
}

impl Signal {
    /// For constants: a name that this platform's table does not have stops the build.
    const fn in_table(name: &str) -> Signal {
        let Some(row) = Platform::CURRENT.find(name) else { panic!("no signal of this name") };
        let Ok(signal) = Signal::new(row.number) else { panic!("a row outside of its table") };
        signal
    }

    /// The signal of this number.
    ///
    /// # Errors
    ///
    /// [`InvalidSignal`] for anything outside 1 to the platform's highest: 64 on Linux.
    pub const fn new(number: i32) -> Result<Signal, InvalidSignal> {
        if number < 1 || number > LAST {
            return Err(InvalidSignal);
        }
        match NonZeroU8::new(number as u8) {
            Some(number) => Ok(Signal(number)),
            None => Err(InvalidSignal),
        }
    }

    /// The real-time signal `SIGRTMIN + offset`, counted as libc counts: its own are left out.
    ///
    /// # Errors
    ///
    /// [`InvalidSignal`] past `SIGRTMAX`, and always where there are no real-time signals (macOS, DragonFly, OpenBSD).
    #[doc(alias = "SIGRTMIN")]
    pub const fn real_time(offset: u32) -> Result<Signal, InvalidSignal> {
        let (first, last) = REAL_TIME;
        if first > last || offset > (last - first) as u32 {
            return Err(InvalidSignal);
        }
        Signal::new(first + offset as i32)
    }

    /// The number, as system calls take it.
    pub const fn number(self) -> i32 {
        self.0.get() as i32
    }

    /// Whether instances of this signal queue up with their data instead of merging into one (POSIX, real-time signals).
    pub const fn is_real_time(self) -> bool {
        REAL_TIME.0 <= self.number() && self.number() <= REAL_TIME.1
    }

    /// The C name; `None` for real-time signals and for numbers that have none.
    pub const fn name(self) -> Option<&'static str> {
        self.row().name
    }

    /// What is known of it on this platform.
    ///
    /// ```
    /// use sigsafe_core::{Signal, signal::Flags};
    /// assert!(Signal::TERM.flags().contains(Flags::NOTIFY | Flags::KILL));
    /// ```
    pub const fn flags(self) -> Flags {
        self.row().flags
    }

    const fn row(self) -> &'static Row {
        &Platform::CURRENT.table()[self.number() as usize - 1]
    }
}

impl TryFrom<i32> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: i32) -> Result<Signal, InvalidSignal> {
        Signal::new(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_signal_is_refused() {
        for number in [i32::MIN, -1, 0, LAST + 1, 256 + 10, i32::MAX] {
            assert_eq!(Signal::new(number), Err(InvalidSignal));
        }
        assert_eq!(Signal::real_time(u32::MAX), Err(InvalidSignal));
    }

    #[test]
    fn flags_and_names_are_those_of_the_table() {
        for row in Platform::CURRENT.table() {
            let signal = Signal::new(row.number).unwrap();
            assert_eq!((signal.name(), signal.flags()), (row.name, row.flags), "{signal}");
            assert_eq!(signal.is_real_time(), row.flags.contains(Flags::REAL_TIME), "{signal}");
        }
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "illumos"))]
    fn the_real_time_range_is_libc_s() {
        assert_eq!(Signal::real_time(0).unwrap().number(), libc::SIGRTMIN());
        let last = (libc::SIGRTMAX() - libc::SIGRTMIN()) as u32;
        assert_eq!(Signal::real_time(last).unwrap().number(), libc::SIGRTMAX());
        assert_eq!(Signal::real_time(last + 1), Err(InvalidSignal));
    }
}
