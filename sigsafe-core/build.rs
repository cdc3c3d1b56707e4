//! Says what the target can do, as `cfg`s, and forbids two versions of this crate in one dependency graph: Cargo asks for a build
//! script beside the `links` key, and two would each declare the thread record and count regions that the other cannot see.
//!
//! | cfg | meaning |
//! |---|---|
//! | `deferral` | signals can be given back to the kernel as they came: Linux on x86_64 and aarch64 |
//! | `static_record` | the thread record is initial-exec TLS, declared in assembler; elsewhere a pthread key points to it |
//! | `sigsafe_portable` | set by `RUSTFLAGS` or a compiler wrapper, never here: both are off wherever they would be on, so that Linux runs what other systems run |

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(deferral)");
    println!("cargo::rustc-check-cfg=cfg(static_record)");
    let target = |key: &str| env::var(format!("CARGO_CFG_{key}")).unwrap_or_default();
    let (os, arch) = (target("TARGET_OS"), target("TARGET_ARCH"));
    // Cargo knows of flags alone; a wrapper's this script is compiled with.
    if env::var_os("CARGO_CFG_SIGSAFE_PORTABLE").is_some() || cfg!(sigsafe_portable) {
        return;
    }
    if matches!((os.as_str(), arch.as_str()), ("linux", "x86_64" | "aarch64")) {
        println!("cargo::rustc-cfg=deferral");
    }
    let static_record = match arch.as_str() {
        "x86_64" => matches!(os.as_str(), "linux" | "freebsd" | "dragonfly" | "netbsd" | "illumos"),
        "aarch64" => matches!(os.as_str(), "linux" | "freebsd" | "netbsd"),
        _ => false,
    };
    // x32 has pointers of 32 bits.
    if static_record && target("TARGET_POINTER_WIDTH") == "64" {
        println!("cargo::rustc-cfg=static_record");
    }
}
