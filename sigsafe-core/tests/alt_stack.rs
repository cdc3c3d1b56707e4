//! Alternate stacks: handlers run there, an overflow hits the guard page, and the settings that were found come back.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::thread::{AltStack, ThreadError};
use sigsafe_core::{SigSet, Signal};
use support::stack::{Setting, foreign_stack, here, on_foreign_thread};
use support::{alone, alone_until_death, errno, manage, mapped_pages, send, set_errno};

const SS_AUTODISARM: i32 = i32::MIN;

static PLACE: AtomicUsize = AtomicUsize::new(0);

fn note_stack(_: &Delivery<'_>) {
    PLACE.store(here(), Ordering::Relaxed);
}

/// Where a handler with `SA_ONSTACK` runs.
fn place() -> usize {
    send::tgkill(Signal::USR1);
    PLACE.swap(0, Ordering::Relaxed)
}

#[test]
fn handlers_run_on_an_installed_stack_and_what_was_there_comes_back() {
    alone("handlers_run_on_an_installed_stack_and_what_was_there_comes_back", || {
        [Setting::NONE, foreign_stack(1 << 16)].into_iter().for_each(installed_over);
    });
}

#[test]
fn what_disarms_itself_in_handlers_comes_back_too() {
    alone("what_disarms_itself_in_handlers_comes_back_too", || {
        installed_over(Setting { flags: SS_AUTODISARM, ..foreign_stack(1 << 16) });
    });
}

fn installed_over(found: Setting) {
    manage(Handler::new(note_stack).on_stack(true), Signal::USR1);
    on_foreign_thread(|| {
        found.install();
        set_errno(7);
        let installed = AltStack::new().unwrap().install().unwrap();
        assert_eq!(errno(), 7);
        let range = installed.range();
        assert_eq!(Setting::current(), Setting { bottom: range.start, bytes: range.len(), flags: 0 });
        assert!(range.contains(&place()));
        drop(installed);
        assert_eq!((errno(), Setting::current()), (7, found));
        assert_eq!(found.range().contains(&place()), found != Setting::NONE);
    });
}

/// What the kernel says of the size of a frame; zero if it says nothing.
fn told_frame_bytes() -> usize {
    // SAFETY: the call reads a table.
    unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) as usize }
}

/// Otherwise the tests of sizes see the constant of the headers alone.
#[test]
fn the_kernel_says_how_much_a_frame_needs() {
    assert!(told_frame_bytes() > 1000);
}

#[test]
fn a_stack_holds_four_frames_and_the_room_asked_for() {
    alone("a_stack_holds_four_frames_and_the_room_asked_for", || {
        let frame = told_frame_bytes().max(libc::MINSIGSTKSZ);
        for room in [0, 1, AltStack::DEFAULT_ROOM, 3 << 20] {
            let bytes = AltStack::with_room(room).unwrap().range().len();
            assert!((4 * frame + room..4 * frame + room + 4096).contains(&bytes), "{room}: {bytes}");
        }
        assert_eq!(AltStack::with_room(usize::MAX).err(), Some(ThreadError::Memory(libc::ENOMEM)));
        assert_eq!(AltStack::with_room(1 << 60).err(), Some(ThreadError::Memory(libc::ENOMEM)));
    });
}

/// How deep the handler below goes: through the stack, the guard page, and into what lies below that.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

#[inline(never)]
fn go_down(lowest: usize) -> usize {
    let mut frame = [0xAAu8; 1024];
    let address = std::hint::black_box(&raw mut frame).addr();
    if address > lowest { go_down(lowest) + usize::from(frame[7]) } else { 0 }
}

fn overflow(_: &Delivery<'_>) {
    let below = Setting::current().bottom - DEPTH.load(Ordering::Relaxed);
    std::hint::black_box(go_down(below));
    println!("the handler has overwritten what lies below its stack");
}

