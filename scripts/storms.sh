#!/usr/bin/env bash
# Storms over every sigsafe subject, with the drivers timer and tgkill and several thread counts, each until so many handler runs had
# been held back by a region. The first failure is printed with the command that replays it; all storms run in any case.
#
#   scripts/storms.sh [DEFERRALS [SECONDS [THREADS...]]]      100000 deferrals each, 300 s at most each, 1 2 4 8 threads
set -euo pipefail
cd "$(dirname "$0")/.."

deferrals=${1:-100000}
seconds=${2:-300}
threads=("${@:3}")
[ ${#threads[@]} -gt 0 ] || threads=(1 2 4 8)

cargo build --release -p sigsafe-test-harness
stress=${CARGO_TARGET_DIR:-target}/release/sigsafe-stress
failed=0
for subject in masked-system-deferred masked-system-full sigsafe-mutex-deferred sigsafe-mutex-full sigsafe-spin; do
  for driver in timer tgkill; do
    for count in "${threads[@]}"; do
      "$stress" storm --subject "$subject" --driver "$driver" --rate 100000 --threads "$count" \
        --seconds "$seconds" --deferrals "$deferrals" || failed=$((failed + 1))
    done
  done
done
if [ "$failed" -gt 0 ]; then
  printf '%s storms failed\n' "$failed"
  exit 1
fi
printf 'every storm passed\n'
