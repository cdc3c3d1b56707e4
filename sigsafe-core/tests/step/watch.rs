//! What a sweep watches while it steps: which handlers ran, whether one ran in a region, and what is left behind afterwards.
//!
//! The handlers run at any instruction, in a region where they are immediate or a fault's: they touch atomics and regions.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use sigsafe_core::handler::Delivery;
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, in_region, mask, region_depth};

pub(crate) const RAN_IN_REGION: u32 = 1;
pub(crate) const DEPTH_CHANGED: u32 = 2;
pub(crate) const HANDLER_MASK: u32 = 64;

/// What handlers found wrong, as bits.
pub(crate) static WRONG: AtomicU32 = AtomicU32::new(0);
/// How often each signal's handler ran.
pub(crate) static HANDLED: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];

/// `SIGSAFE_SWEEP_STRIDE`, or what a sweep takes without it.
pub(crate) fn stride(usual: u64) -> u64 {
    std::env::var("SIGSAFE_SWEEP_STRIDE").map_or(usual, |text| text.parse().expect("SIGSAFE_SWEEP_STRIDE is a number"))
}

pub(crate) fn use_regions() {
    let depth = region_depth();
    critical(|_| drop(MaskGuard::<FullSyscall>::new()));
    drop::<MaskGuard>(MaskGuard::new());
    if region_depth() != depth {
        WRONG.fetch_or(DEPTH_CHANGED, SeqCst);
    }
}

/// Edits the mask, which must do nothing to the code below.
pub(crate) fn use_masks() {
    const SOME: SigSet = SigSet::EMPTY.with(Signal::HUP).with(Signal::TERM).with(Signal::WINCH);
    let before = mask::current();
    let edits = [mask::block(SOME), mask::current(), mask::unblock(SOME), mask::set(before)];
    if edits != [before, before | SOME, before | SOME, before.difference(SOME)] {
        WRONG.fetch_or(HANDLER_MASK, SeqCst);
    }
    mask::block(SOME);
}

/// For deferrable handlers.
pub(crate) fn on_deferrable(delivery: &Delivery<'_>) {
    // A fault is the exception: it runs at once.
    if in_region() && !delivery.info().is_raised() {
        WRONG.fetch_or(RAN_IN_REGION, SeqCst);
    }
    on_any_time(delivery);
}

/// For immediate handlers and for faults: they run in a region, too.
pub(crate) fn on_any_time(delivery: &Delivery<'_>) {
    HANDLED[delivery.signal().number() as usize].fetch_add(1, SeqCst);
    use_regions();
}

pub(crate) fn handled(signal: Signal) -> u32 {
    HANDLED[signal.number() as usize].load(SeqCst)
}

pub(crate) fn kernel_mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: reads this thread's mask into eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &mut mask, 8) };
    mask
}

pub(crate) fn set_kernel_mask(mask: u64) {
    // SAFETY: reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &mask, 0, 8) };
}

/// Whether the engine still takes a signal for blocked by a region; outside every region. Leaving one would then unblock it behind the
/// thread's back.
pub(crate) fn holds_back() -> bool {
    let before = kernel_mask();
    let all = !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1) | 3 << 31 | 1 << (libc::SIGTRAP - 1));
    set_kernel_mask(all);
    let hidden = mask::current().bits() != all;
    critical(|_| ());
    let unblocked = kernel_mask() != all;
    set_kernel_mask(before);
    hidden || unblocked
}

pub(crate) struct Tally {
    runs: u64,
    failures: u64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { runs: 0, failures: 0 }
    }

    /// Counts a run, and prints the first failures.
    pub(crate) fn add(&mut self, failed: bool, what: impl FnOnce() -> String) {
        self.runs += 1;
        if failed {
            self.failures += 1;
            if self.failures <= 10 {
                println!("wrong: {}", what());
            }
        }
    }

    /// Fails unless every run was right. How many there were.
    pub(crate) fn conclude(self) -> u64 {
        println!("{} runs, {} failures", self.runs, self.failures);
        assert!(self.runs > 0 && self.failures == 0);
        self.runs
    }
}
