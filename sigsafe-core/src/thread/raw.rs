//! Creating a thread without std: `pthread_create`, and a start record in the alternate stack's own mapping.

use core::ffi::c_void;
use core::mem::zeroed;
use core::ptr::null;

use super::ThreadError;
use super::altstack::AltStack;
use super::setup::capture;
use super::start::{Life, with_signals_blocked};
use crate::sigset::SigSet;

/// What a thread runs, as `pthread_create` takes it.
pub type StartRoutine = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

/// What the new thread has to know. It lies at the top of the alternate stack's mapping, above what the kernel is told of. The creator
/// owns it until the creation has succeeded, and the new thread from then on.
struct Start {
    stack: AltStack,
    mask: SigSet,
    routine: StartRoutine,
    argument: *mut c_void,
}

/// Creates a thread that runs `routine(argument)`, as `spawn` does by std: with the creator's logical mask, the essential
/// signals unblocked, and an alternate stack of its own. `attributes` are `pthread_create`'s; `None` are the default ones.
///
/// The thread ends by the return of `routine`: it then blocks everything and gives back the alternate stack. In a region
/// and in a handler the new thread's mask is what [`capture`](super::capture) says there.
///
/// ```
/// use core::ffi::c_void;
/// use core::ptr::null_mut;
/// use sigsafe_core::thread;
///
/// unsafe extern "C" fn twice(argument: *mut c_void) -> *mut c_void {
///     argument.map_addr(|number| number * 2)
/// }
///
/// // SAFETY: the routine returns, and dereferences nothing.
/// let thread = unsafe { thread::spawn_raw(twice, core::ptr::without_provenance_mut(21), None) }?;
/// let mut result = null_mut();
/// // SAFETY: the thread is joined once.
/// assert_eq!(unsafe { libc::pthread_join(thread, &mut result) }, 0);
/// assert_eq!(result.addr(), 42);
/// # Ok::<(), thread::ThreadError>(())
/// ```
///
/// # Errors
///
/// [`ThreadError::Create`] with `pthread_create`'s error number, [`ThreadError::Memory`]. There is no thread then, and the caller's mask
/// is as it was.
///
/// # Safety
///
/// `routine` may be called with `argument` on another thread. It returns: it is not left by `pthread_exit`, by cancellation or by
/// unwinding. `attributes` are initialised, and set no signal mask (`pthread_attr_setsigmask_np`).
///
/// Async-signal safety: this function's own part may run in a handler, and makes no use of the global allocator; `pthread_create`
/// takes libc's locks, so the handler must not have interrupted libc's thread or memory functions. Cost: five system calls and
/// those of `pthread_create`; in the new thread five.
#[doc(alias = "pthread_create")]
#[doc(alias = "newosproc")]
pub unsafe fn spawn_raw(
    routine: StartRoutine,
    argument: *mut c_void,
    attributes: Option<&libc::pthread_attr_t>,
) -> Result<libc::pthread_t, ThreadError> {
    let mask = capture();
    let mut stack = AltStack::new()?;
    let start = stack.reserve::<Start>();
    // SAFETY: reserved for this type, aligned, and used by nobody else.
    unsafe { start.write(Start { stack, mask, routine, argument }) };
    // SAFETY: a `pthread_t` is a number or a pointer, for which zero is a value.
    let mut thread: libc::pthread_t = unsafe { zeroed() };
    let attributes = attributes.map_or(null(), core::ptr::from_ref);
    let number = with_signals_blocked(|| {
        // SAFETY: the caller vouches for the attributes; `run` gets the record that it takes over.
        unsafe { libc::pthread_create(&raw mut thread, attributes, run, start.as_ptr().cast()) }
    });
    if number == 0 {
        return Ok(thread);
    }
    // SAFETY: there is no thread, so that the record is still ours. The copy on this stack owns the mapping from here on.
    drop(unsafe { start.read() });
    Err(ThreadError::Create(number))
}

/// The new thread's first code. A routine that unwinds aborts here.
extern "C" fn run(start: *mut c_void) -> *mut c_void {
    // SAFETY: from `spawn_raw`, which has left the record to this thread. The copy on this stack owns the mapping from here on.
    let Start { stack, mask, routine, argument } = unsafe { start.cast::<Start>().read() };
    let life = Life::begin(stack, mask);
    // SAFETY: as the caller of `spawn_raw` vouches.
    let result = unsafe { routine(argument) };
    drop(life);
    result
}
