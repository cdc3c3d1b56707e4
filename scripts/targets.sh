#!/usr/bin/env bash
# The library crates on platforms other than this machine's own:
#
#   check     they compile, without a warning, for x86_64 FreeBSD, DragonFly and macOS
#   musl      they are built for x86_64 and aarch64 musl; their tests run on x86_64, here
#   aarch64   their tests run on aarch64 Linux under qemu-user; what that cannot show is in scripts/qemu-left-out.txt
#
#   scripts/targets.sh [check] [musl] [aarch64]      all three, then a table
#
# Installs what is missing: targets by rustup, or Debian's compiler, libraries and sources where rustup has no network; qemu and
# the cross linker by apt.
set -euo pipefail
cd "$(dirname "$0")/.."

crates=(-p sigsafe-core -p sigsafe-alloc -p sigsafe-mutex)

rows=()
failed=0
# row WHAT TARGET COMMAND...: runs the command and keeps its result for the table.
row() {
  local what=$1 target=$2
  shift 2
  printf '\n-- %s: %s\n' "$target" "$what"
  if "$@"; then
    rows+=("$(printf '%-28s %-46s ok' "$target" "$what")")
  else
    rows+=("$(printf '%-28s %-46s FAILED' "$target" "$what")")
    failed=1
  fi
}

# Whether rustup has or can get the standard library for this target.
has_target() {
  command -v rustup >/dev/null && rustup target add "$1" >/dev/null 2>&1
}

# Debian's cargo and compiler, of which the sources and foreign libraries are packages.
debian_cargo=(env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc /usr/bin/cargo)

# cargo_with_core COMMAND ARGUMENT...: cargo that compiles `core` from source, for a target without a standard library at hand.
# That is still unstable.
cargo_with_core() {
  if command -v rustup >/dev/null && rustup component add rust-src >/dev/null 2>&1; then
    RUSTC_BOOTSTRAP=1 cargo "$@" -Zbuild-std=core
  else
    scripts/apt-install.sh cargo-web rustc-web rust-web-src
    RUSTC_BOOTSTRAP=1 "${debian_cargo[@]}" "$@" -Zbuild-std=core
  fi
}

check() {
  local target
  for target in x86_64-unknown-freebsd x86_64-apple-darwin; do
    if has_target "$target"; then
      # By clippy, so that what is compiled there alone is held to the same lints.
      row 'checked, with the feature std' "$target" cargo clippy --locked "${crates[@]}" --features sigsafe-core/std \
        --target "$target" -- -D warnings
    else
      RUSTFLAGS='-D warnings' row 'checked, without std' "$target" cargo_with_core check --locked "${crates[@]}" --target "$target"
    fi
  done
  target=x86_64-unknown-dragonfly
  RUSTFLAGS='-D warnings' row 'checked, without std' "$target" cargo_with_core check --locked "${crates[@]}" --target "$target"
}

