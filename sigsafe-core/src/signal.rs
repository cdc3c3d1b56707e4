//! Signal numbers as a type: a [`Signal`] is a number that the kernel knows, with its name.
//!
//! Data only, no system call but libc's own question where its real-time range starts; usable in any context.

use core::fmt;
use core::num::NonZeroU8;
use core::str::FromStr;

/// The highest signal number of the kernel's 64-bit sets.
pub(crate) const LAST: i32 = 64;

/// The first real-time signal that is not libc's own: the kernel's range starts at 32, glibc keeps two for itself and musl three.
pub(crate) const FIRST_REAL_TIME: i32 = if cfg!(target_env = "musl") { 35 } else { 34 };

/// A signal number between 1 and 64.
///
/// The type says that the number exists, not that a handler may be installed for it: [`Handler::install`] refuses what
/// nobody can catch and what libc keeps for itself.
///
/// Prints as the C name (`SIGPROF`, `SIGRTMIN+3`; the numbers that libc reserves as `SIG32`) and parses from it, with or
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

impl fmt::Display for InvalidSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a signal: expected a number from 1 to 64 or a name such as SIGPROF or SIGRTMIN+3")
    }
}

impl core::error::Error for InvalidSignal {}

macro_rules! named {
    ($($short:ident = $number:expr, $doc:literal;)*) => {
        impl Signal {
            $(#[doc = $doc]
            pub const $short: Signal = Signal::literal($number);)*
        }

        const NAMES: &[(Signal, &str)] = &[$((Signal::$short, concat!("SIG", stringify!($short)))),*];
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
    STKFLT = libc::SIGSTKFLT, "Unused by the kernel.";
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
    PWR = libc::SIGPWR, "Power failure.";
    SYS = libc::SIGSYS, "Bad or trapped system call.";
}

impl Signal {
    const fn literal(number: i32) -> Signal {
        match Signal::new(number) {
            Ok(signal) => signal,
            Err(InvalidSignal) => panic!("a number outside 1..=64"),
        }
    }

    /// The signal of this number.
    ///
    /// # Errors
    ///
    /// [`InvalidSignal`] for anything outside 1 to 64.
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
    /// [`InvalidSignal`] past `SIGRTMAX`.
    #[doc(alias = "SIGRTMIN")]
    pub const fn real_time(offset: u32) -> Result<Signal, InvalidSignal> {
        if offset > (LAST - FIRST_REAL_TIME) as u32 {
            return Err(InvalidSignal);
        }
        Signal::new(FIRST_REAL_TIME + offset as i32)
    }

    /// The number, as system calls take it.
    pub const fn number(self) -> i32 {
        self.0.get() as i32
    }

    /// Whether instances of this signal queue up with their data instead of merging into one (POSIX, real-time signals).
    pub const fn is_real_time(self) -> bool {
        self.number() >= FIRST_REAL_TIME
    }

    /// The C name, `None` for real-time and reserved numbers.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(signal, _)| *signal == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None if self.number() == FIRST_REAL_TIME => f.pad("SIGRTMIN"),
            None if self.is_real_time() => write!(f, "SIGRTMIN+{}", self.number() - FIRST_REAL_TIME),
            None => write!(f, "SIG{}", self.number()),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<i32> for Signal {
    type Error = InvalidSignal;

    fn try_from(number: i32) -> Result<Signal, InvalidSignal> {
        Signal::new(number)
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Signal, InvalidSignal> {
        if let Ok(number) = text.parse::<i32>() {
            return Signal::new(number);
        }
        let short = match text.get(..3) {
            Some(prefix) if prefix.eq_ignore_ascii_case("SIG") => &text[3..],
            _ => text,
        };
        if let Some((signal, _)) = NAMES.iter().find(|(_, name)| name[3..].eq_ignore_ascii_case(short)) {
            return Ok(*signal);
        }
        if let Ok(number) = short.parse::<i32>() {
            return Signal::new(number);
        }
        match (short.get(..5), short.get(5..)) {
            (Some(base), Some("")) if base.eq_ignore_ascii_case("RTMIN") => Signal::real_time(0),
            (Some(base), Some("")) if base.eq_ignore_ascii_case("RTMAX") => Signal::new(LAST),
            (Some(base), Some(offset)) if base.eq_ignore_ascii_case("RTMIN") => {
                let digits = offset.strip_prefix('+').ok_or(InvalidSignal)?;
                Signal::real_time(digits.parse().map_err(|_| InvalidSignal)?)
            }
            (Some(base), Some(offset)) if base.eq_ignore_ascii_case("RTMAX") => {
                let digits: i32 = offset.strip_prefix('-').ok_or(InvalidSignal)?.parse().map_err(|_| InvalidSignal)?;
                match LAST.checked_sub(digits) {
                    Some(number) if number >= FIRST_REAL_TIME && digits >= 0 => Signal::new(number),
                    _ => Err(InvalidSignal),
                }
            }
            _ => Err(InvalidSignal),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_number_round_trips_through_its_name() {
        for number in 1..=LAST {
            let signal = Signal::new(number).unwrap();
            assert_eq!(signal.number(), number);
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for number in [i32::MIN, -1, 0, 65, 256 + 10, i32::MAX] {
            assert_eq!(Signal::new(number), Err(InvalidSignal));
        }
        for text in ["", "SIG", "SIGFOO", "SIGRTMIN+31", "SIGRTMIN-1", "RTMIN+", "RTMAX+1", "RTMAX-99", "0", "65", "é", "SIé"] {
            assert_eq!(text.parse::<Signal>(), Err(InvalidSignal), "{text:?}");
        }
        assert_eq!(Signal::real_time(u32::MAX), Err(InvalidSignal));
    }

    #[test]
    fn the_real_time_range_is_libc_s() {
        assert_eq!(Signal::real_time(0).unwrap().number(), libc::SIGRTMIN());
        assert_eq!("SIGRTMAX".parse::<Signal>().unwrap().number(), libc::SIGRTMAX());
        assert_eq!("RTMAX-1".parse::<Signal>().unwrap().number(), libc::SIGRTMAX() - 1);
    }
}
