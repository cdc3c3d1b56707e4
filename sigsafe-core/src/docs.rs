//! Longer texts: each behaviour with the test that shows it, and how a language runtime stands on this crate.

#[doc = include_str!("../docs/behaviour.md")]
pub mod behaviour {}

/// # Standing a runtime on sigsafe
///
#[doc = include_str!("../docs/runtime.md")]
///
/// # The whole program
///
/// `examples/stop_the_world.rs`:
///
/// ```ignore
#[doc = include_str!("../examples/stop_the_world.rs")]
/// ```
pub mod runtime {}
