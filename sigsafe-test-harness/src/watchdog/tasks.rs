//! Where the threads of a hung child are: what the kernel tells about them, taken before the child is killed.
//!
//! Ordinary thread context of the watchdog. Whatever cannot be read is left out.

use std::fs;
use std::path::Path;

/// One line for each thread of process `pid`: name, scheduler state, what it waits for in the kernel, and its pending and
/// blocked signals.
pub(crate) fn describe(pid: u32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut paths: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| describe_one(path)).collect()
}

fn describe_one(task: &Path) -> Option<String> {
    let tid = task.file_name()?.to_str()?;
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(':'));
        line.map_or("?", |line| line[name.len() + 1..].trim())
    };
    // "0" where the thread runs, or where the kernel does not tell.
    let waits_in = fs::read_to_string(task.join("wchan")).unwrap_or_default();
    let waits_in = if matches!(waits_in.trim(), "" | "0") { String::new() } else { format!(" in {}", waits_in.trim()) };
    let signals = |set: &str| signals_of(field(set)).unwrap_or_else(|| "?".into());
    Some(format!(
        "{} (tid {tid}): {}{waits_in}; pending {}, blocked {}",
        field("Name"),
        field("State"),
        signals("SigPnd"),
        signals("SigBlk")
    ))
}

/// The signals of one of the kernel's masks.
fn signals_of(mask: &str) -> Option<String> {
    let bits = u64::from_str_radix(mask, 16).ok()?;
    let names: Vec<String> = (1..=64).filter(|number| bits >> (number - 1) & 1 != 0).map(name_of).collect();
    Some(if names.is_empty() { "none".into() } else { names.join(" ") })
}

fn name_of(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_described() {
        let lines = describe(std::process::id());
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("tid") && line.contains("blocked")), "{lines:?}");
        assert!(describe(0).is_empty());
    }

    #[test]
    fn masks_are_told_by_names() {
        assert_eq!(signals_of("0000000004000001").as_deref(), Some("SIGHUP SIGPROF"));
        assert_eq!(signals_of("0").as_deref(), Some("none"));
        assert_eq!(signals_of("8000000000000000").as_deref(), Some("64"));
        assert_eq!(signals_of("x"), None);
    }
}
