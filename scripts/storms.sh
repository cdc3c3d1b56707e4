#!/usr/bin/env bash
# Storms over every sigsafe subject, with several drivers and thread counts; over the allocator also with threads that end and are
# replaced, and with forks. Each lasts until its goal is reached: so many handler runs that had been held back or, where nothing holds the
# handler back, so many that ran inside the allocator; over the allocator for a minimum, too. itimer gives a few hundred signals a
# second: its goals are a hundredth. None is below 20, which is the least that means anything. All storms run in any case; a failure is
# printed with the command that replays it.
#
#   scripts/storms.sh [DEFERRALS [SECONDS [THREADS...]]]      100000 deferrals each, 300 s at most each, 1 2 4 8 threads
#
#   INSIDE=10000      the goal of handler runs inside the allocator
#   AT_LEAST=60       seconds that each storm over the allocator lasts at least
#   PATIENCE=3        seconds without progress after which a thread counts as hung: more of them where several of these run side by side
#   SUBJECTS="..."    these alone
#   DRIVERS="..."     of timer, tgkill and, for the allocator, itimer: these alone
set -euo pipefail
cd "$(dirname "$0")/.."

deferrals=${1:-100000}
seconds=${2:-300}
threads=("${@:3}")
[ ${#threads[@]} -gt 0 ] || threads=(1 2 4 8)
inside=${INSIDE:-10000}
at_least=${AT_LEAST:-60}
patience=${PATIENCE:-3}
((at_least <= seconds)) || at_least=$seconds
read -ra subjects <<<"${SUBJECTS:-masked-system-deferred masked-system-full sigsafe-mutex-deferred sigsafe-mutex-full sigsafe-spin \
  sigsafe-alloc sigsafe-alloc-unmanaged}"

cargo build --release -p sigsafe-test-harness
stress=${CARGO_TARGET_DIR:-target}/release/sigsafe-stress
failed=0
for subject in "${subjects[@]}"; do
  case $subject in
    sigsafe-alloc*) read -ra drivers <<<"${DRIVERS:-timer tgkill itimer}"; modes=("" "--churn" "--fork" "--churn --fork") minimum=$at_least ;;
    *) read -ra drivers <<<"${DRIVERS:-timer tgkill}"; modes=("") minimum=0 ;;
  esac
  for driver in "${drivers[@]}"; do
    part=1
    [ "$driver" != itimer ] || part=100
    case $subject in
      *-unmanaged) goal=(--inside $((inside / part > 20 ? inside / part : 20))) ;;
      *) goal=(--deferrals $((deferrals / part > 20 ? deferrals / part : 20))) ;;
    esac
    for mode in "${modes[@]}"; do
      read -ra options <<<"$mode"
      for count in "${threads[@]}"; do
        "$stress" storm --subject "$subject" --driver "$driver" --rate 100000 --threads "$count" "${options[@]}" \
          --seconds "$seconds" --at-least "$minimum" --hang-limit-ms "$((patience * 1000))" "${goal[@]}" || failed=$((failed + 1))
      done
    done
  done
done
if [ "$failed" -gt 0 ]; then
  printf '%s storms failed\n' "$failed"
  exit 1
fi
printf 'every storm passed\n'
