//! jemalloc 5.3, as the crate `tikv-jemallocator` builds it.

use std::ptr;

use sigsafe_bench_allocators::{Subject, worker};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

unsafe extern "C" {
    // Under the prefix that the crate gives to the C library's symbols.
    fn _rjem_mallctl(name: *const libc::c_char, old: *mut u8, old_length: *mut usize, new: *mut u8, new_length: usize) -> libc::c_int;
}

fn purge() {
    // 4096 is jemalloc's `MALLCTL_ARENAS_ALL`.
    for name in [c"thread.tcache.flush", c"arena.4096.purge"] {
        // SAFETY: neither name reads or writes a value, so that every pointer but the name may be null.
        let error = unsafe { _rjem_mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
        assert_eq!(error, 0, "mallctl: {name:?}");
    }
}

fn main() {
    worker::main(Subject { purge: Some(purge), ..Subject::PLAIN });
}