# tests_of CRATE PATTERN: cargo's arguments for the tests of a crate but for those whose names fit the pattern.
tests_of() {
  printf -- '-p\n%s\n--lib\n' "$1"
  (cd "$1/tests" && ls ./*.rs) | sed -E 's/^\.\/(.*)\.rs$/\1/' | grep -vxE "$2" | sed 's/^/--test=/'
}

musl() {
  local target of_alloc of_core
  for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
    if has_target "$target"; then
      row 'built, with the feature std' "$target" cargo build --locked "${crates[@]}" --features sigsafe-core/std --target "$target"
    else
      row 'built, without std' "$target" cargo_with_core build --locked "${crates[@]}" --target "$target"
    fi
  done
  # Linked statically, as musl is, and run: all but four long sweeps, which step through no instruction of a C library's.
  target=x86_64-unknown-linux-musl
  if has_target "$target"; then
    mapfile -t of_alloc < <(tests_of sigsafe-alloc 'every_instruction|lines|hardened')
    # Fewer programs, and a thinner sample of boundaries than on glibc: between system calls it is the same code.
    local -x PROPTEST_CASES=100 SIGSAFE_SWEEP_STRIDE=101
    row 'tests of alloc run, but for two sweeps' "$target" cargo test --locked "${of_alloc[@]}" --no-fail-fast --target "$target"
    row 'tests of mutex run' "$target" cargo test --locked -p sigsafe-mutex --lib --tests --no-fail-fast --target "$target"
    mapfile -t of_core < <(tests_of sigsafe-core 'sweep(_mask)?')
    PROPTEST_CASES=1000 row 'tests of core run, but for two sweeps' "$target" cargo test --locked "${of_core[@]}" --no-fail-fast --target "$target"
  fi
}

# Reads scripts/qemu-left-out.txt: why[TEST], file_of[TEST]; and which files say that they hold no test but on x86_64.
declare -A why file_of
without_tests=()
read_left_out() {
  local line reason file test found
  while IFS= read -r line; do
    case $line in
      '' | '#'*) ;;
      ' '*)
        read -r file test <<<"$line"
        found=$(cd sigsafe-core/tests && grep -lE "^fn $test\(\)" ./*.rs || true)
        if [ "$found" != "./$file.rs" ]; then
          # Cargo passes over all tests of that name.
          printf 'in scripts/qemu-left-out.txt: %s is not the name of one test alone, in %s.rs\n' "$test" "$file"
          return 1
        else
          why[$test]=$reason
          file_of[$test]=$file
        fi
        ;;
      *) reason=${line%:} ;;
    esac
  done <scripts/qemu-left-out.txt
  mapfile -t without_tests < <(grep -lE '^#!\[cfg\(.*target_arch = "x86_64"' sigsafe-core/tests/*.rs | xargs -n 1 basename -s .rs)
  printf 'no test but on x86_64: %s\n' "${without_tests[*]}"
}

# core_in_qemu: runs the tests of core that are not left out. The files that turn out to hold no test must be those that say so.
core_in_qemu() {
  local skipped=() name output result=0
  output=$(mktemp)
  for name in "${!why[@]}"; do
    skipped+=(--skip "$name")
  done
  "${test[@]}" -p sigsafe-core --lib --tests --no-fail-fast -- --exact "${skipped[@]}" 2>&1 | tee "$output" || result=1
  if ! diff <(printf '%s\n' "${without_tests[@]}" | sort) <(awk '
    /Running tests\// { file = $2; gsub(/^tests\/|\.rs$/, "", file) }
    /^test result: .* 0 passed; 0 failed; .* 0 filtered out/ { print file }' "$output" | sort); then
    printf 'these files hold no test under qemu (>), or say so (<)\n'
    result=1
  fi
  rm "$output"
  return "$result"
}

# left_out_fails: tries the tests that are left out. None may pass but those that fail at times.
left_out_fails() {
  local files name output result=0
  output=$(mktemp)
  mapfile -t files < <(printf -- '--test=%s\n' "${file_of[@]}" | sort -u)
  # One that waits for ever ends its file's run.
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout -k 5 15 $SIGSAFE_TEST_RUNNER" \
    "${test[@]}" -p sigsafe-core "${files[@]}" --no-fail-fast -- --exact "${!why[@]}" >"$output" 2>&1 || true
  while read -r name; do
    if ! grep -q "^test $name \.\.\. ok" "$output"; then
      printf 'left out: %s %s: %s\n' "${file_of[$name]}" "$name" "${why[$name]}"
    elif [[ ${why[$name]} == 'at times:'* ]]; then
      printf 'left out, and passed this time: %s %s: %s\n' "${file_of[$name]}" "$name" "${why[$name]}"
    else
      printf 'to be taken out of scripts/qemu-left-out.txt, since it passes: %s %s\n' "${file_of[$name]}" "$name"
      result=1
    fi
  done < <(for name in "${!why[@]}"; do printf '%s %s\n' "${file_of[$name]}" "$name"; done | sort | cut -d ' ' -f 2)
  rm "$output"
  return "$result"
}

aarch64() {
  local target=aarch64-unknown-linux-gnu
  # Version 7 loses signals that later ones deliver; Debian 12 has a later one among its backports.
  if . /etc/os-release && [ "$VERSION_CODENAME" = bookworm ]; then
    scripts/apt-install.sh --backports qemu-user
  fi
  scripts/apt-install.sh qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  # Where Debian's own arm64 libraries are installed too, the loader's cache would lead from one C library into the other.
  local -x SIGSAFE_TEST_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib'
  # A file takes seconds, the storms of thread creations half a minute.
  local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout -k 5 240 $SIGSAFE_TEST_RUNNER"
  local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  # A sixth of the usual programs: their time limit follows their number.
  local -x PROPTEST_CASES=500
  # The C program that one of the tests compiles.
  local -x CC=aarch64-linux-gnu-gcc
  test=(cargo)
  if ! has_target "$target"; then
    scripts/apt-install.sh cargo-web rustc-web libstd-rust-web-dev:arm64
    test=("${debian_cargo[@]}")
  fi
  test+=(test --locked --target "$target")
  read_left_out
  qemu-aarch64 --version | head -n 1
  # Examples in the documentation are the same programs on every platform: they run on this one's.
  row 'tests of alloc and mutex run under qemu-user' "$target" env PROPTEST_CASES=100 "${test[@]}" -p sigsafe-alloc -p sigsafe-mutex --lib --tests --no-fail-fast
  row "tests of core run under qemu-user, but for ${#why[@]}" "$target" core_in_qemu
  row "what those ${#why[@]} show, qemu cannot" "$target" left_out_fails
}

[ $# -gt 0 ] || set -- check musl aarch64
for part in "$@"; do
  case $part in
    check | musl | aarch64) "$part" ;;
    *) printf 'usage: scripts/targets.sh [check] [musl] [aarch64]\n' >&2 && exit 2 ;;
  esac
done

printf '\n'
printf '%s\n' "${rows[@]}"
exit "$failed"
