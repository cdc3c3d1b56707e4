//! The tests that tables in the documentation name: each must exist.
//!
//! A table with a column whose head begins with "test" names in each of its rows, in code spans, what shows that the row is true:
//!
//! | written | what is meant |
//! |---|---|
//! | `file::name` | the test `name` of `tests/file.rs`, or in the module `file` of the same crate |
//! | `sigsafe_mutex::file::name` | the same in another crate |
//! | `scripts/file.sh` | a file of the workspace or of the crate: an example, a script that CI runs |

use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{Source, files};

/// Counts the tests that a document's tables name and lists those of which `exists` says no, and the rows that name none.
pub(crate) fn check(document: &Source, exists: impl Fn(&str) -> Result<(), String>) -> (usize, Vec<String>) {
    let mut tests = 0;
    let mut problems = Vec::new();
    let mut column = None;
    let lines: Vec<&str> = document.text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(row) = cells(line) else {
            column = None;
            continue;
        };
        if lines.get(index + 1).and_then(|next| cells(next)).is_some_and(|next| next.iter().all(|cell| is_rule(cell))) {
            column = row.iter().position(|head| head.to_lowercase().starts_with("test"));
            continue;
        }
        let Some(column) = column.filter(|_| !row.iter().all(|cell| is_rule(cell))) else { continue };
        let place = format!("{}:{}", document.path.display(), index + 1);
        let names = spans(row.get(column).copied().unwrap_or_default());
        if names.is_empty() {
            problems.push(format!("{place}: the row names no test"));
        }
        tests += names.len();
        problems.extend(names.iter().filter_map(|name| exists(name).err()).map(|why| format!("{place}: {why}")));
    }
    (tests, problems)
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|character| matches!(character, '-' | ':'))
}

/// What stands between backticks.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether the name stands for a test, as the head of this file has it; the document is of the crate in `home`.
pub(crate) fn exists(root: &Path, home: &Path, name: &str) -> Result<(), String> {
    if name.contains('/') {
        let found = root.join(name).is_file() || home.join(name).is_file();
        return if found { Ok(()) } else { Err(format!("there is no file {name}")) };
    }
    let parts: Vec<&str> = name.split("::").collect();
    let (folder, module, test) = match parts[..] {
        [module, test] => (home.to_owned(), module, test),
        [library, module, test] => (root.join(library.replace('_', "-")), module, test),
        _ => return Err(format!("`{name}` is not file::test")),
    };
    let mut sources = Vec::new();
    for part in ["tests", "src"] {
        let part = folder.join(part);
        if part.is_dir() {
            files(&part, "rs", &mut sources).map_err(|error| format!("{}: {error}", part.display()))?;
        }
    }
    let of_module = sources.iter().filter(|source| {
        let path = source.path.strip_prefix(&folder).unwrap_or(&source.path);
        path == Path::new("tests").join(module).with_extension("rs")
            || path.starts_with("src")
                && (path.file_stem().is_some_and(|stem| stem == module) || path.ends_with(format!("{module}/mod.rs")))
    });
    let mut found = Vec::new();
    for source in of_module {
        let tokens = source.text.parse().map_err(|error| format!("{}: {error}", source.path.display()))?;
        tests_in(tokens, &mut found);
    }
    match found.iter().find(|found| found.name == test) {
        Some(found) if found.ignored => Err(format!("the test `{name}` is ignored")),
        Some(_) => Ok(()),
        None => Err(format!("there is no test `{name}`")),
    }
}

struct Test {
    name: String,
    ignored: bool,
}

/// Every function under a `#[test]`, also inside macros.
fn tests_in(tokens: TokenStream, found: &mut Vec<Test>) {
    let mut pending: Option<bool> = None;
    let mut after_hash = false;
    let mut after_fn = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) if after_hash && group.delimiter() == Delimiter::Bracket => {
                let attribute = group.stream().to_string();
                let ignored = attribute == "ignore" || attribute.starts_with("ignore ");
                if attribute == "test" || ignored || pending.is_some() {
                    pending = Some(pending.unwrap_or(false) || ignored);
                }
                after_hash = false;
                continue;
            }
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Brace {
                    pending = None;
                }
                tests_in(group.stream(), found);
            }
            TokenTree::Ident(word) if after_fn => {
                if let Some(ignored) = pending.take() {
                    found.push(Test { name: word.to_string(), ignored });
                }
                after_fn = false;
                continue;
            }
            TokenTree::Ident(ref word) => after_fn = word == "fn",
            TokenTree::Punct(ref mark) => {
                after_hash = mark.as_char() == '#';
                continue;
            }
            TokenTree::Literal(_) => {}
        }
        after_hash = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn document(text: &str) -> Source {
        Source { path: PathBuf::from("x.md"), text: text.to_owned() }
    }

    #[test]
    fn a_named_test_that_does_not_exist_is_found() {
        let table = document("| behaviour | test |\n|---|---|\n| a | `file::there` |\n| b | `file::gone`, `file::there` |\n");
        let exists = |name: &str| if name == "file::there" { Ok(()) } else { Err(format!("no {name}")) };
        assert_eq!(check(&table, exists), (3, vec!["x.md:4: no file::gone".to_owned()]));
    }

    #[test]
    fn a_row_without_a_test_is_found_and_other_tables_are_left_alone() {
        let tables = "| a | tested by |\n|:--|--:|\n| b | nothing |\n\ntext\n| a | reason |\n|---|---|\n| b | `file::gone` |\n";
        assert_eq!(check(&document(tables), |_| Err("gone".into())), (0, vec!["x.md:3: the row names no test".to_owned()]));
    }

    #[test]
    fn tests_are_found_in_sources_and_in_macros_and_ignored_ones_do_not_count() {
        let source = "#[test] fn plain() {} #[test] #[cfg(unix)] fn conditional() {} fn helper() {} // #[test] fn comment() {}\n
            #[test] #[ignore = \"slow\"] fn ignored() {} #[ignore] #[test] fn ignored_too() {} mod inner { #[test] fn within() {} }
            proptest! { #[test] fn by_macro(x in 0..1) {} } #[inline] fn not_a_test() {} const S: &str = \"#[test] fn text() {}\";";
        let mut found = Vec::new();
        tests_in(source.parse().unwrap(), &mut found);
        let names = |ignored| found.iter().filter(|test| test.ignored == ignored).map(|test| test.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(false), ["plain", "conditional", "within", "by_macro"]);
        assert_eq!(names(true), ["ignored", "ignored_too"]);
    }

    #[test]
    fn names_are_looked_up_in_the_crate_that_they_belong_to() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let home = root.join("docs-check");
        let this = "names_are_looked_up_in_the_crate_that_they_belong_to";
        assert_eq!(exists(&root, &home, &format!("named::{this}")), Ok(()));
        assert_eq!(exists(&root, &home, "docs-check/Cargo.toml"), Ok(()));
        assert_eq!(
            exists(&root, &home, "sigsafe_core::property::nothing_of_that_name"),
            Err("there is no test `sigsafe_core::property::nothing_of_that_name`".to_owned())
        );
        for wrong in [format!("lines::{this}"), this.to_owned(), "named::tests_in".to_owned(), "examples/none.rs".to_owned()] {
            assert!(exists(&root, &home, &wrong).is_err(), "{wrong}");
        }
    }
}
