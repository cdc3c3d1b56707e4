//! Threads of ours: what they start with, what they leave, and what their creator keeps.

mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::thread::{self, AltStack, Builder, ThreadError};
use sigsafe_core::{SigSet, Signal, in_region, mask};
use support::stack::Setting;
use support::{Form, SIGNALS, alone, kernel_mask, log, log_runs, manage, mapped_pages, raw_mask, send};

const OWN: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::USR2).with(Signal::SEGV).with(Signal::PROF);
const CHILD: SigSet = SigSet::EMPTY.with(Signal::TERM).with(Signal::USR2);

/// What a thread is created by.
#[derive(Copy, Clone, Debug)]
enum By {
    Std,
    Scoped,
    Raw,
}

impl By {
    const ALL: [By; 3] = [By::Std, By::Scoped, By::Raw];

    /// Runs `body` on a new thread and waits for it.
    fn run(self, body: impl FnOnce() + Send + 'static) {
        match self {
            By::Std => thread::spawn(body).unwrap().join().unwrap(),
            By::Scoped => std::thread::scope(|scope| Builder::new().spawn_scoped(scope, body).unwrap().join().unwrap()),
            By::Raw => join(raw(Box::new(body)).unwrap()),
        }
    }
}

type Body = Box<dyn FnOnce() + Send>;

/// A thread of `spawn_raw`.
fn raw(body: Body) -> Result<libc::pthread_t, ThreadError> {
    extern "C" fn start(body: *mut c_void) -> *mut c_void {
        // SAFETY: the box that `raw` has let go of, taken over once.
        let body = unsafe { Box::from_raw(body.cast::<Body>()) };
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(*body)).is_ok();
        null_mut::<c_void>().wrapping_byte_add(usize::from(passed))
    }

    let argument = Box::into_raw(Box::new(body));
    // SAFETY: the routine returns, and the argument is a box for it alone.
    let created = unsafe { thread::spawn_raw(start, argument.cast(), None) };
    if created.is_err() {
        // SAFETY: there is no thread to take it over.
        drop(unsafe { Box::from_raw(argument) });
    }
    created
}

fn join(thread: libc::pthread_t) {
    let mut passed = null_mut();
    // SAFETY: joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut passed) }, 0);
    assert_eq!(passed.addr(), 1, "the thread has panicked");
}

/// In a new thread: a mask of `expected`, an alternate stack of ours, no region.
fn check_start(expected: SigSet, what: &str) {
    assert_eq!((kernel_mask(), mask::current()), (expected, expected), "{what}");
    assert!(Setting::current().bytes >= AltStack::DEFAULT_ROOM, "{what}: {:?}", Setting::current());
    assert!(!in_region(), "{what}");
}

#[test]
fn a_thread_starts_with_its_creator_s_mask_without_the_essential_signals() {
    alone("a_thread_starts_with_its_creator_s_mask_without_the_essential_signals", || {
        for by in By::ALL {
            for own in [SigSet::EMPTY, OWN, SigSet::FULL - SigSet::RESERVED] {
                raw_mask(libc::SIG_SETMASK, own);
                let before = kernel_mask();
                by.run(move || check_start(before - SigSet::ESSENTIAL, &format!("{by:?} {own}")));
                assert_eq!(kernel_mask(), before, "{by:?}");
            }
        }
    });
}

#[test]
fn a_thread_made_in_a_region_has_what_its_creator_itself_had_blocked() {
    alone("a_thread_made_in_a_region_has_what_its_creator_itself_had_blocked", || {
        log_runs(Signal::USR1);
        raw_mask(libc::SIG_SETMASK, OWN);
        for by in By::ALL {
            for form in Form::ALL {
                for deferred in [false, true] {
                    let what = format!("{by:?} {form:?} {deferred}");
                    form.run(|| {
                        if deferred {
                            send::tgkill(Signal::USR1);
                        }
                        let held_back = kernel_mask();
                        let what = what.clone();
                        by.run(move || {
                            check_start(CHILD, &what);
                            send::tgkill(Signal::USR1);
                            assert_eq!(log::count(), 1, "{what}: the thread is deaf");
                        });
                        assert_eq!(log::take().len(), 1);
                        assert_eq!((kernel_mask(), mask::current()), (held_back, OWN));
                    });
                    assert_eq!(log::take().len(), usize::from(deferred), "{what}");
                    assert_eq!(kernel_mask(), OWN, "{what}");
                }
            }
        }
    });
}

