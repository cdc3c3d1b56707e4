//! The C library's allocator; and, with `LD_PRELOAD`, tcmalloc in its place.

use std::mem;

use sigsafe_bench_allocators::{Subject, worker};

fn purge() {
    // SAFETY: looks a name up.
    let release = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"MallocExtension_ReleaseFreeMemory".as_ptr()) };
    if release.is_null() {
        // SAFETY: `malloc_trim` may be called at any time.
        unsafe { libc::malloc_trim(0) };
    } else {
        // SAFETY: tcmalloc declares it as a function without arguments and result.
        let release: extern "C" fn() = unsafe { mem::transmute(release) };
        release();
    }
}

fn main() {
    worker::main(Subject { purge: Some(purge), ..Subject::PLAIN });
}
