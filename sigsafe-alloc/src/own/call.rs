//! The system calls, with what libc's wrappers return.
//!
//! On Linux the instruction lies in the caller: a signal that interrupts it finds the program counter in the allocator's own code, and
//! `errno` stays as it is. Elsewhere libc's functions are called, and `errno` is put back.

#[cfg(all(feature = "hardened", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use linux::random;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use linux::{clock, madvise, mmap, mremap, munmap, sigaltstack};
#[cfg(all(feature = "hardened", not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))))]
pub(super) use other::random;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) use other::{clock, mmap, mremap, munmap, sigaltstack};

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux {
    use core::arch::asm;
    use core::ffi::c_int;
    use core::ptr::null_mut;

    /// A system call. What it returns: negative numbers are errors.
    ///
    /// # Safety
    ///
    /// The call with these arguments must be one that the caller may make.
    #[inline(always)]
    unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
        let result: isize;
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the caller's promise; the kernel changes the result's register and the two that are named.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                in("r9") f,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        // SAFETY: the caller's promise; the kernel changes the result's register alone.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") a as isize => result,
                in("x1") b,
                in("x2") c,
                in("x3") d,
                in("x4") e,
                in("x5") f,
                options(nostack),
            );
        }
        result
    }

    /// Whether a call that returns an address has failed.
    #[inline(always)]
    fn failed(result: isize) -> bool {
        // The kernel's errors are at most 4095.
        (-4095..0).contains(&result)
    }

    #[inline(always)]
    fn address(result: isize) -> *mut u8 {
        if failed(result) { null_mut() } else { core::ptr::with_exposed_provenance_mut(result as usize) }
    }

    /// Null where it fails.
    ///
    /// # Safety
    ///
    /// As for the system call.
    #[inline(always)]
    pub(in super::super) unsafe fn mmap(hint: *mut u8, bytes: usize, flags: c_int) -> *mut u8 {
        let access = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let arguments = [hint.expose_provenance(), bytes, access, flags as usize, usize::MAX, 0];
        // SAFETY: the caller's promise.
        address(unsafe { call(libc::SYS_mmap, arguments) })
    }

    /// Whether that has worked is of no use to anybody.
    ///
    /// # Safety
    ///
    /// As for the system call.
    #[inline(always)]
    pub(in super::super) unsafe fn munmap(pages: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { call(libc::SYS_munmap, [pages.expose_provenance(), bytes, 0, 0, 0, 0]) };
    }

    /// Whether it succeeds.
    ///
    /// # Safety
    ///
    /// As for the system call.
    #[inline(always)]
    pub(in super::super) unsafe fn madvise(pages: *mut u8, bytes: usize, advice: c_int) -> bool {
        // SAFETY: the caller's promise.
        unsafe { call(libc::SYS_madvise, [pages.expose_provenance(), bytes, advice as usize, 0, 0, 0]) == 0 }
    }

    /// Null where it fails.
    ///
    /// # Safety
    ///
    /// As for the system call.
    #[inline(always)]
    pub(in super::super) unsafe fn mremap(pages: *mut u8, old: usize, new: usize) -> *mut u8 {
        let arguments = [pages.expose_provenance(), old, new, libc::MREMAP_MAYMOVE as usize, 0, 0];
        // SAFETY: the caller's promise.
        address(unsafe { call(libc::SYS_mremap, arguments) })
    }

    #[inline(always)]
    pub(in super::super) fn clock(clock: libc::clockid_t) -> libc::timespec {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes to this frame.
        unsafe { call(libc::SYS_clock_gettime, [clock as usize, (&raw mut now).expose_provenance(), 0, 0, 0, 0]) };
        now
    }

    /// A random number, if the system has one at once.
    #[cfg(feature = "hardened")]
    #[inline(always)]
    pub(in super::super) fn random() -> Option<usize> {
        let mut number = 0usize;
        let arguments = [(&raw mut number).expose_provenance(), size_of::<usize>(), libc::GRND_NONBLOCK as usize, 0, 0, 0];
        // SAFETY: writes to this frame.
        let bytes = unsafe { call(libc::SYS_getrandom, arguments) };
        (bytes == size_of::<usize>() as isize).then_some(number)
    }

    #[inline(always)]
    pub(in super::super) fn sigaltstack() -> libc::stack_t {
        let mut stack = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: writes to this frame.
        unsafe { call(libc::SYS_sigaltstack, [0, (&raw mut stack).expose_provenance(), 0, 0, 0, 0]) };
        stack
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod other {
    use core::ffi::c_int;
    use core::ptr::null_mut;

    use sigsafe_core::allocator::keeping_errno;

    /// Null where it fails.
    pub(in super::super) unsafe fn mmap(hint: *mut u8, bytes: usize, flags: c_int) -> *mut u8 {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the caller's promise.
        let pages = keeping_errno(|| unsafe { libc::mmap(hint.cast(), bytes, access, flags, -1, 0) });
        if pages == libc::MAP_FAILED { null_mut() } else { pages.cast() }
    }

    pub(in super::super) unsafe fn munmap(pages: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        keeping_errno(|| unsafe { libc::munmap(pages.cast(), bytes) });
    }

    /// Not to be had everywhere.
    pub(in super::super) unsafe fn mremap(_pages: *mut u8, _old: usize, _new: usize) -> *mut u8 {
        null_mut()
    }

    pub(in super::super) fn clock(clock: libc::clockid_t) -> libc::timespec {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes to this frame.
        keeping_errno(|| unsafe { libc::clock_gettime(clock, &raw mut now) });
        now
    }

    /// Not to be had everywhere without libc's locks.
    #[cfg(feature = "hardened")]
    pub(in super::super) fn random() -> Option<usize> {
        None
    }

    pub(in super::super) fn sigaltstack() -> libc::stack_t {
        let mut stack = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: writes to this frame.
        keeping_errno(|| unsafe { libc::sigaltstack(null_mut(), &raw mut stack) });
        stack
    }
}
