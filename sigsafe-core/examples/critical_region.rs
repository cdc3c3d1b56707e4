//! A critical region: two words that belong together, and a handler that never sees one without the other.

use std::sync::atomic::{AtomicU64, Ordering};

use sigsafe_core::handler::{Delivery, Handler, InstallError};
use sigsafe_core::{Signal, critical};

static TOTAL: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);

fn look(_: &Delivery<'_>) {
    assert_eq!(TOTAL.load(Ordering::Relaxed), 10 * COUNT.load(Ordering::Relaxed));
    LOOKS.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), InstallError> {
    // SAFETY: the handler touches atomics, and those of a pair only where no region is.
    let registration = unsafe { Handler::new(look).install(Signal::USR1)? };
    for round in 0..1000 {
        critical(|_| {
            TOTAL.fetch_add(10, Ordering::Relaxed);
            // The worst moment: the pair does not fit.
            // SAFETY: the call takes no pointer.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(LOOKS.load(Ordering::Relaxed), round, "held back");
            COUNT.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(LOOKS.load(Ordering::Relaxed), round + 1, "and let in");
    }
    println!("{} looks, each at a pair that fits", LOOKS.load(Ordering::Relaxed));
    registration.remove().expect("nobody has installed another");
    Ok(())
}
