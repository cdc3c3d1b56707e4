#!/usr/bin/env bash
# What the allocator's threads share, in every order in which their accesses can happen (sigsafe-alloc/src/own/models): by loom, up
# to a number of preemptions that each model says.
#
#   scripts/models.sh [MODEL]                          all models, or those whose names contain this
#   LOOM_MAX_PREEMPTIONS=3 scripts/models.sh MODEL     more orders, and much more time
#   LOOM_LOCATION=1 scripts/models.sh MODEL            where the accesses of a race are
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -le 1 ] || { echo "models.sh: one model, or a part of its name; not $#" >&2; exit 2; }

export RUSTFLAGS="${RUSTFLAGS:-} --cfg loom"
model_tests() {
  cargo test --locked -p sigsafe-alloc --lib -- "$@"
}

# No test at all would be a success, too. The library's ordinary tests are none.
all=$(model_tests --list | sed -n 's/: test$//p' | grep '^own::models::') || { echo 'models.sh: the models were not built, or there are none' >&2; exit 1; }
mapfile -t chosen < <(grep -F -e "${1:-}" <<<"$all" || true)
if [ ${#chosen[@]} -eq 0 ]; then
  printf 'models.sh: no model has "%s" in its name. There are:\n%s\n' "$1" "$all" >&2
  exit 2
fi
model_tests --exact "${chosen[@]}"
