//! Signals as text: the C names, and what parses as one.
//!
//! Runs in any context; allocates nothing.

use core::fmt;
use core::str::FromStr;

use super::{InvalidSignal, LAST, Platform, REAL_TIME, Signal};

impl fmt::Display for InvalidSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a signal: expected a number from 1 to {LAST} or a name such as SIGPROF or SIGRTMIN+3")
    }
}

impl core::error::Error for InvalidSignal {}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None if self.number() == REAL_TIME.0 => f.pad("SIGRTMIN"),
            None if self.is_real_time() => write!(f, "SIGRTMIN+{}", self.number() - REAL_TIME.0),
            None => write!(f, "SIG{}", self.number()),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
        let named = |name: &str| name[3..].eq_ignore_ascii_case(short);
        if let Some(row) = Platform::CURRENT.table().iter().find(|row| row.name.is_some_and(named)) {
            return Signal::new(row.number);
        }
        if let Ok(number) = short.parse::<i32>() {
            return Signal::new(number);
        }
        // Relative to one end of the real-time range.
        let (Some(base), Some(rest)) = (short.get(..5), short.get(5..)) else { return Err(InvalidSignal) };
        let offset = |sign: char| match rest {
            "" => Ok(0),
            // The standard parser would take one more sign.
            _ => match rest.strip_prefix(sign) {
                Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits.parse::<u32>().map_err(|_| InvalidSignal),
                _ => Err(InvalidSignal),
            },
        };
        if base.eq_ignore_ascii_case("RTMIN") {
            Signal::real_time(offset('+')?)
        } else if base.eq_ignore_ascii_case("RTMAX") {
            let (first, last) = REAL_TIME;
            let range = last.checked_sub(first).and_then(|range| u32::try_from(range).ok()).ok_or(InvalidSignal)?;
            Signal::real_time(range.checked_sub(offset('-')?).ok_or(InvalidSignal)?)
        } else {
            Err(InvalidSignal)
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
        let past = (LAST + 1).to_string();
        for text in
            ["", "SIG", "SIGFOO", "SIGRTMIN+99", "SIGRTMIN-1", "RTMIN+", "RTMIN++1", "RTMAX+1", "RTMAX-99", "RTMID", "0", &past, "é", "SIé"]
        {
            assert_eq!(text.parse::<Signal>(), Err(InvalidSignal), "{text:?}");
        }
    }

    #[test]
    fn the_real_time_range_counts_from_both_ends() {
        let (first, last) = REAL_TIME;
        if first > last {
            assert_eq!("SIGRTMIN".parse::<Signal>(), Err(InvalidSignal));
            assert_eq!("SIGRTMAX".parse::<Signal>(), Err(InvalidSignal));
            return;
        }
        assert_eq!("SIGRTMIN".parse::<Signal>().unwrap().number(), first);
        assert_eq!("rtmin+1".parse::<Signal>().unwrap().number(), first + 1);
        assert_eq!("SIGRTMAX".parse::<Signal>().unwrap().number(), last);
        assert_eq!("RTMAX-1".parse::<Signal>().unwrap().number(), last - 1);
        assert_eq!(std::format!("RTMAX-{}", last - first).parse::<Signal>().unwrap().number(), first);
        assert_eq!(std::format!("RTMIN+{}", last - first + 1).parse::<Signal>(), Err(InvalidSignal));
    }
}
