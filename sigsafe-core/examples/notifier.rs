//! The notifier: signals as messages, to a queue and to a callback that may lock and allocate.
//!
//! A server in miniature. It was started with SIGTERM and SIGHUP blocked in every thread; both arrive all the same, because
//! somebody has subscribed them.

use std::sync::{Arc, Mutex};

use sigsafe_core::notifier::{Receiver, Subscription};
use sigsafe_core::{SigSet, Signal, mask};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    mask::block(SigSet::EMPTY.with(Signal::TERM).with(Signal::HUP));

    // On SIGHUP the configuration is read again, on the notifier's thread: an ordinary function, no handler.
    let configuration = Arc::new(Mutex::new(vec![String::from("first")]));
    let shared = configuration.clone();
    let reload = Subscription::closure(Signal::HUP.into(), move |info| {
        shared.lock().unwrap().push(format!("read again after {}", info.signal()));
    })?;

    // The main loop waits for the end; it could as well poll the receiver's descriptor beside its sockets.
    let end = Receiver::new(SigSet::EMPTY.with(Signal::TERM).with(Signal::INT), 4)?;

    // SAFETY: the call takes no pointer.
    let send = |signal: Signal| unsafe { libc::kill(libc::getpid(), signal.number()) };
    send(Signal::HUP);
    // Unsubscribing delivers what was sent before, and returns when the callback has run.
    drop(reload);
    send(Signal::TERM);
    let info = end.recv().expect("this process has not forked");

    println!("{}, then {}", configuration.lock().unwrap().join(", "), info.signal());
    assert_eq!(*configuration.lock().unwrap(), ["first", "read again after SIGHUP"]);
    assert_eq!(info.signal(), Signal::TERM);
    Ok(())
}
