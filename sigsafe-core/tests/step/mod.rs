//! What sweeps share: [`sigsafe_test_harness::step`], which puts a signal at an instruction, where an operation lies ([`layers`]), and
//! what is looked at ([`watch`]).

#![allow(dead_code, unused_imports, reason = "each sweep is a crate that uses its own part of this module")]

pub(crate) mod layers;
pub(crate) mod watch;

pub(crate) use sigsafe_test_harness::step::{AS_FAULT, OVERLAPPED, Path, SENT, STUCK, Stop, begin, end, learn, prepare, run, send};
