#!/usr/bin/env bash
# What the allocator's threads share, in every order in which their accesses can happen (sigsafe-alloc/src/own/models): by loom, up
# to a number of preemptions that each model says.
#
#   scripts/models.sh [MODEL]                          all models, or those whose names contain this
#   LOOM_MAX_PREEMPTIONS=3 scripts/models.sh MODEL     more orders, and much more time
#   LOOM_LOCATION=1 scripts/models.sh MODEL            where the accesses of a race are
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTFLAGS="${RUSTFLAGS:-} --cfg loom" cargo test --locked -p sigsafe-alloc --lib "${1:-models::}"
