#!/usr/bin/env bash
# Counts the instructions of an alloc/dealloc pair under valgrind, of each allocator. Exit status 0 only if every one was counted.
#
#   benches/callgrind-alloc.sh [NAME...]               sigsafe mimalloc snmalloc rpmalloc jemalloc tcmalloc system; or NAME=BINARY
# Where valgrind has not the address space that snmalloc reserves, name the others.
#
# What is counted is built first. Each pair runs for two counts of turns. The difference of the totals, divided by the difference of the
# counts, is what a turn costs without start-up: the allocator, and the same few instructions of the loop for all. `pair` is a size that
# the compiler knows, `vec` one that it does not. In brackets: calls made by the loop itself per turn, in the same runs. 2 is a call to
# allocate and one to free, so that nothing was left out; less, where the linker put the allocator's fast path into the loop, which it
# can do with ours alone.
set -euo pipefail
cd "$(dirname "$0")/.."

few=100000
many=300000
rows=(pair16 pair64 pair512 vec16 vec64 vec512)

command -v valgrind >/dev/null || { echo "callgrind-alloc.sh: valgrind is not installed" >&2; exit 2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Prints the instructions of the whole process, and the calls made by the function that holds the loop.
count() {
    LD_PRELOAD=$2 valgrind --quiet --tool=callgrind --callgrind-out-file="$scratch/profile" "$1" turns "$3" "$4" </dev/null >"$scratch/said" 2>&1 || return
    # A profile names a function once, as "(id) name", and only by its id from then on.
    awk '
        /^c?fn=/ {
            id = line = substr($0, index($0, "=") + 1)
            sub(/\).*/, ")", id)
            if (line != id) name[id] = line
            if (/^fn=/) inside = name[id] ~ /work..pairs.*run/
        }
        /^calls=/ && inside { split(substr($0, 7), fields, " "); calls += fields[1] }
        /^summary:/ { total = $2 }
        END { if (!total) exit 1; print total, calls + 0 }
    ' "$scratch/profile"
}

echo "building"
options=()
[ $# -eq 0 ] || options=(--allocators "$(IFS=,; echo "$*")")
cargo run --release --quiet --locked -p sigsafe-bench-allocators -- build "${options[@]}" >"$scratch/built"

failed=()
printf '%-10s' allocator
printf '%17s' "${rows[@]}"
printf '\n'
while read -r name binary preloaded; do
    printf '%-10s' "$name"
    for row in "${rows[@]}"; do
        if ! low=$(count "$binary" "$preloaded" "$row" "$few") || ! high=$(count "$binary" "$preloaded" "$row" "$many"); then
            printf '  failed\n'
            tail -n 5 "$scratch/said" >&2
            failed+=("$name")
            continue 2
        fi
        read -r low low_calls <<<"$low"
        read -r high high_calls <<<"$high"
        awk -v turns=$((many - few)) -v instructions=$((high - low)) -v calls=$((high_calls - low_calls)) \
            'BEGIN { printf "%17s", sprintf("%.2f (%.2f)", instructions / turns, calls / turns) }'
    done
    printf '\n'
done <"$scratch/built"
[ ${#failed[@]} -eq 0 ] || { echo "callgrind-alloc.sh: not counted: ${failed[*]}" >&2; exit 1; }
