//! The report as JSON, for programs.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Case, Report};
use crate::plan::Plan;

/// Changes whenever a reader of the older form would go wrong.
const SCHEMA_VERSION: u32 = 1;

/// The file that the report goes to, opened before anything runs.
#[derive(Debug)]
pub(crate) struct JsonFile {
    file: File,
    path: PathBuf,
}

/// A report file that cannot be used.
#[derive(Debug)]
pub(crate) struct JsonError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write the report to {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for JsonError {}

impl JsonFile {
    /// Opens `path` for writing, and makes it if there is none. What it holds stays until the report is written.
    pub(crate) fn open(path: &Path) -> Result<JsonFile, JsonError> {
        let path = path.to_owned();
        match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(JsonFile { file, path }),
            Err(error) => Err(JsonError { path, error }),
        }
    }

    /// Writes the report in the place of what the file held.
    pub(crate) fn write(mut self, report: &Report) -> Result<(), JsonError> {
        let text = text_of(report);
        // Pipes and terminals have no length to set.
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        emptied.and_then(|()| self.file.write_all(text.as_bytes())).map_err(|error| JsonError { path: self.path, error })
    }
}

#[derive(Serialize)]
struct Document<'r> {
    schema_version: u32,
    tool: &'static str,
    tool_version: &'static str,
    mode: &'static str,
    complete: bool,
    as_it_should_be: bool,
    host: Host,
    plans: &'r [Plan],
    cases: Vec<CaseDocument<'r>>,
}

#[derive(Serialize)]
struct CaseDocument<'r> {
    #[serde(flatten)]
    case: &'r Case,
    as_it_should_be: bool,
    delivered_hz: f64,
}

/// What the machine is.
#[derive(Serialize)]
struct Host {
    kernel: String,
    architecture: &'static str,
    libc: String,
    cpus: i64,
    /// Those that this process may use.
    cpus_usable: usize,
}

fn text_of(report: &Report) -> String {
    let cases =
        report.cases.iter().map(|case| CaseDocument { case, as_it_should_be: case.is_good(), delivered_hz: case.result.delivered_hz() });
    let document = Document {
        schema_version: SCHEMA_VERSION,
        tool: env!("CARGO_PKG_NAME"),
        tool_version: env!("CARGO_PKG_VERSION"),
        mode: if report.comparison { "comparison" } else { "storm" },
        complete: report.complete,
        as_it_should_be: report.is_good(),
        host: Host::of_this_machine(),
        plans: &report.plans,
        cases: cases.collect(),
    };
    // Cannot fail: the document has string keys and finite numbers only.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

impl Host {
    fn of_this_machine() -> Host {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Host {
            kernel: kernel.trim().to_owned(),
            architecture: std::env::consts::ARCH,
            libc: libc_version(),
            // SAFETY: `sysconf` takes an integer.
            cpus: unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) },
            cpus_usable: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

#[cfg(target_env = "gnu")]
fn libc_version() -> String {
    // SAFETY: the function returns a C string that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn libc_version() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_document_has_its_fields() {
        let text = text_of(&report(&[]));
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema_version"], SCHEMA_VERSION);
        assert_eq!(document["mode"], "comparison");
        assert!(document["host"]["cpus"].as_i64().unwrap() > 0);
        assert_eq!(document["plans"].as_array().unwrap().len(), crate::subject::Subject::ALL.len());
        let case = &document["cases"][0];
        assert_eq!(case["expected"], "fail");
        assert_eq!(case["result"]["verdict"], "hung");
        assert_eq!(case["result"]["plan"]["subject"], "system");
        assert_eq!(case["result"]["totals"]["signals_sent"], 12_345);
        assert_eq!(case["result"]["totals"]["inside"], 88);
        assert_eq!(case["as_it_should_be"], true);
    }

    #[test]
    fn the_old_content_goes_and_an_unwritable_path_is_named() {
        let path = std::env::temp_dir().join(format!("sigsafe-json-{}", std::process::id()));
        std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
        JsonFile::open(&path).unwrap().write(&report(&[])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        let error = JsonFile::open(Path::new("/nonexistent/report.json")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/report.json"), "{error}");
    }
}
