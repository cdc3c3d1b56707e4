//! snmalloc 0.7, as the crate `snmalloc-rs` builds it. Its crate offers no way to give memory back.

use sigsafe_bench_allocators::{Subject, worker};
use snmalloc_rs::SnMalloc;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

fn main() {
    worker::main(Subject::PLAIN);
}
