//! Checks what the compiler does not: that every public function says whether a signal handler may call it and what it costs, and
//! that the tests named in the documentation's tables exist.
//!
//! It reads sources, not rustdoc's output: that covers every platform's files at once and no unstable format. What it knows of
//! visibility is the word `pub`; the lint `unreachable_pub` sees to it that whoever says it means it.
//!
//! ```sh
//! cargo run -p sigsafe-docs-check      # in the workspace; prints what is missing and fails if anything is
//! ```

mod lines;
mod named;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

/// The crates whose functions carry the two lines.
const LIBRARIES: [&str; 3] = ["sigsafe-core", "sigsafe-alloc", "sigsafe-mutex"];

/// Documents that must have a table of tests; others may.
const WITH_TABLES: [&str; 1] = ["sigsafe-core/docs/behaviour.md"];

/// A file of the workspace and what it says.
struct Source {
    path: PathBuf,
    text: String,
}

/// All files under `folder` with this extension, by name.
fn files(folder: &Path, extension: &str, found: &mut Vec<Source>) -> io::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, extension, found)?;
        } else if path.extension().is_some_and(|of| of == extension) {
            found.push(Source { text: fs::read_to_string(&path)?, path });
        }
    }
    Ok(())
}

fn check(root: &Path) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    for library in LIBRARIES {
        let folder = root.join(library);
        let mut sources = Vec::new();
        files(&folder.join("src"), "rs", &mut sources)?;
        let (functions, missing) = lines::check(&sources);
        println!("{library}: {functions} public functions");
        if functions == 0 {
            problems.push(format!("{library}: no public function was found"));
        }
        problems.extend(missing);

        let mut documents = Vec::new();
        if folder.join("docs").is_dir() {
            files(&folder.join("docs"), "md", &mut documents)?;
        }
        documents.push(Source { text: fs::read_to_string(folder.join("README.md"))?, path: folder.join("README.md") });
        for document in documents {
            let (tests, missing) = named::check(&document, |name| named::exists(root, &folder, name));
            if tests > 0 {
                println!("{}: {tests} tests named", document.path.display());
            } else if WITH_TABLES.iter().any(|path| document.path == root.join(path)) {
                problems.push(format!("{}: no table with a column \"test\"", document.path.display()));
            }
            problems.extend(missing);
        }
    }
    for path in WITH_TABLES.iter().filter(|path| !root.join(path).is_file()) {
        problems.push(format!("{path}: does not exist"));
    }
    Ok(problems)
}

fn main() -> ExitCode {
    let root = env::args_os().nth(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from);
    let problems = root.canonicalize().and_then(|root| check(&root));
    match problems {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            eprintln!("{} problems", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}: {error}", root.display());
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_itself_is_readable() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(check(&root.canonicalize().unwrap()).is_ok());
        assert!(check(Path::new("/nonexistent")).is_err());
    }
}
