//! Exists only because Cargo asks for a build script beside the `links` key. The key forbids two versions of this crate in
//! one dependency graph: both would declare the thread record, and each would count regions that the other cannot see.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
