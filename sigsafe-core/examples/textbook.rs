//! Block, raise, pending, sigwait, unblock, as the textbooks on Unix programming show it. `textbook.c` beside this file is the same
//! program in plain POSIX; `tests/textbook.rs` compiles both and compares what they print, line for line.
//!
//! ```sh
//! cargo run -p sigsafe-core --example textbook
//! ```

use std::time::Duration;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{SigSet, Signal, mask};

const REAL_TIME: Signal = match Signal::real_time(1) {
    Ok(signal) => signal,
    Err(_) => panic!("SIGRTMIN+1 exists"),
};

fn print_set(what: &str, set: SigSet) {
    let names: Vec<String> = set.iter().map(|signal| signal.to_string()).collect();
    println!("{what}: {}", if names.is_empty() { "none".to_owned() } else { names.join(" ") });
}

fn print_pending() {
    print_set("pending", mask::pending());
}

/// Says which signal it is: with write, since `println!` may be in the middle of something.
fn handler(delivery: &Delivery<'_>) {
    let text: &[u8] = match delivery.signal() {
        Signal::INT => b"  handler: SIGINT\n",
        Signal::QUIT => b"  handler: SIGQUIT\n",
        _ => b"  handler: SIGTERM\n",
    };
    // SAFETY: the slice is live.
    unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
}

fn raise(signal: Signal) {
    // SAFETY: the call takes no pointer.
    unsafe { libc::raise(signal.number()) };
}

fn queue(signal: Signal, value: usize) {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: the value is carried and never dereferenced.
    unsafe { libc::sigqueue(libc::getpid(), signal.number(), value) };
}

fn main() {
    for signal in [Signal::INT, Signal::QUIT, Signal::TERM] {
        // SAFETY: the handler makes one system call and touches nothing that it may have interrupted.
        unsafe { Handler::new(handler).install(signal) }.expect("the signal can be caught");
    }

    println!("a raised signal is handled before raise returns");
    raise(Signal::INT);

    println!("block two");
    let before = mask::block(SigSet::EMPTY.with(Signal::INT).with(Signal::USR1));
    print_set("blocked before", before);
    print_set("blocked now", mask::current());

    println!("raise both, one of them twice");
    raise(Signal::INT);
    raise(Signal::INT);
    raise(Signal::USR1);
    print_pending();

    println!("sigwait takes one, and no handler runs");
    println!("sigwait: {}", mask::wait(Signal::USR1.into()).signal());
    print_pending();

    println!("unblock delivers the other before it returns, once");
    print_set("blocked before", mask::unblock(Signal::INT.into()));
    print_pending();

    println!("unblocking what is not blocked is no error");
    // There is no error that it could return.
    mask::unblock(Signal::INT.into());
    println!("result: 0");

    println!("a chosen mask, and back");
    print_set("blocked before", mask::set(SigSet::EMPTY.with(Signal::QUIT).with(Signal::TERM)));
    raise(Signal::TERM);
    raise(Signal::QUIT);
    print_pending();
    mask::set(before);
    print_pending();

    println!("nobody blocks SIGKILL and SIGSTOP");
    mask::block(SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP));
    print_set("blocked now", mask::current());

    println!("real-time signals queue, in order, with a value each");
    mask::block(REAL_TIME.into());
    for value in 1..=3 {
        queue(REAL_TIME, value * 100);
    }
    print_pending();
    for _ in 1..=3 {
        let info = mask::wait(REAL_TIME.into());
        // SAFETY: a signal of sigqueue has a value.
        let value = unsafe { info.as_raw().si_value() }.sival_ptr.addr() as i32;
        println!("sigwaitinfo: {}, value {value}", info.signal());
    }
    print_pending();

    println!("a wait that ends without a signal");
    if mask::wait_timeout(REAL_TIME.into(), Duration::from_millis(1)).is_none() {
        println!("nothing came");
    }
    mask::set(before);

    println!("sigsuspend lets one in for as long as it waits");
    mask::block(Signal::TERM.into());
    raise(Signal::TERM);
    print_pending();
    mask::suspend(before);
    print_set("blocked now", mask::current());
    mask::set(before);
    println!("done");
}
