//! What sends the signals of a storm.
//!
//! All of them send SIGPROF to the threads that work and to no others, and none of them adds to a handler that has not
//! returned: a storm is to interrupt the main flow, not to starve it.

pub(crate) mod itimer;
pub(crate) mod tgkill;
pub(crate) mod timer;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What sends the signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// `setitimer(ITIMER_PROF)`: what profilers and runtimes use; a few hundred signals a second at most
    Itimer,
    /// a POSIX timer for each thread, armed anew as the handler ends
    Timer,
    /// another thread that sends with `tgkill`, as fast as it goes if asked to
    Tgkill,
}

impl Driver {
    /// Every driver.
    pub const ALL: [Driver; 3] = [Driver::Itimer, Driver::Timer, Driver::Tgkill];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Driver::Itimer => "itimer",
            Driver::Timer => "timer",
            Driver::Tgkill => "tgkill",
        }
    }

    /// One line for the list.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Driver::Itimer => "setitimer(ITIMER_PROF), one for the process, in CPU time: never faster than the kernel's tick",
            Driver::Timer => "one POSIX timer for each thread, armed anew at the end of each handler: up to tens of kHz",
            Driver::Tgkill => "a thread that sends with tgkill to one thread after the other, never before the last handler returned",
        }
    }

    /// Whether each thread has its own stream of signals. If not, the rate is that of the process, and the kernel does not say
    /// how many it sent.
    #[must_use]
    pub const fn is_per_thread(self) -> bool {
        !matches!(self, Driver::Itimer)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_the_same() {
        for driver in Driver::ALL {
            assert_eq!(Driver::from_str(driver.name(), false), Ok(driver));
            assert_eq!(serde_json::to_value(driver).unwrap(), driver.name());
        }
    }
}
