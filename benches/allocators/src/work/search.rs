//! A search as `ripgrep` does it: its own libraries (`ignore` walks and reads the ignore files, `grep` finds and prints), two threads, a
//! buffer for the printed lines of each file. Left out: the command line, colours, ignore files above the root, and a terminal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use grep::printer::StandardBuilder;
use grep::regex::RegexMatcher;
use grep::searcher::{BinaryDetection, SearcherBuilder};
use ignore::{WalkBuilder, WalkState};

use super::Work;

/// The variable that names a root to search instead of the planted one.
pub const TREE: &str = "SIGSAFE_BENCH_TREE";
const THREADS: usize = 2;
const PATTERN: &str = r"\b(alloc|free)[a-z]{2,5}\b";

const FOLDERS: u32 = 100;
const FILES_IN_FOLDER: u32 = 20;

/// The tree that is searched. It is planted by the first call, for everybody after, beside the program, where Cargo's other products lie:
/// 2,000 files of 2 to 32 KB in folders, each of which has a file with patterns to ignore.
pub fn tree() -> io::Result<PathBuf> {
    if let Some(chosen) = std::env::var_os(TREE) {
        return Ok(chosen.into());
    }
    let root = std::env::current_exe()?.with_file_name("sigsafe-bench-tree-1");
    if !root.exists() {
        // Under another name until it is complete.
        let growing = root.with_extension(std::process::id().to_string());
        plant(&growing)?;
        fs::rename(&growing, &root).or_else(|error| if root.exists() { fs::remove_dir_all(&growing) } else { Err(error) })?;
    }
    Ok(root)
}

fn plant(root: &Path) -> io::Result<()> {
    let mut rng = Rng::with_seed(4);
    let vocabulary: Vec<String> = (0..2_000)
        .map(|_| {
            let start = ["", "", "", "re", "un", "alloc", "free"][rng.usize(..7)];
            start.chars().chain((0..rng.usize(2..9)).map(|_| rng.lowercase())).collect()
        })
        .collect();
    for folder in 0..FOLDERS {
        let path = root.join(format!("part{}/group{}/folder{folder}", folder % 5, folder % 20));
        fs::create_dir_all(&path)?;
        fs::write(path.join(".ignore"), "*.o\n*.tmp\n/build/\n!keep.tmp\n")?;
        for file in 0..FILES_IN_FOLDER {
            let length = 2_048 << rng.u32(0..5);
            let mut text = String::with_capacity(length + 128);
            while text.len() < length {
                for _ in 0..rng.usize(1..14) {
                    text.push_str(&vocabulary[rng.usize(..vocabulary.len())]);
                    text.push(' ');
                }
                text.push('\n');
            }
            let extension = ["rs", "md", "c", "o"][file as usize % 4];
            fs::write(path.join(format!("file{file}.{extension}")), text)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Search {
    root: PathBuf,
    /// Bytes printed by one search: the same for each.
    printed: OnceLock<u64>,
}

impl Search {
    pub(crate) fn new(_seed: u64) -> Self {
        Self { root: tree().expect("the tree can be written"), printed: OnceLock::new() }
    }
}

impl Work for Search {
    fn run(&mut self, turns: u64) {
        for _ in 0..turns {
            let printed = search(&self.root);
            assert_eq!(printed, *self.printed.get_or_init(|| printed), "two searches print the same");
            assert_ne!(printed, 0, "something is found");
        }
    }
}

fn search(root: &Path) -> u64 {
    let matcher = RegexMatcher::new_line_matcher(PATTERN).expect("the pattern is valid");
    let printed = AtomicU64::new(0);
    WalkBuilder::new(root).parents(false).threads(THREADS).build_parallel().run(|| {
        let matcher = matcher.clone();
        let mut searcher = SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).line_number(true).build();
        let printed = &printed;
        Box::new(move |entry| {
            let entry = entry.expect("the tree is readable");
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                let mut printer = StandardBuilder::new().build_no_color(Vec::new());
                searcher.search_path(&matcher, entry.path(), printer.sink_with_path(&matcher, entry.path())).expect("files are readable");
                printed.fetch_add(printer.into_inner().into_inner().len() as u64, Ordering::Relaxed);
            }
            WalkState::Continue
        })
    });
    printed.into_inner()
}
