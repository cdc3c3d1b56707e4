#!/usr/bin/env bash
# The test suites of ten crates that others have written, once with the system's allocator and once with ours: each test must end the
# same way.
#
#   scripts/ten-crates.sh [NAME...]                    all ten, or some
#   FEATURES=hardened scripts/ten-crates.sh [NAME...]  with features of sigsafe-alloc
#   LIMIT=SECONDS ...                                  how long one crate's tests may take with one allocator, with their build; 1800
#   KEEP=DIRECTORY ...                                 keeps sources, binaries and outputs there, for a look or a quicker second run
#
# Cargo fetches the sources, at the versions below, with the versions of their dependencies that came with them. A copy gets a
# development dependency on ours and, at the end of each root of a test (the library, for its unit tests, and every file of integration
# tests), these lines:
#
#   #[cfg(test)]
#   #[global_allocator]
#   static ALLOCATOR: SigSafeAlloc = SigSafeAlloc;
#
# Every process of that copy's tests writes at its end what `stats()` says. One that the allocator did not serve says nothing or 0.
# Examples in documentation are not run: they are programs of their own. A crate fails, too, if its tests could not be fetched, built or
# run to their end, with either allocator. Exit status: how many crates failed; 64 for a name that is none of theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Name, version, and what it is.
crates=(
  'serde_json 1.0.154 parser'
  'nom 7.1.3 parser'
  'pulldown-cmark 0.13.6 parser'
  'flate2 1.1.11 compressor'
  'miniz_oxide 0.8.9 compressor'
  'regex 1.7.3 regex engine'
  'hecs 0.10.5 ECS'
  'redb 3.1.3 database'
  'petgraph 0.8.3 graphs'
  'crossbeam-channel 0.5.17 channels'
)

for name in "$@"; do
  if ! printf '%s\n' "${crates[@]}" | awk -v name="$name" '$1 == name { found = 1 } END { exit !found }'; then
    printf 'ten-crates.sh: no crate %s; there are: %s\n' "$name" "$(printf '%s\n' "${crates[@]}" | awk '{ printf "%s ", $1 }')" >&2
    exit 64
  fi
done

