//! The C library's allocator behind counters, for the check that a workload asks for as many blocks as it says. Not for timing.

use sigsafe_bench_allocators::{Counting, Subject, worker};

#[global_allocator]
static GLOBAL: Counting = Counting::new();

fn main() {
    worker::main(Subject { allocations: Some(|| GLOBAL.allocations()), ..Subject::PLAIN });
}