#[test]
fn an_overflow_of_an_alt_stack_hits_its_guard_page() {
    const BELOW: usize = 1 << 16;
    alone_until_death("an_overflow_of_an_alt_stack_hits_its_guard_page", Signal::SEGV, "memory right below", || {
        // Memory right below the guard page, which is what the handler would write to.
        let stack = AltStack::new().unwrap();
        let guard = stack.range().start - 4096;
        let neighbour = std::ptr::with_exposed_provenance_mut(guard - BELOW);
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: nothing that is mapped is replaced.
        let mapped = unsafe { libc::mmap(neighbour, BELOW, access, flags, -1, 0) };
        // Where something is mapped there already, that is what lies below.
        println!("memory right below: {}", if mapped == neighbour { "ours" } else { "somebody's" });
        let installed = stack.install().unwrap();
        DEPTH.store(BELOW / 2, Ordering::Relaxed);
        manage(Handler::new(overflow).on_stack(true), Signal::USR1);
        send::tgkill(Signal::USR1);
        drop(installed);
    });
}

static TRIED: AtomicUsize = AtomicUsize::new(0);

fn install_in_handler(_: &Delivery<'_>) {
    let found = Setting::current();
    let result = AltStack::new().unwrap().install();
    let outcome = match result {
        Err(ThreadError::OnAltStack) => 1,
        Err(_) => 2,
        Ok(installed) => {
            let inside = Setting::current().bottom == installed.range().start;
            drop(installed);
            3 + usize::from(inside)
        }
    };
    TRIED.store(if Setting::current() == found { outcome } else { 0 }, Ordering::Relaxed);
}

#[test]
fn a_stack_is_not_replaced_under_the_handler_that_runs_on_it() {
    alone("a_stack_is_not_replaced_under_the_handler_that_runs_on_it", || {
        let foreign = foreign_stack(1 << 16);
        for (found, on_stack, expected) in [(foreign, true, 1), (foreign, false, 4), (Setting::NONE, true, 4)] {
            assert_eq!(installed_in_handler(found, on_stack), expected, "{found:?} {on_stack}");
        }
    });
}

/// The kernel has disarmed it for the time of the handler.
#[test]
fn a_stack_that_disarms_itself_is_replaced_in_the_handler_that_runs_on_it() {
    alone("a_stack_that_disarms_itself_is_replaced_in_the_handler_that_runs_on_it", || {
        let found = Setting { flags: SS_AUTODISARM, ..foreign_stack(1 << 16) };
        assert_eq!(installed_in_handler(found, true), 4);
    });
}

/// What [`install_in_handler`] says, on a thread that has `found` as its alternate stack.
fn installed_in_handler(found: Setting, on_stack: bool) -> usize {
    manage(Handler::new(install_in_handler).on_stack(on_stack), Signal::USR1);
    on_foreign_thread(|| {
        found.install();
        send::tgkill(Signal::USR1);
        assert_eq!(Setting::current(), found);
    });
    TRIED.load(Ordering::Relaxed)
}

#[test]
fn dropped_stacks_leave_no_memory_behind() {
    alone("dropped_stacks_leave_no_memory_behind", || {
        let before = mapped_pages();
        for _ in 0..300 {
            drop(AltStack::new().unwrap());
            drop(AltStack::new().unwrap().install().unwrap());
        }
        assert!(mapped_pages() < before + 300, "{before} pages, then {}", mapped_pages());
    });
}

#[test]
fn a_stack_with_another_over_it_stays_mapped() {
    alone("a_stack_with_another_over_it_stays_mapped", || {
        manage(Handler::new(note_stack).on_stack(true), Signal::USR1);
        on_foreign_thread(|| {
            let first = AltStack::new().unwrap().install().unwrap();
            let range = first.range();
            let second = AltStack::new().unwrap().install().unwrap();
            drop(first);
            assert_eq!(Setting::current(), Setting::NONE);
            // Its undoing names the first one, which has to be there still.
            drop(second);
            assert_eq!(Setting::current().range(), range);
            assert!(range.contains(&place()));
        });
    });
}

#[test]
fn a_stack_is_used_by_handlers_of_every_kind_of_delivery() {
    alone("a_stack_is_used_by_handlers_of_every_kind_of_delivery", || {
        manage(Handler::new(note_stack).on_stack(true).mask(SigSet::FULL), Signal::USR1);
        on_foreign_thread(|| {
            let installed = AltStack::new().unwrap().install().unwrap();
            for form in support::Form::ALL {
                form.run(|| send::tgkill(Signal::USR1));
                assert!(installed.range().contains(&PLACE.swap(0, Ordering::Relaxed)), "{form:?}");
            }
        });
    });
}
