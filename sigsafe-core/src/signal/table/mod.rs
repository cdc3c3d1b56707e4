//! The signal table: every signal of every platform with what is known of it, as data.
//!
//! After Go's `sigtable`: what a runtime does with a signal is not decided in code where it arrives, but looked up here. The tables
//! of all platforms are compiled on each, so that one build checks them all; [`Platform::CURRENT`] says which one holds. Each is
//! total: a row for every number that the platform's kernel takes, in order. Data only, usable in any context.

mod bsd;
mod illumos;
mod linux;

use super::flags::Flags;

/// One signal of a platform.
///
/// Async-signal safety: data. Cost: none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The number.
    pub number: i32,
    /// The C name, where there is one for this number by itself: none for real-time signals, nor for numbers without a use.
    pub name: Option<&'static str>,
    /// What is known of it.
    pub flags: Flags,
}

/// A system whose signals are known here.
///
/// ```
/// use sigsafe_core::signal::{Flags, Platform};
/// let essential = Platform::FreeBsd.table().iter().filter(|row| row.flags.contains(Flags::UNBLOCK));
/// assert_eq!(essential.count(), 8);
/// ```
///
/// Async-signal safety: every method may be called from a handler. Cost: no system call.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Platform {
    /// Linux with the numbers that most architectures have, x86_64 and aarch64 among them. MIPS, SPARC and PA-RISC number them in
    /// another way; a build for one of those stops at the comparison with libc's constants. What is reserved is glibc's or, in a
    /// build for it, musl's share of the real-time range.
    Linux,
    /// macOS and Apple's other systems.
    MacOs,
    /// FreeBSD.
    FreeBsd,
    /// DragonFly BSD.
    DragonFly,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
    /// illumos.
    Illumos,
}

impl Platform {
    /// Every platform with a table.
    pub const ALL: [Platform; 7] =
        [Platform::Linux, Platform::MacOs, Platform::FreeBsd, Platform::DragonFly, Platform::NetBsd, Platform::OpenBsd, Platform::Illumos];

    /// The platform that this is compiled for.
    pub const CURRENT: Platform = current();

    /// The rows of all its signals: that of number N is at index N - 1.
    pub const fn table(self) -> &'static [Row] {
        match self {
            Platform::Linux => &linux::TABLE,
            Platform::MacOs => &bsd::MAC_OS,
            Platform::FreeBsd => &bsd::FREE_BSD,
            Platform::DragonFly => &bsd::DRAGON_FLY,
            Platform::NetBsd => &bsd::NET_BSD,
            Platform::OpenBsd => &bsd::OPEN_BSD,
            Platform::Illumos => &illumos::TABLE,
        }
    }

    /// The row of this C name.
    pub(super) const fn find(self, name: &str) -> Option<Row> {
        let table = self.table();
        let mut index = 0;
        while index < table.len() {
            if is_named(&table[index], name) {
                return Some(table[index]);
            }
            index += 1;
        }
        None
    }

    /// The first and the last real-time signal; where there are none, a range that holds nothing.
    pub(super) const fn real_time(self) -> (i32, i32) {
        let table = self.table();
        let (mut first, mut last) = (i32::MAX, 0);
        let mut index = 0;
        while index < table.len() {
            if table[index].flags.contains(Flags::REAL_TIME) {
                last = table[index].number;
                if first == i32::MAX {
                    first = last;
                }
            }
            index += 1;
        }
        (first, last)
    }
}

const fn current() -> Platform {
    #[cfg(not(any(
        target_os = "linux",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "illumos"
    )))]
    compile_error!(
        "sigsafe-core knows the signals of Linux, macOS, FreeBSD, DragonFly, NetBSD, OpenBSD and illumos, and not this system's"
    );

    if cfg!(target_vendor = "apple") {
        Platform::MacOs
    } else if cfg!(target_os = "freebsd") {
        Platform::FreeBsd
    } else if cfg!(target_os = "dragonfly") {
        Platform::DragonFly
    } else if cfg!(target_os = "netbsd") {
        Platform::NetBsd
    } else if cfg!(target_os = "openbsd") {
        Platform::OpenBsd
    } else if cfg!(target_os = "illumos") {
        Platform::Illumos
    } else {
        Platform::Linux
    }
}