#[test]
fn a_signal_blocked_at_the_program_s_start_is_blocked_in_every_thread() {
    alone("a_signal_blocked_at_the_program_s_start_is_blocked_in_every_thread", || {
        log_runs(Signal::TERM);
        raw_mask(libc::SIG_SETMASK, Signal::TERM.into());
        let check = || assert_eq!(kernel_mask(), Signal::TERM.into());
        By::Std.run(move || {
            check();
            By::Raw.run(move || {
                check();
                By::Scoped.run(move || {
                    check();
                    send::kill(Signal::TERM);
                });
                check();
            });
        });
        assert_eq!(log::count(), 0);
        assert!(mask::pending().contains(Signal::TERM));
    });
}

#[test]
fn a_builder_gives_name_stack_and_mask() {
    alone("a_builder_gives_name_stack_and_mask", || {
        let builder = Builder::new().name("sigsafe".into()).stack_size(3 << 20).alt_stack_room(1 << 20).mask(OWN.with(Signal::HUP));
        let run = || {
            check_start(CHILD.with(Signal::HUP), "mask");
            assert!(Setting::current().bytes > 1 << 20);
            assert_eq!(std::thread::current().name(), Some("sigsafe"));
            assert!((3 << 20..4 << 20).contains(&own_stack_bytes()), "{}", own_stack_bytes());
            42
        };
        assert_eq!(builder.spawn(run).unwrap().join().unwrap(), 42);
    });
}

fn own_stack_bytes() -> usize {
    // SAFETY: zero is a value of the type, which the call below fills.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    let (mut bottom, mut bytes) = (null_mut(), 0);
    // SAFETY: the pointers are to live values; the thread is alive.
    unsafe {
        assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes), 0);
        assert_eq!(libc::pthread_attr_getstack(&raw const attributes, &raw mut bottom, &raw mut bytes), 0);
        libc::pthread_attr_destroy(&raw mut attributes);
    }
    bytes
}

#[test]
fn attributes_reach_a_raw_thread() {
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        std::ptr::without_provenance_mut(own_stack_bytes())
    }

    alone("attributes_reach_a_raw_thread", || {
        // SAFETY: zero is a value of the type, which the call below fills.
        let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value.
        unsafe {
            assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
            assert_eq!(libc::pthread_attr_setstacksize(&raw mut attributes, 3 << 20), 0);
        }
        // SAFETY: the routine returns and takes no argument.
        let thread = unsafe { thread::spawn_raw(start, null_mut(), Some(&attributes)) }.unwrap();
        let mut bytes = null_mut();
        // SAFETY: joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, &raw mut bytes) }, 0);
        assert!((3 << 20..4 << 20).contains(&bytes.addr()), "{}", bytes.addr());
    });
}

/// What the destructor of a thread-local, which runs when the thread's own code has ended, has found.
static AT_EXIT: AtomicUsize = AtomicUsize::new(0);

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        let blocked = SIGNALS - SigSet::RESERVED - SigSet::SYNCHRONOUS - Signal::KILL.into() - Signal::STOP.into();
        let found = [kernel_mask() == blocked, Setting::current().bytes < AltStack::DEFAULT_ROOM];
        AT_EXIT.store(found.iter().filter(|held| **held).count(), Ordering::Relaxed);
    }
}

thread_local!(static LAST: AtExit = const { AtExit });

#[test]
fn a_thread_ends_with_everything_blocked_and_its_alt_stack_given_back() {
    alone("a_thread_ends_with_everything_blocked_and_its_alt_stack_given_back", || {
        for by in By::ALL {
            by.run(|| LAST.with(|_| ()));
            assert_eq!(AT_EXIT.swap(0, Ordering::Relaxed), 2, "{by:?}");
        }
    });
}

