//! mimalloc 3, as the crate `mimalloc` builds it.

use mimalloc::MiMalloc;
use sigsafe_bench_allocators::{Subject, worker};

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

unsafe extern "C" {
    // Linked in with the crate; declared by its sys crate under a feature only.
    fn mi_collect(force: bool);
}

fn purge() {
    // SAFETY: `mi_collect` may be called at any time.
    unsafe { mi_collect(true) };
}

fn main() {
    worker::main(Subject { purge: Some(purge), ..Subject::PLAIN });
}
