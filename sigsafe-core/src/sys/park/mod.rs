//! Waiting for a word in memory to change, and waking one who waits.
//!
//! [`park`] returns for any reason: a wake, another value in the word, a handler that ran, and no reason at all; the caller looks
//! again. [`unpark_one`] takes an address, because what the word belongs to may be gone by then: a wake on memory that has another
//! use is a return without a reason for somebody. Both keep `errno` and run in any context, `park` outside of regions.
//!
//! | system | how |
//! |---|---|
//! | Linux | `futex` |
//! | FreeBSD | `_umtx_op` |
//! | DragonFly | `umtx_sleep`, `umtx_wakeup` |
//! | the others, and `sigsafe_portable` | a nap: they have no call of this kind, or none that is public |

#[cfg_attr(all(target_os = "linux", not(sigsafe_portable)), path = "linux.rs")]
#[cfg_attr(all(target_os = "freebsd", not(sigsafe_portable)), path = "freebsd.rs")]
#[cfg_attr(all(target_os = "dragonfly", not(sigsafe_portable)), path = "dragonfly.rs")]
#[cfg_attr(any(sigsafe_portable, not(any(target_os = "linux", target_os = "freebsd", target_os = "dragonfly"))), path = "nap.rs")]
mod imp;

pub(crate) use imp::{park, unpark_one};

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn nobody_parks_on_another_value() {
        let word = AtomicU32::new(7);
        park(&word, 8);
    }

    #[test]
    fn whoever_parks_sees_the_change() {
        static WORD: AtomicU32 = AtomicU32::new(0);
        crate::sys::set_errno(libc::EXDEV);
        let waiter = std::thread::spawn(|| {
            while WORD.load(Ordering::Acquire) == 0 {
                park(&WORD, 0);
            }
        });
        WORD.store(1, Ordering::Release);
        while !waiter.is_finished() {
            unpark_one(WORD.as_ptr().addr());
            std::thread::yield_now();
        }
        waiter.join().unwrap();
        assert_eq!(crate::sys::errno(), libc::EXDEV);
    }
}