/// Rows as they are written down: number, name (or `_`), flags.
macro_rules! rows {
    (@name _) => { None };
    (@name $name:literal) => { Some($name) };
    ($($number:literal $name:tt $($flag:ident)*;)*) => {
        &[$(crate::signal::table::Row {
            number: $number,
            name: crate::signal::table::rows!(@name $name),
            flags: crate::signal::flags::Flags::EMPTY$(.union(crate::signal::flags::Flags::$flag))*,
        }),*]
    };
}
use rows;

/// A whole table of `N` rows: those that are written down, then the real-time range, and for any other number a row without a name,
/// for a signal that the kernel takes and that means nothing by itself.
const fn complete<const N: usize>(written: &[&[Row]], real_time: (i32, i32)) -> [Row; N] {
    let mut table = [Row { number: 0, name: None, flags: Flags::NOTIFY }; N];
    let mut index = 0;
    while index < N {
        let number = index as i32 + 1;
        table[index].number = number;
        if real_time.0 <= number && number <= real_time.1 {
            table[index].flags = Flags::NOTIFY.union(Flags::REAL_TIME);
        }
        index += 1;
    }
    let mut list = 0;
    while list < written.len() {
        let mut index = 0;
        while index < written[list].len() {
            let row = written[list][index];
            table[row.number as usize - 1] = row;
            index += 1;
        }
        list += 1;
    }
    table
}

const fn is_named(row: &Row, name: &str) -> bool {
    let (Some(own), name) = (row.name, name.as_bytes()) else { return false };
    let own = own.as_bytes();
    let mut index = 0;
    while index < own.len() && index < name.len() && own[index] == name[index] {
        index += 1;
    }
    index == own.len() && index == name.len()
}

const fn is_one_of(row: &Row, names: &[&str]) -> bool {
    let mut index = 0;
    while index < names.len() {
        if is_named(row, names[index]) {
            return true;
        }
        index += 1;
    }
    false
}

/// Without these a runtime's thread does not work: its faults, its profiler, and the children that it waits for.
const ESSENTIAL: &[&str] = &["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGPROF", "SIGCHLD", "SIGSTKFLT", "SIGSYS"];
const FAULTS: &[&str] = &["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGEMT"];
const UNCATCHABLE: &[&str] = &["SIGKILL", "SIGSTOP"];
const STOPS: &[&str] = &["SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"];

/// What must hold of each row, on every platform.
const fn check_row(row: &Row) {
    let flags = row.flags;
    assert!(flags.contains(Flags::UNBLOCK) == is_one_of(row, ESSENTIAL), "the essential signals are these and no others");
    assert!(flags.contains(Flags::SYNCHRONOUS) == is_one_of(row, FAULTS), "the synchronous signals are these and no others");
    assert!(flags.contains(Flags::STOP) == is_one_of(row, STOPS), "the signals that stop are these and no others");
    if is_one_of(row, UNCATCHABLE) {
        assert!(!flags.intersects(Flags::NOTIFY.union(Flags::UNBLOCK)), "what nobody can catch or block is not essential");
    }
    if flags.contains(Flags::RESERVED) {
        assert!(flags.len() == 1, "what the thread library uses is nobody else's");
    }
    let ends = flags.intersection(Flags::KILL.union(Flags::THROW).union(Flags::PANIC));
    assert!(ends.len() <= 1, "a program ends in one way");
    if flags.contains(Flags::SYNCHRONOUS) {
        assert!(flags.intersects(Flags::THROW.union(Flags::PANIC)), "a fault is not quiet");
    }
    if flags.intersects(Flags::IGNORE.union(Flags::STOP)) {
        assert!(ends.is_empty(), "what is discarded or stops does not end the program");
        assert!(!flags.contains(Flags::IGNORE.union(Flags::STOP)), "there is one default action");
    }
    if flags.intersects(Flags::DEFAULT.union(Flags::KILL)) {
        assert!(flags.contains(Flags::NOTIFY), "these say what happens until somebody asks");
    }
    if flags.contains(Flags::REAL_TIME) {
        assert!(row.name.is_none() && flags.contains(Flags::NOTIFY) && flags.len() == 2, "a real-time signal means nothing by itself");
    }
}

