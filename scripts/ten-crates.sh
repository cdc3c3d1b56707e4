#!/usr/bin/env bash
# The test suites of ten crates that others have written, once with the system's allocator and once with ours: each test must end the
# same way.
#
#   scripts/ten-crates.sh [NAME...]                    all ten, or some
#   FEATURES=hardened scripts/ten-crates.sh [NAME...]  with features of sigsafe-alloc
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
# Examples in documentation are not run: they are programs of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Name, version, and what it is.
crates=(
  'serde_json 1.0.154 parser'
  'nom 7.1.3 parser'
  'pulldown-cmark 0.13.6 parser'
  'flate2 1.1.11 compressor'
  'brotli 8.0.4 compressor'
  'regex 1.7.3 regex engine'
  'hecs 0.10.5 ECS'
  'redb 3.1.3 database'
  'petgraph 0.8.3 graphs'
  'crossbeam-channel 0.5.17 channels'
)

work=${KEEP:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=$work/target CARGO_TERM_COLOR=never
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
    let line = format!("{} {} {}\n", stats.chunks, stats.blocks, stats.caches);
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
  cp -r "$fetcher/vendor/$1-$2" "$work/$1/system"
  # The compiler is ours, too, whatever the crate's authors use.
  rm -rf "$work/$1/system/.cargo-checksum.json" "$work/$1/system"/rust-toolchain* "$fetcher"
  # Not a member of whatever workspace lies above.
  grep -q '^\[workspace\]' "$work/$1/system/Cargo.toml" || printf '\n[workspace]\n' >>"$work/$1/system/Cargo.toml"
}

# roots DIRECTORY: the files that are the roots of the library and of the integration tests.
roots() {
  (cd "$1" && cargo metadata --quiet --no-deps --format-version 1) |
    grep -oE '"kind":\["(lib|rlib|test)"\],"crate_types":\[[^]]*\],"name":"[^"]*","src_path":"[^"]*"' |
    sed -E 's/.*"src_path":"([^"]*)"/\1/'
}

# with_ours NAME: copies $work/NAME/system to $work/NAME/ours, with the attribute.
with_ours() {
  local file
  cp -r "$work/$1/system" "$work/$1/ours"
  printf '\n[dev-dependencies.served]\npath = "%s"\n' "$work/served" >>"$work/$1/ours/Cargo.toml"
  # Which versions we need, the crate's own lock file may not know.
  ! grep -qs '^name = "libc"' "$work/$1/ours/Cargo.lock" || (cd "$work/$1/ours" && cargo update --quiet libc --precise "$libc")
  roots "$work/$1/ours" | while read -r file; do
    cat >>"$file" <<'EOF'

#[cfg(test)]
#[global_allocator]
static ALLOCATOR_UNDER_TEST: ::served::SigSafeAlloc = ::served::SigSafeAlloc;
EOF
  done
}

# suite NAME WHICH: runs the tests of $work/NAME/WHICH. Leaves a line for each test in $work/NAME/WHICH.results, and the lines of the
# processes in WHICH.served.
suite() {
  local at=$work/$1
  rm -f "$at/$2.served"
  touch "$at/$2.served"
  local targets=(--lib)
  ! roots "$at/$2" | grep -q '/tests/' || targets+=(--test '*')
  (cd "$at/$2" && SERVED=$at/$2.served timeout 1800 cargo test "${targets[@]}" --no-fail-fast) >"$at/$2.log" 2>&1 || true
  # `Running tests/a.rs (target/...)`, then `test a::b ... ok` for each of its tests.
  awk '
    $1 == "Running" { of = $2 == "unittests" ? $3 : $2; binaries++ }
    /^test .* \.\.\. / { sub(/^test /, ""); split($0, part, / \.\.\. /); sub(/,.*/, "", part[2]); print of, part[1], part[2] }
    END { if (!binaries) print "nothing ran" }
  ' "$at/$2.log" | sort >"$at/$2.results"
}

# count NAME WHICH RESULT
count() {
  grep -cE " $3\$" "$work/$1/$2.results" || true
}

libc=$(awk '$3 == "\"libc\"" { getline; gsub(/"/, ""); print $3 }' Cargo.lock)
make_served
failed=0
rows=()
for crate in "${crates[@]}"; do
  read -r name version what <<<"$crate"
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  printf '== %s %s\n' "$name" "$version"
  [ -d "$work/$name/system" ] || fetch "$name" "$version"
  rm -rf "$work/$name/ours"
  with_ours "$name"
  suite "$name" system
  suite "$name" ours
  verdict=equal
  if ! diff "$work/$name/system.results" "$work/$name/ours.results"; then
    verdict=DIFFERENT
  elif [ "$(count "$name" ours ok)" -eq 0 ]; then
    verdict='NOTHING RAN'
    tail -n 20 "$work/$name/ours.log"
  fi
  # Each test binary is a process at least, and each process was served.
  binaries=$(grep -cE '^ +Running ' "$work/$name/ours.log" || true)
  processes=$(wc -l <"$work/$name/ours.served")
  served=$(awk '$1 > 0 && $2 > 0 { served++ } END { print served + 0 }' "$work/$name/ours.served")
  if [ "$processes" -lt "$binaries" ] || [ "$served" -ne "$processes" ] || [ -s "$work/$name/system.served" ]; then
    verdict="$verdict, NOT SERVED"
  fi
  [ "$verdict" = equal ] || failed=1
  rows+=("$(printf '%-18s %-8s %-13s %6s %6s %7s   %-22s %4s of %-4s %8s' "$name" "$version" "$what" "$(count "$name" ours ok)" \
    "$(count "$name" ours FAILED)" "$(count "$name" ours ignored)" "$verdict" "$served" "$binaries" \
    "$(awk '{ if ($1 > most) most = $1 } END { print most / 1048576 }' "$work/$name/ours.served")")")
  printf '%s\n' "${rows[-1]}"
done

printf '\n%-18s %-8s %-13s %6s %6s %7s   %-22s %-12s %8s\n' crate version what passed failed ignored 'than with System' \
  'served' 'most MiB'
printf '%s\n' "${rows[@]}"
exit "$failed"
