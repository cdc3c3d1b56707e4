#!/usr/bin/env bash
# Runs on Linux what systems without deferral run: full-mask regions, mask operations and handlers through libc, the thread record behind a
# pthread key, waiting by naps. And checks that to name the deferring backend there is an error that says what to use instead.
#
#   scripts/portable.sh            x86_64 or aarch64 Linux
#
# The flag is given to this workspace's crates alone, core's build script among them, through a compiler wrapper: their dependencies
# are not built again, and Cargo keeps the results apart from those of an ordinary build.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/portable"
RUSTC_WORKSPACE_WRAPPER=$(cd "$target/portable" && pwd)/rustc
export RUSTC_WORKSPACE_WRAPPER
# Only once: Cargo builds again after a newer compiler.
if [ ! -x "$RUSTC_WORKSPACE_WRAPPER" ]; then
  printf '#!/bin/sh\nexec "$@" --cfg sigsafe_portable\n' >"$RUSTC_WORKSPACE_WRAPPER"
  chmod +x "$RUSTC_WORKSPACE_WRAPPER"
fi

printf '== without warnings\n'
cargo rustc -p sigsafe-core --lib --features std -- -D warnings
cargo rustc -p sigsafe-alloc --lib -- -D warnings
cargo rustc -p sigsafe-mutex --lib -- -D warnings

printf '== the error for a backend that is not there\n'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/src"
cat > "$scratch/Cargo.toml" <<TOML
[package]
name = "no-deferral"
version = "0.0.0"
edition = "2024"
[dependencies]
sigsafe-core = { path = "$PWD/sigsafe-core" }
[workspace]
TOML
cp Cargo.lock "$scratch/"
cat > "$scratch/src/lib.rs" <<'RUST'
pub fn sum() -> u32 {
    sigsafe_core::critical_with::<sigsafe_core::DeferredCounter, _>(|_| 1 + 1)
}
RUST
if message=$(cargo check --offline --manifest-path "$scratch/Cargo.toml" 2>&1); then
  printf 'DeferredCounter compiles as a backend where there is none\n'
  exit 1
fi
if ! grep -q 'use `FullSyscall`' <<<"$message"; then
  printf 'the error does not name FullSyscall:\n%s\n' "$message"
  exit 1
fi
sed -i 's/DeferredCounter/FullSyscall/' "$scratch/src/lib.rs"
cargo check -q --offline --manifest-path "$scratch/Cargo.toml"

printf '== tests\n'
cargo test -p sigsafe-core --lib

files=()
skipped=()
# tests FILE NAME...: those of the file are to run, but for those that are named.
tests() {
  files+=("--test=$1")
  local name
  for name in "${@:2}"; do
    if ! grep -q "^fn $name()" "sigsafe-core/tests/$1.rs"; then
      printf '%s.rs has no test %s\n' "$1" "$name"
      exit 1
    fi
    skipped+=(--skip "$name")
  done
}

# What is left out is about deferral itself (`was_deferred`, tokens, a sent fault that a region holds back, a thread that is created in a
# region by std), or about libc's own signals, which libc's calls neither block nor send.
tests portable
tests region regions_of_two_threads_are_each_their_own the_order_of_real_time_signals_outlasts_several_regions
tests handler signals_of_sa_mask_wait_for_the_handler_s_end reset_hand_restores_the_default_at_the_first_delivery
tests mask a_real_fault_whose_signal_is_kept_is_handled_at_once a_signal_held_back_and_then_blocked_waits_until_it_is_unblocked \
  a_signal_held_back_then_blocked_is_let_in_by_a_foreign_unblock blocked_and_unblocked_again_in_one_region_is_let_in_at_its_end \
  mask_changes_of_a_handler_end_with_it pending_sees_what_a_region_holds_back
tests wait unblocked_signals_are_taken_and_stay_unblocked
tests suspend suspend_admits_what_a_region_holds_back suspend_admits_a_sent_fault_that_was_blocked_since \
  temporary_does_not_sleep_for_what_has_come
tests registration
tests attach attaching_leaves_libc_s_own_signals_as_they_are
# (This one's signal may also reach the test runner's own thread, which it does not count on.)
tests spawn a_signal_blocked_at_the_program_s_start_is_blocked_in_every_thread
tests alt_stack
tests command
tests crash the_wait_status_says_every_signal_whatever_its_mask_and_disposition
tests notifier
tests notifier_descriptors
tests notifier_changes
tests notifier_threads
# In one go, so that they are built side by side.
cargo test -p sigsafe-core "${files[@]}" -- --exact "${skipped[@]}"

cargo test -p sigsafe-mutex --lib --test exclusion --test fork
# A full-mask region holds back unmanaged handlers too.
cargo test -p sigsafe-mutex --test reentry -- --skip in_an_unmanaged_handler
cargo test -p sigsafe-alloc --test global
printf 'portable: all passed\n'
