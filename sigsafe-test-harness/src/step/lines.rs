//! Which lines of the sources a way has come along, by the debug information of this very program.
//!
//! Thread context.

use std::collections::BTreeSet;

use addr2line::Loader;

use super::maps::mappings;

/// A line: the file as the compiler knows it, and its number.
pub type Line = (String, u32);

/// The lines of this program.
#[allow(missing_debug_implementations, reason = "a loader has none")]
pub struct Lines {
    loader: Loader,
    /// How much further up the program lies than its file says.
    base: usize,
}

impl Lines {
    /// Reads this program's debug information.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    pub fn of_this_program() -> Lines {
        let program = std::env::current_exe().unwrap();
        let name = program.to_str().unwrap();
        let start = mappings().into_iter().find(|mapping| mapping.name == name).expect("this program is mapped").addresses.start;
        let loader = Loader::new(&program).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The first page that is mapped is the file's; a program that is not relocated says itself where that lies.
        let base = if loader.relative_address_base() == 0 { start } else { 0 };
        Lines { loader, base }
    }

    /// The line that the instruction at `pc` was made from, wherever that was inlined.
    #[must_use]
    pub fn at(&self, pc: usize) -> Option<Line> {
        let found = self.loader.find_location(pc.checked_sub(self.base)? as u64).ok()??;
        Some((found.file?.to_owned(), found.line?))
    }

    /// All lines that instructions were made from, of files whose name `is_wanted`.
    ///
    /// # Panics
    ///
    /// Where the debug information is no such.
    #[must_use]
    pub fn all(&self, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<Line> {
        let locations = self.loader.find_location_range(0, u64::MAX).expect("debug information");
        let mut lines = BTreeSet::new();
        for (_, length, location) in locations {
            if let (Some(file), Some(line)) = (location.file, location.line)
                && length != 0
                && is_wanted(file)
            {
                lines.insert((file.to_owned(), line));
            }
        }
        lines
    }
}