work=${KEEP:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=$work/target CARGO_TERM_COLOR=never
# Seconds for one crate's tests with one allocator, and their build.
limit=${LIMIT:-1800}
# Quick to build, and quick enough to run.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0

# The crate that the copies depend on: the allocator, and the line at a process's end.
make_served() {
  local features=''
  [ -z "${FEATURES:-}" ] || features=$(printf '"%s", ' $FEATURES)
  mkdir -p "$work/served/src"
  cat >"$work/served/Cargo.toml" <<EOF
[package]
name = "served"
version = "0.0.0"
edition = "2024"

[dependencies]
libc = "0.2"
sigsafe-alloc = { path = "$root/sigsafe-alloc", features = [$features] }

[workspace]
EOF
  cat >"$work/served/src/lib.rs" <<'EOF'
pub use sigsafe_alloc::SigSafeAlloc;

/// Appends a line to the file that `SERVED` names.
extern "C" fn at_exit() {
    let stats = SigSafeAlloc.stats();
    let Some(path) = std::env::var_os("SERVED") else { return };
    let program = std::env::current_exe().unwrap();
    let line = format!("{} {} {} {}\n", stats.chunks, stats.blocks, stats.caches, program.display());
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;
EOF
}

# fetch NAME VERSION: unpacks the crate to $work/NAME/system.
fetch() {
  local fetcher=$work/$1/fetch
  mkdir -p "$fetcher/src"
  touch "$fetcher/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n%s = "=%s"\n[workspace]\n' "$1" "$2" \
    >"$fetcher/Cargo.toml"
  # Vendored, the sources are files of ours. Cargo's own checksums would forbid a change, and are for dependencies only.
  (cd "$fetcher" && cargo vendor --quiet --versioned-dirs >/dev/null)
  # Under another name until it is complete.
  local unpacked=$work/$1/unpacked
  rm -rf "$unpacked"
  cp -r "$fetcher/vendor/$1-$2" "$unpacked"
  # The compiler is ours, too, whatever the crate's authors use.
  rm -rf "$unpacked/.cargo-checksum.json" "$unpacked"/rust-toolchain* "$fetcher"
  # Not a member of whatever workspace lies above.
  grep -q '^\[workspace\]' "$unpacked/Cargo.toml" || printf '\n[workspace]\n' >>"$unpacked/Cargo.toml"
  mv "$unpacked" "$work/$1/system"
}

# roots DIRECTORY: the files that are the roots of the library and of the integration tests. Fails if there are none.
roots() {
  (cd "$1" && cargo metadata --quiet --no-deps --format-version 1) |
    grep -oE '"kind":\["(lib|rlib|test)"\],"crate_types":\[[^]]*\],"name":"[^"]*","src_path":"[^"]*"' |
    sed -E 's/.*"src_path":"([^"]*)"/\1/'
}

# with_ours NAME: copies $work/NAME/system to $work/NAME/ours, with the attribute.
with_ours() {
  local file files
  rm -rf "$work/$1/ours"
  cp -r "$work/$1/system" "$work/$1/ours"
  printf '\n[dev-dependencies.served]\npath = "%s"\n' "$work/served" >>"$work/$1/ours/Cargo.toml"
  # Which versions we need, the crate's own lock file may not know.
  if grep -qs '^name = "libc"' "$work/$1/ours/Cargo.lock"; then
    (cd "$work/$1/ours" && cargo update --quiet libc --precise "$libc")
  fi
  files=$(roots "$work/$1/ours")
  while read -r file; do
    cat >>"$file" <<'EOF'

#[cfg(test)]
#[global_allocator]
static ALLOCATOR_UNDER_TEST: ::served::SigSafeAlloc = ::served::SigSafeAlloc;
EOF
  done <<<"$files"
}

# suite NAME WHICH: runs the tests of $work/NAME/WHICH. Leaves a line for each test in $work/NAME/WHICH.results, the lines of the
# processes in WHICH.served, and in WHICH.ending a word on how Cargo ended: well, or how not.
suite() {
  local at=$work/$1 files status=0
  rm -f "$at/$2.served"
  touch "$at/$2.served"
  local targets=(--lib)
  files=$(roots "$at/$2")
  [[ $files != */tests/* ]] || targets+=(--test '*')
  (cd "$at/$2" && SERVED=$at/$2.served timeout "$limit" cargo test "${targets[@]}" --no-fail-fast) >"$at/$2.log" 2>&1 || status=$?
  # `Running tests/a.rs (target/...)`, then `test a::b ... ok` for each of its tests.
  awk '
    $1 == "Running" { of = $2 == "unittests" ? $3 : $2; binaries++ }
    /^test .* \.\.\. / { sub(/^test /, ""); split($0, part, / \.\.\. /); sub(/,.*/, "", part[2]); print of, part[1], part[2] }
    END { if (!binaries) print "nothing ran" }
  ' "$at/$2.log" | sort >"$at/$2.results"
  # A failed test makes its binary and Cargo end with status 101, and has its line. A build that fails ends with the same status, and has
  # none.
  local ending=well
  if [ "$status" -eq 124 ]; then
    ending='out of time'
  elif grep "process didn't exit successfully" "$at/$2.log" | grep -v '(exit status: 101)' >/dev/null; then
    ending='a process died'
  elif [ "$status" -ne 0 ] && ! { [ "$status" -eq 101 ] && grep -q ' FAILED$' "$at/$2.results"; }; then
    ending="status $status"
  fi
  echo "$ending" >"$at/$2.ending"
  [ "$ending" = well ] || tail -n 20 "$at/$2.log"
}

# count NAME WHICH RESULT
count() {
  grep -cE " $3\$" "$work/$1/$2.results" || true
}

# compare NAME VERSION WHAT: both suites of a crate. Leaves its line of the table in $work/NAME/row; fails if it is to be counted as
# failed.
compare() {
  local name=$1 version=$2 what=$3 at=$work/$1 verdict=equal which ending binaries binary processes served
  # With KEEP there may be one of another version.
  if [ "$(cat "$at/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$at"
    fetch "$name" "$version"
    printf '%s\n' "$version" >"$at/version"
  fi
  with_ours "$name"
  suite "$name" system
  suite "$name" ours
  if ! diff "$at/system.results" "$at/ours.results"; then
    verdict=DIFFERENT
  elif [ "$(count "$name" ours ok)" -eq 0 ]; then
    verdict='NOTHING RAN'
  fi
  for which in system ours; do
    ending=$(<"$at/$which.ending")
    [ "$ending" = well ] || verdict="$verdict, $which: ${ending^^}"
  done
  # Each binary that has run a test is a process at least, and each process was served. A file that is configured away as a whole, and
  # the attribute with it, makes a binary too, without a test.
  binaries=$(awk '$1 == "Running" { gsub(/[()]/, "", $NF); binary = $NF } /^running [1-9]/ { print binary }' "$at/ours.log")
  processes=$(wc -l <"$at/ours.served")
  served=$(awk '$1 > 0 && $2 > 0 { served++ } END { print served + 0 }' "$at/ours.served")
  for binary in $binaries; do
    grep -qE " .*/${binary##*/}\$" "$at/ours.served" || verdict="$verdict, NOT SERVED: $binary"
  done
  if [ "$served" -ne "$processes" ] || [ -s "$at/system.served" ]; then
    verdict="$verdict, NOT SERVED"
  fi
  printf '%-18s %-8s %-13s %6s %6s %7s   %-22s %4s of %-4s %8s\n' "$name" "$version" "$what" "$(count "$name" ours ok)" \
    "$(count "$name" ours FAILED)" "$(count "$name" ours ignored)" "$verdict" "$served" "$processes" \
    "$(awk '{ if ($1 > most) most = $1 } END { print most / 1048576 }' "$at/ours.served")" | tee "$at/row"
  [ "$verdict" = equal ]
}

libc=$(awk '$3 == "\"libc\"" { getline; gsub(/"/, ""); print $3 }' Cargo.lock)
[ -n "$libc" ] || { echo 'ten-crates.sh: Cargo.lock names no libc' >&2; exit 1; }
make_served
ran=0
failed=()
rows=()
for crate in "${crates[@]}"; do
  read -r name version what <<<"$crate"
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  printf '== %s %s\n' "$name" "$version"
  rm -f "$work/$name/row"
  # In a shell of its own, which the first command that fails ends: not as a condition, where the shell goes on.
  set +e
  (set -e; compare "$name" "$version" "$what")
  status=$?
  set -e
  ran=$((ran + 1))
  [ "$status" -eq 0 ] || failed+=("$name")
  rows+=("$(cat "$work/$name/row" 2>/dev/null || printf '%-18s %-8s %-13s NOT RUN' "$name" "$version" "$what")")
done

printf '\n%-18s %-8s %-13s %6s %6s %7s   %-22s %-12s %8s\n' crate version what passed failed ignored 'than with System' \
  'served' 'most MiB'
printf '%s\n' "${rows[@]}"
printf '\n%d of %d crates failed%s\n' "${#failed[@]}" "$ran" "${failed[*]:+: ${failed[*]}}"
exit "${#failed[@]}"
