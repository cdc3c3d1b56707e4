//! Where an operation of a sweep lies: in regions, with a deferral outstanding, in handlers. From the outside in.

use std::cell::Cell;

use sigsafe_core::handler::{Delivery, Handler};
use sigsafe_core::{FullSyscall, MaskGuard, SigSet, Signal, critical, critical_with};

use super::watch;

/// What is deferred before the operation begins.
pub(crate) const EARLIER: Signal = Signal::HUP;
/// Its immediate handler performs the operation.
pub(crate) const OVER: Signal = Signal::VTALRM;
/// Its deferrable handler does.
pub(crate) const LATER: Signal = Signal::XCPU;
/// What is blocked in these two handlers besides their own signals.
const BESIDES: SigSet = SigSet::EMPTY.with(Signal::QUIT);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Closure,
    Guard,
    Full,
    /// [`EARLIER`] is sent: in a region a deferral is outstanding from here on.
    Earlier,
    /// The same by the signal that the sweep will send.
    Same,
    /// In an immediate handler.
    Over,
    /// In a handler that a region has held back.
    Later,
}

pub(crate) use Layer::{Closure, Earlier, Full, Guard, Later, Over, Same};

/// What is left to do in a handler: the inner layers, the signal under test, and the operation.
type Rest = (&'static [Layer], i32, *const dyn Fn());

thread_local! {
    // The handlers that take it are run by this thread's own sends, never at an arbitrary instruction.
    static REST: Cell<Option<Rest>> = const { Cell::new(None) };
}

/// Performs `operation` in `layers`; `number` is the signal under test.
pub(crate) fn within(layers: &'static [Layer], number: i32, operation: &dyn Fn()) {
    let Some((layer, rest)) = layers.split_first() else { return operation() };
    match layer {
        Closure => critical(|_| within(rest, number, operation)),
        Full => critical_with::<FullSyscall, _>(|_| within(rest, number, operation)),
        Guard => {
            let guard: MaskGuard = MaskGuard::new();
            within(rest, number, operation);
            drop(guard);
        }
        Earlier | Same => {
            super::send(if *layer == Same { number } else { EARLIER.number() });
            within(rest, number, operation);
        }
        Over | Later => {
            // SAFETY: only the lifetime changes. The handler runs before this call returns, and takes the reference out.
            let operation: &'static dyn Fn() = unsafe { std::mem::transmute(operation) };
            REST.set(Some((rest, number, operation)));
            if *layer == Over {
                super::send(OVER.number());
            } else {
                critical(|_| super::send(LATER.number()));
            }
        }
    }
}

fn perform_the_rest(_: &Delivery<'_>) {
    if let Some((layers, number, operation)) = REST.take() {
        // SAFETY: from the `within` that is waiting for this handler.
        within(layers, number, unsafe { &*operation });
    }
}

/// The logical mask in the innermost layer.
pub(crate) fn mask_within(layers: &[Layer], mask: SigSet) -> SigSet {
    layers.iter().fold(mask, |mask, layer| match layer {
        Over => mask.with(OVER) | BESIDES,
        Later => mask.with(LATER) | BESIDES,
        _ => mask,
    })
}

pub(crate) fn in_handler(layers: &[Layer]) -> bool {
    layers.iter().any(|layer| matches!(layer, Over | Later))
}

pub(crate) fn in_region(layers: &[Layer]) -> bool {
    layers.iter().any(|layer| matches!(layer, Closure | Guard | Full))
}

/// Installs the handlers that layers need.
pub(crate) fn install() {
    let performing = Handler::new(perform_the_rest).mask(BESIDES);
    for (signal, handler) in [(OVER, performing.immediate(true)), (LATER, performing), (EARLIER, Handler::new(watch::on_deferrable))] {
        // SAFETY: the handlers touch atomics and regions; the performing ones run where this thread sends their signals.
        unsafe { handler.install(signal).unwrap() };
    }
}
