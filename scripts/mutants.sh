#!/usr/bin/env bash
# Builds the library with one protection removed at a time and expects its tests to fail: a test that stays green without a
# protection does not test it. Without arguments, every mutant.
#
#   scripts/mutants.sh [MUTANT...]
#
# A mutant is chosen by `--cfg sigsafe_mutant="NAME"`, given to this workspace's crates alone through a compiler wrapper, so that
# their dependencies are not built again. `cargo` keeps the results apart from those of an ordinary build.
set -euo pipefail
cd "$(dirname "$0")/.."

# mutant: the test that must turn red, as arguments of `cargo test`
declare -A catches=(
  [no-frame-mask]="-p sigsafe-core --test property"
  [no-flush]="-p sigsafe-core --test property"
  [mask-per-guard]="-p sigsafe-core --test property"
  [one-counter]="-p sigsafe-core --test property"
  [handler-flushes-below]="-p sigsafe-core --test sweep one_signal_at_every_instruction_of_a_flush"
  [no-table-lock]="-p sigsafe-core --test contention a_handler_stays_in_force_while_others_come_and_go"
  [mask-of-another]="-p sigsafe-core --test handler a_handler_that_replaces_one_with_a_frame_has_its_own_mask"
  [wake-kept]="-p sigsafe-core --test waiting a_wake_is_passed_on_before_a_handler_runs"
  [spawn-unblocked]="-p sigsafe-core --test spawn_storm no_handler_runs_on_a_new"
)
names=("$@")
[ $# -gt 0 ] || names=("${!catches[@]}")

target=${CARGO_TARGET_DIR:-target}
log=$target/mutants.log
survivors=0
for name in "${names[@]}"; do
  test=${catches[$name]:-}
  if [ -z "$test" ]; then
    printf 'unknown mutant %s; there are: %s\n' "$name" "${!catches[*]}" >&2
    exit 2
  fi
  mkdir -p "$target/mutants/$name"
  wrapper=$(cd "$target/mutants/$name" && pwd)/rustc
  printf '#!/bin/sh\nexec "$@" --cfg '"'"'sigsafe_mutant="%s"'"'"'\n' "$name" >"$wrapper"
  chmod +x "$wrapper"
  read -ra arguments <<<"$test"
  # It must build: a mutant that does not compile would look caught.
  RUSTC_WORKSPACE_WRAPPER=$wrapper cargo test -q "${arguments[@]:0:4}" --no-run
  if PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 RUSTC_WORKSPACE_WRAPPER=$wrapper timeout 600 cargo test -q "${arguments[@]}" >"$log" 2>&1; then
    printf 'mutant %-22s SURVIVED: %s\n' "$name" "$test"
    survivors=$((survivors + 1))
  elif grep -q '^test result: FAILED' "$log"; then
    printf 'mutant %-22s caught by %s\n' "$name" "${arguments[3]} ${arguments[4]:-}"
  else
    printf 'mutant %-22s: no verdict, see %s\n' "$name" "$log"
    survivors=$((survivors + 1))
  fi
done
[ "$survivors" -eq 0 ]
