//! What is mapped into this process, by the kernel's list.
//!
//! Thread context.

use std::ops::Range;

/// A line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) addresses: Range<usize>,
    /// As the list has it, for instance `r-xp`.
    pub(super) access: String,
    /// A file, or `[vdso]` and its kin; empty for memory without a name.
    pub(super) name: String,
}

/// All mappings, lowest first.
///
/// # Panics
///
/// Where the process cannot read its own list.
pub(super) fn mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    maps.lines().map(|line| parse(line).unwrap_or_else(|| panic!("not a mapping: {line}"))).collect()
}

fn parse(line: &str) -> Option<Mapping> {
    // Addresses, access, offset, device, inode; then the name, which may have spaces, behind padding.
    let mut fields = line.splitn(6, ' ');
    let (first, end) = fields.next()?.split_once('-')?;
    let [first, end] = [first, end].map(|address| usize::from_str_radix(address, 16).ok());
    let access = fields.next()?.to_owned();
    let name = fields.nth(3).unwrap_or_default().trim_start().to_owned();
    Some(Mapping { addresses: first?..end?, access, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_name_that_may_have_spaces_or_none() {
        let file = parse("55d0c0e00000-55d0c0e21000 r-xp 00002000 fe:00 1311 \t         /tmp/a b").unwrap();
        assert_eq!((file.addresses, &*file.access, &*file.name), (0x55d0_c0e0_0000..0x55d0_c0e2_1000, "r-xp", "/tmp/a b"));
        assert_eq!(parse("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ").unwrap().name, "");
        assert_eq!(parse("7f0000000000-7f0000001000 rw-p 00000000 00:00 0").unwrap().name, "");
        assert_eq!(parse("not a mapping"), None);
    }

    #[test]
    fn this_program_is_mapped_and_so_is_what_it_runs() {
        let here = this_program_is_mapped_and_so_is_what_it_runs as fn() as usize;
        let program = std::env::current_exe().unwrap();
        let all = mappings();
        let code = all.iter().find(|mapping| mapping.addresses.contains(&here)).unwrap();
        assert_eq!((&*code.access, &*code.name), ("r-xp", program.to_str().unwrap()));
    }
}
