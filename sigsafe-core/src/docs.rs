//! Longer texts: each behaviour with the test that shows it.

#[doc = include_str!("../docs/behaviour.md")]
pub mod behaviour {}
