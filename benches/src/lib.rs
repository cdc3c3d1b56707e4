//! Empty on purpose: the benchmarks are under `benches/`, and Cargo asks for a target besides.
//!
//! ```text
//! cargo bench -p sigsafe-benches --bench region               regions beside the two system calls that they replace
//! cargo bench -p sigsafe-benches --bench mutex                our locks beside std's
//! cargo bench -p sigsafe-benches --bench mutex --features peers   and beside parking_lot's
//! cargo bench -p sigsafe-benches --bench ratios               one run, one verdict: exit 1 if a region costs too much
//! benches/callgrind.sh                                        instructions of a region pair: exit 1 if too many
//! ```
