#!/usr/bin/env bash
# Counts the instructions of a region pair under valgrind, and fails if there are more than the project promises.
#
#   benches/callgrind.sh
#
# Each loop runs for two counts of turns. The difference of the two totals, divided by the difference of the counts, is what
# a turn costs without start-up; less the same of the empty loop, it is what the pair costs.
set -euo pipefail
cd "$(dirname "$0")/.."

few=100000
many=300000
closure_limit=8
guard_limit=12

command -v valgrind >/dev/null || { echo "callgrind.sh: valgrind is not installed" >&2; exit 2; }

echo "building"
binary=$(cargo bench --quiet -p sigsafe-benches --bench instructions --no-run --message-format=json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || { echo "callgrind.sh: cargo named no executable" >&2; exit 2; }

# Prints how many instructions the process executes in all.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# Prints hundredths of instructions per turn of the loop.
per_turn() {
    local low high
    low=$(instructions "$1" "$few")
    high=$(instructions "$1" "$many")
    [ -n "$low" ] && [ -n "$high" ] || { echo "callgrind.sh: valgrind gave no count for $1" >&2; exit 2; }
    echo $(( (high - low) * 100 / (many - few) ))
}

status=0
empty=$(per_turn empty)
for kind in closure guard; do
    limit=${kind}_limit
    turn=$(per_turn "$kind")
    pair=$(( turn - empty ))
    verdict=ok
    if [ "$pair" -gt $(( ${!limit} * 100 )) ]; then
        verdict="TOO MANY"
        status=1
    fi
    printf '%-8s %d.%02d instructions per pair (at most %d: %s)\n' \
        "$kind" $(( pair / 100 )) $(( pair % 100 )) "${!limit}" "$verdict"
done

# For information, and not limited: each pair in a call of its own, which finds the thread record anew.
empty=$(per_turn empty-apart)
for kind in closure guard; do
    turn=$(per_turn "$kind-apart")
    pair=$(( turn - empty ))
    printf '%-8s %d.%02d instructions for a pair that is alone in its function\n' "$kind" $(( pair / 100 )) $(( pair % 100 ))
done
exit "$status"