#[test]
fn a_panic_reaches_join_and_undoes_the_same() {
    alone("a_panic_reaches_join_and_undoes_the_same", || {
        let body = || {
            LAST.with(|_| ());
            std::panic::panic_any(42);
        };
        let panic = thread::spawn(body).unwrap().join().unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&42));
        assert_eq!(AT_EXIT.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_panic_of_std_s_builder_leaves_the_mask_as_it_was() {
    alone("a_panic_of_std_s_builder_leaves_the_mask_as_it_was", || {
        let before = kernel_mask();
        let spawn = || Builder::new().name("zero\0byte".into()).spawn(|| ());
        assert!(std::panic::catch_unwind(spawn).is_err());
        assert_eq!(kernel_mask(), before);
    });
}

#[test]
fn threads_leave_no_memory_behind() {
    alone("threads_leave_no_memory_behind", || {
        for by in By::ALL {
            by.run(|| ());
            let before = mapped_pages();
            for _ in 0..300 {
                by.run(|| ());
            }
            assert!(mapped_pages() < before + 300, "{by:?}: {before} pages, then {}", mapped_pages());
        }
    });
}

/// From here the calling thread can create no other. Root is exempt from the limit, and becomes somebody else.
fn forbid_threads() {
    const NOBODY: u32 = 54_321;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) }, 0);
    // SAFETY: the calls take no pointer. The kernel's own call, for this thread: libc's has every thread do the same by a signal, which the
    // others of this process have blocked.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
        }
    }
}

/// After [`forbid_threads`].
fn fail() {
    assert_eq!(thread::spawn(|| ()).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    assert_eq!(raw(Box::new(|| ())).unwrap_err(), ThreadError::Create(libc::EAGAIN));
}

#[test]
fn a_creation_that_fails_leaves_the_mask_as_it_was() {
    alone("a_creation_that_fails_leaves_the_mask_as_it_was", || {
        log_runs(Signal::USR1);
        raw_mask(libc::SIG_SETMASK, OWN);
        forbid_threads();
        fail();
        assert_eq!(kernel_mask(), OWN);
        for form in Form::ALL {
            form.run(|| {
                send::tgkill(Signal::USR1);
                let held_back = kernel_mask();
                fail();
                assert_eq!((kernel_mask(), mask::current()), (held_back, OWN), "{form:?}");
            });
            assert_eq!(log::take().len(), 1, "{form:?}");
            assert_eq!(kernel_mask(), OWN, "{form:?}");
        }
    });
}

#[test]
fn a_creation_that_fails_leaves_no_memory_behind() {
    alone("a_creation_that_fails_leaves_no_memory_behind", || {
        forbid_threads();
        fail();
        let before = mapped_pages();
        for _ in 0..300 {
            fail();
        }
        assert!(mapped_pages() < before + 300, "the alternate stacks are still there");
    });
}

static FROM_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// The handler's `sa_mask`.
const DURING: SigSet = SigSet::EMPTY.with(Signal::HUP).with(Signal::PROF);

/// Creates a thread in the handler and waits for it. The interrupted code is in no function of libc's.
fn spawn_in_handler(delivery: &Delivery<'_>) {
    let before = kernel_mask();
    let own = SigSet::from(delivery.signal());
    let thread = raw(Box::new(move || check_start(CHILD | own.with(Signal::HUP), "from a handler")));
    join(thread.unwrap());
    assert_eq!(kernel_mask(), before);
    FROM_HANDLER.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_thread_made_in_a_handler_has_the_handler_s_mask() {
    alone("a_thread_made_in_a_handler_has_the_handler_s_mask", || {
        manage(Handler::new(spawn_in_handler).mask(DURING), Signal::USR1);
        raw_mask(libc::SIG_SETMASK, OWN);
        send::tgkill(Signal::USR1);
        for form in Form::ALL {
            form.run(|| send::tgkill(Signal::USR1));
        }
        assert_eq!(FROM_HANDLER.load(Ordering::Relaxed), 1 + Form::ALL.len());
        assert_eq!(kernel_mask(), OWN);
    });
}
