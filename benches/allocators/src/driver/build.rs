//! The measured binaries: built by Cargo in one profile, and found by what Cargo says about them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// In the order of the table.
pub(crate) const ALL: [&str; 7] = ["sigsafe", "mimalloc", "snmalloc", "rpmalloc", "jemalloc", "tcmalloc", "system"];

/// Where Debian's libtcmalloc-minimal4 and other distributions' gperftools have it.
const TCMALLOC: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib64/libtcmalloc_minimal.so.4",
];

/// An allocator that takes part.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    preloaded: Option<&'static str>,
}

/// Name, binary and preloaded library, for scripts.
impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {} {}", self.name, self.binary.display(), self.preloaded.unwrap_or_default())
    }
}

impl Contestant {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        match self.preloaded {
            Some(library) => command.env("LD_PRELOAD", library),
            None => command.env_remove("LD_PRELOAD"),
        };
        command
    }

    pub(crate) fn expects_tcmalloc(&self) -> bool {
        self.preloaded.is_some()
    }
}

/// Builds what is needed for these names.
pub(crate) fn contestants(names: &[String]) -> Result<Vec<Contestant>, String> {
    let ready_made = |name: &String| name.split_once('=').map(|(name, path)| (name.to_owned(), PathBuf::from(path)));
    let to_build: Vec<&str> =
        names.iter().filter(|name| ready_made(name).is_none()).map(|name| binary_of(name)).collect::<Result<_, _>>()?;
    let built = build(&to_build)?;
    names
        .iter()
        .map(|name| {
            if let Some((name, binary)) = ready_made(name) {
                return Ok(Contestant { name, binary, preloaded: None });
            }
            let binary = built[binary_of(name)?].clone();
            let preloaded = if name == "tcmalloc" { Some(tcmalloc()?) } else { None };
            Ok(Contestant { name: name.clone(), binary, preloaded })
        })
        .collect()
}

pub(crate) fn counting() -> Result<Contestant, String> {
    let binary = build(&["alloc-counting"])?.remove("alloc-counting").expect("it was built");
    Ok(Contestant { name: "counting".to_owned(), binary, preloaded: None })
}

fn binary_of(name: &str) -> Result<&'static str, String> {
    match name {
        "sigsafe" => Ok("alloc-sigsafe"),
        "mimalloc" => Ok("alloc-mimalloc"),
        "jemalloc" => Ok("alloc-jemalloc"),
        "snmalloc" => Ok("alloc-snmalloc"),
        "rpmalloc" => Ok("alloc-rpmalloc"),
        "tcmalloc" | "system" => Ok("alloc-system"),
        _ => Err(format!("no allocator {name}: {}, or NAME=BINARY", ALL.join(", "))),
    }
}

/// The package that has the binary, and the feature without which a peer is not built.
fn place_of(binary: &str) -> &'static [&'static str] {
    match binary {
        "alloc-sigsafe" => &["--package", "sigsafe-bench-ours"],
        "alloc-system" | "alloc-counting" => &["--package", env!("CARGO_PKG_NAME")],
        _ => &["--package", "sigsafe-bench-peers", "--features", "sigsafe-bench-peers/peers"],
    }
}

fn tcmalloc() -> Result<&'static str, String> {
    TCMALLOC
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| "tcmalloc: run scripts/apt-install.sh libtcmalloc-minimal4".to_owned())
}

/// Innermost loops of Rust code start at a cache line, in every binary. Otherwise the same loop of a workload lies differently in each: a
/// pair of operations takes a cycle more where its loop lies across two lines, which is more than what some allocators differ by.
#[cfg(target_arch = "x86_64")]
fn flags() -> Option<(&'static str, OsString)> {
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" -Cllvm-args=-x86-experimental-pref-innermost-loop-alignment=6");
    Some(("RUSTFLAGS", flags))
}

#[cfg(not(target_arch = "x86_64"))]
fn flags() -> Option<(&'static str, OsString)> {
    None
}

/// Builds binaries and returns their paths by name. Cargo's own messages go to the terminal.
fn build(binaries: &[&str]) -> Result<HashMap<String, PathBuf>, String> {
    let mut paths = HashMap::new();
    if binaries.is_empty() {
        return Ok(paths);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(binaries.iter().flat_map(|binary| place_of(binary)))
        .args(binaries.iter().flat_map(|binary| ["--bin", binary]))
        .envs(flags())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err("the measured binaries were not built".to_owned());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).map_err(|error| format!("cargo's message: {error}"))?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
            paths.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    match binaries.iter().find(|binary| !paths.contains_key(**binary)) {
        Some(missing) => Err(format!("cargo named no executable for {missing}")),
        None => Ok(paths),
    }
}
