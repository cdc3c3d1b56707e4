//! The boundaries that no run came to again, by function.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::mem::zeroed;

use super::tracer::Role;

#[derive(Default)]
pub(super) struct Missed {
    by_place: BTreeMap<String, u64>,
    pub(super) count: u64,
}

impl Missed {
    pub(super) fn add(&mut self, role: Role, pc: u64) {
        self.count += 1;
        *self.by_place.entry(format!("{role:?}, {}", place(pc))).or_default() += 1;
    }

    pub(super) fn print(&self) {
        println!("{} boundaries were not met again", self.count);
        for (place, count) in &self.by_place {
            println!("  {count} {place}");
        }
    }
}

/// The file and its nearest exported symbol. The tracee is a fork, and has everything at the same addresses.
fn place(pc: u64) -> String {
    // SAFETY: plain data for which zero is a value.
    let mut found: libc::Dl_info = unsafe { zeroed() };
    // SAFETY: the pointer is to a live value; the strings live as long as the files are mapped.
    unsafe {
        if libc::dladdr(pc as *const c_void, &raw mut found) == 0 {
            return format!("in no file that tells: {pc:#x}");
        }
        let text = |pointer| CStr::from_ptr(pointer).to_string_lossy();
        let file = text(found.dli_fname);
        let file = file.rsplit('/').next().unwrap_or_default();
        let offset = pc - found.dli_fbase.addr() as u64;
        if found.dli_sname.is_null() { format!("{file}+{offset:#x}") } else { format!("{file}: {} ({offset:#x})", text(found.dli_sname)) }
    }
}
