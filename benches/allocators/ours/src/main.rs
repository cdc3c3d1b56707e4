//! Ours.

use sigsafe_alloc::SigSafeAlloc;
use sigsafe_bench_allocators::{Subject, worker};

#[global_allocator]
static GLOBAL: SigSafeAlloc = SigSafeAlloc;

fn main() {
    worker::main(Subject { purge: Some(|| _ = GLOBAL.purge()), ..Subject::PLAIN });
}
