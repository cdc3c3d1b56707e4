//! The lines of the allocator that are stepped through when a signal is put at every instruction (`every_instruction.rs`), and those that
//! are not: `lines/never-stepped.txt` has each of these, with the reason.
//!
//! The report is written to `target/tmp/stepped-lines.txt` of the workspace: for each file how many of the lines that have instructions
//! were stepped through, and which were not.
//!
//! Which lines have instructions, and to which of two an instruction belongs, is the compiler's choice, and may change with the directory
//! that the build is in. So one line in fifty may differ from the list; with `SIGSAFE_LINES=exact`, none.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod block;
mod landing;
mod sweep;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sigsafe_test_harness::isolate::isolated_within;
use sigsafe_test_harness::step::lines::Lines;

/// What runs while a cache is in hand, and what stands in for it.
const FILES: [&str; 16] = [
    "anchor.rs",
    "cache.rs",
    "call.rs",
    "chunk.rs",
    "depot.rs",
    "large.rs",
    "mod.rs",
    "os.rs",
    "pool.rs",
    "purge.rs",
    "region.rs",
    "shared.rs",
    "span.rs",
    "stack.rs",
    "thread.rs",
    "units.rs",
];

/// A source file's lines.
struct Source(&'static str, Vec<String>);

impl Source {
    fn read(file: &'static str) -> Source {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/own").join(file);
        Source(file, fs::read_to_string(path).unwrap().lines().map(|line| line.trim().to_owned()).collect())
    }

    /// A line's file, function and text, which stay when the lines above it change.
    fn name(&self, line: u32) -> String {
        let text = &self.1[line as usize - 1];
        let function = self.1[..line as usize].iter().rev().find_map(|line| {
            let (_, rest) = line.split_once("fn ").filter(|(before, _)| !before.contains("//"))?;
            rest.split(['(', '<']).next()
        });
        format!("{} {}: {text}", self.0, function.unwrap_or(""))
    }
}

#[test]
fn lines_that_are_never_stepped_through_are_listed_with_the_reason() {
    let name = "lines_that_are_never_stepped_through_are_listed_with_the_reason";
    isolated_within(name, Duration::from_secs(600), || {
        sweep::install();
        let (mut counters, mut tried) = (BTreeSet::new(), HashMap::new());
        for way in sweep::way::all() {
            counters.extend(sweep::program_counters(way, &mut tried));
        }
        // Not before: children of a process with all this in memory take their time.
        let lines = Lines::of_this_program();
        let stepped: BTreeSet<_> = counters.into_iter().filter_map(|pc| lines.at(pc)).collect();
        let listed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lines/never-stepped.txt")).unwrap();
        let mut listed: Vec<&str> = listed.lines().filter(|line| line.starts_with(' ')).map(str::trim).collect();
        let (mut report, mut differs, mut count) = (String::new(), Vec::new(), 0);
        for file in FILES {
            let source = Source::read(file);
            let all = lines.all(|name| name.ends_with(&format!("/own/{file}")));
            count += all.len();
            assert!(all.len() > 5, "{file} has {} lines with instructions", all.len());
            // What a function that is inlined everywhere begins and ends with is in no way.
            let bare = |line: &u32| {
                source.1[*line as usize - 1] == "}" || source.1[*line as usize - 1].ends_with('{') && source.name(*line).contains("fn ")
            };
            let never: Vec<u32> = all.difference(&stepped).map(|(_, line)| *line).filter(|line| !bare(line)).collect();
            writeln!(report, "{file}: {} of {} lines", all.len() - never.len(), all.len()).unwrap();
            for line in &never {
                let name = source.name(*line);
                let is_listed = listed.contains(&name.as_str());
                writeln!(report, "    {line:>4} {}{name}", if is_listed { "" } else { "NOT LISTED " }).unwrap();
                if !is_listed {
                    differs.push(format!("never stepped through, and not listed: {name}"));
                }
            }
            let met: BTreeSet<String> = all.intersection(&stepped).map(|(_, line)| source.name(*line)).collect();
            let names: BTreeSet<String> = (1..=source.1.len() as u32).map(|line| source.name(line)).collect();
            let never: BTreeSet<String> = never.into_iter().map(|line| source.name(line)).collect();
            listed.retain(|name| {
                if met.contains(*name) && !never.contains(*name) {
                    differs.push(format!("listed, and stepped through: {name}"));
                }
                !names.contains(*name)
            });
        }
        println!("{report}");
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("stepped-lines.txt"), &report).unwrap();
        assert!(listed.is_empty(), "listed, and in no source: {listed:#?}");
        let may_differ = if std::env::var("SIGSAFE_LINES").is_ok_and(|value| value == "exact") { 0 } else { count / 50 };
        assert!(differs.len() <= may_differ, "of {count} lines, {may_differ} may differ: {differs:#?}");
    });
}