/// A row for each number, in order; the named signals that every platform has; one range of real-time signals.
const fn check(platform: Platform) {
    let table = platform.table();
    let (first, last) = platform.real_time();
    let mut index = 0;
    while index < table.len() {
        let row = &table[index];
        assert!(row.number == index as i32 + 1, "each number once, in order");
        check_row(row);
        let inside = first <= row.number && row.number <= last;
        assert!(row.flags.contains(Flags::REAL_TIME) == inside, "the real-time signals are one range");
        index += 1;
    }
    let mut index = 0;
    while index < EVERYWHERE.len() {
        assert!(platform.find(EVERYWHERE[index]).is_some(), "a signal that every platform has");
        index += 1;
    }
}

/// The signals that are there on every platform, POSIX's and a few more.
#[rustfmt::skip]
const EVERYWHERE: &[&str] = &[
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
    "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGSYS",
];

const _: () = {
    let mut index = 0;
    while index < Platform::ALL.len() {
        check(Platform::ALL[index]);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_platform_has_as_many_signals_as_its_kernel_takes() {
        let lasts = Platform::ALL.map(|platform| platform.table().len());
        assert_eq!(lasts, [64, 31, 128, 127, 63, 32, 73]);
    }

    #[test]
    fn real_time_ranges_are_those_of_the_headers() {
        let none = (i32::MAX, 0);
        let linux = (if cfg!(target_env = "musl") { 35 } else { 34 }, 64);
        let ranges = Platform::ALL.map(Platform::real_time);
        assert_eq!(ranges, [linux, none, (65, 126), none, (33, 63), none, (42, 73)]);
    }

    #[test]
    fn thread_libraries_keep_these_for_themselves() {
        let reserved = |platform: Platform| -> std::vec::Vec<i32> {
            platform.table().iter().filter(|row| row.flags.contains(Flags::RESERVED)).map(|row| row.number).collect()
        };
        let linux: &[i32] = if cfg!(target_env = "musl") { &[32, 33, 34] } else { &[32, 33] };
        assert_eq!(reserved(Platform::Linux), linux);
        assert_eq!(reserved(Platform::MacOs), []);
        assert_eq!(reserved(Platform::FreeBsd), [32, 33]);
        assert_eq!(reserved(Platform::DragonFly), [32]);
        assert_eq!(reserved(Platform::NetBsd), []);
        assert_eq!(reserved(Platform::OpenBsd), [32]);
        assert_eq!(reserved(Platform::Illumos), [32, 33, 36]);
    }

    #[test]
    fn names_are_unique_and_spelled_in_full() {
        for platform in Platform::ALL {
            let names: std::vec::Vec<_> = platform.table().iter().filter_map(|row| row.name).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{platform:?}");
            assert!(names.iter().all(|name| name.starts_with("SIG") && *name == name.to_ascii_uppercase()), "{platform:?}");
        }
    }

    #[test]
    fn the_bsds_agree_on_what_they_have_from_4_4() {
        let bsds = [Platform::MacOs, Platform::FreeBsd, Platform::DragonFly, Platform::NetBsd, Platform::OpenBsd];
        for platform in bsds {
            assert_eq!(platform.table()[..31], Platform::MacOs.table()[..31], "{platform:?}");
        }
    }

    #[test]
    fn a_name_is_found_whole_or_not_at_all() {
        assert_eq!(Platform::Linux.find("SIGCHLD").map(|row| row.number), Some(17));
        assert_eq!(Platform::Illumos.find("SIGCHLD").map(|row| row.number), Some(18));
        for name in ["SIGCHL", "SIGCHLDS", "", "CHLD", "SIGPWR"] {
            assert_eq!(Platform::MacOs.find(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_wrong_row_does_not_pass_the_check() {
        let sound = Platform::Linux.find("SIGSEGV").unwrap();
        check_row(&sound);
        for flags in [Flags::SYNCHRONOUS | Flags::UNBLOCK, sound.flags | Flags::RESERVED, sound.flags | Flags::KILL, Flags::NOTIFY] {
            let row = Row { flags, ..sound };
            assert!(std::panic::catch_unwind(|| check_row(&row)).is_err(), "{flags:?}");
        }
    }
}
