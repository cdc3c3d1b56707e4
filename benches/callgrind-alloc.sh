#!/usr/bin/env bash
# Counts the instructions of an alloc/dealloc pair under valgrind, of each allocator that has been built.
#
#   cargo run --release -p sigsafe-bench-allocators -- build      builds all; or name some: --allocators sigsafe,mimalloc
#   benches/callgrind-alloc.sh [NAME...]                          sigsafe mimalloc snmalloc rpmalloc jemalloc tcmalloc system
#
# Each pair runs for two counts of turns. The difference of the totals, divided by the difference of the counts, is what a turn costs
# without start-up: the allocator, and the same few instructions of the loop for all. `box` is a size that the compiler knows, `vec`
# one that it does not. In brackets: calls made by the loop itself per turn, in the same runs. 2 is a call to allocate and one to free, so that
# nothing was left out; less, where the linker put the allocator's fast path into the loop.
set -euo pipefail
cd "$(dirname "$0")/.."

few=100000
many=300000
rows=(box16 box64 box512 vec16 vec64 vec512)
tcmalloc=/usr/lib/$(uname -m)-linux-gnu/libtcmalloc_minimal.so.4

command -v valgrind >/dev/null || { echo "callgrind-alloc.sh: valgrind is not installed" >&2; exit 2; }
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(sigsafe mimalloc snmalloc rpmalloc jemalloc tcmalloc system)
target=${CARGO_TARGET_DIR:-target}/release
profile=$(mktemp)
trap 'rm -f "$profile"' EXIT

# Prints the instructions of the whole process, and the calls made by the function that holds the loop.
count() {
    local binary=$target/alloc-$1 preload=
    if [ "$1" = tcmalloc ]; then
        binary=$target/alloc-system
        preload=$tcmalloc
    fi
    LD_PRELOAD=$preload valgrind --quiet --tool=callgrind --callgrind-out-file="$profile" "$binary" turns "$2" "$3" >/dev/null 2>&1 || return
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
        END { print total, calls + 0 }
    ' "$profile"
}

printf '%-10s' allocator
printf '%17s' "${rows[@]}"
printf '\n'
for name in "${names[@]}"; do
    binary=$target/alloc-$name
    [ "$name" != tcmalloc ] || binary=$target/alloc-system
    [ -x "$binary" ] || { echo "$name: $binary is not built"; continue; }
    [ "$name" != tcmalloc ] || [ -e "$tcmalloc" ] || { echo "tcmalloc: scripts/apt-install.sh libtcmalloc-minimal4"; continue; }
    printf '%-10s' "$name"
    for row in "${rows[@]}"; do
        # snmalloc reserves more address space than some versions of valgrind have.
        read -r low low_calls < <(count "$name" "$row" "$few") || { printf '  does not run under valgrind'; break; }
        read -r high high_calls < <(count "$name" "$row" "$many")
        awk -v turns=$((many - few)) -v instructions=$((high - low)) -v calls=$((high_calls - low_calls)) \
            'BEGIN { printf "%17s", sprintf("%.2f (%.2f)", instructions / turns, calls / turns) }'
    done
    printf '\n'
done
