//! rpmalloc 1.4, as the crate `rpmalloc` builds it. The crate has no `realloc` of its own, so that each is an allocation, a copy and a
//! free; and no way to give memory back.

use rpmalloc::RpMalloc;
use sigsafe_bench_allocators::{Subject, worker};

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

fn main() {
    worker::main(Subject::PLAIN);
}
