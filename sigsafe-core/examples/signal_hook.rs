//! Living with signal-hook: it installs its handlers by plain `sigaction`, so a region does not hold them back, until they are adopted.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::adopt;
use sigsafe_core::{Signal, critical};

fn main() -> Result<(), Box<dyn Error>> {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let count = || runs.load(Ordering::Relaxed);
    // SAFETY: the action touches an atomic.
    let action = unsafe { signal_hook::low_level::register(libc::SIGUSR1, move || _ = counter.fetch_add(1, Ordering::Relaxed)) }?;

    critical(|_| signal_hook::low_level::raise(libc::SIGUSR1))?;
    println!("signal-hook alone: {} run, inside the region", count());
    assert_eq!(count(), 1);

    // SAFETY: signal-hook's handler returns, and stays where it is: the crate never removes it.
    let adopted = unsafe { adopt(Signal::USR1)? };
    let inside = critical(|_| signal_hook::low_level::raise(libc::SIGUSR1).map(|()| count()))?;
    println!("adopted: {inside} run inside the region, {} after it", count());
    assert_eq!((inside, count()), (1, 2));

    adopted.remove()?;
    let inside = critical(|_| signal_hook::low_level::raise(libc::SIGUSR1).map(|()| count()))?;
    println!("given back: {inside} runs inside the region");
    assert_eq!((inside, count()), (3, 3));
    assert!(signal_hook::low_level::unregister(action));
    Ok(())
}
