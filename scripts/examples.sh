#!/usr/bin/env bash
# Runs every example of the workspace, with all features of its crate. Each checks its own outcome; one that ends with a status other
# than 0, or not at all, fails the script.
set -euo pipefail
cd "$(dirname "$0")/.."
shopt -s nullglob

limit=120
ran=0
failed=0
for file in */examples/*.rs */examples/*/main.rs; do
  crate=${file%%/*}
  name=${file#*/examples/}
  name=${name%/main.rs}
  name=${name%.rs}
  cargo build --quiet --locked -p "$crate" --all-features --example "$name"
  printf -- '-- %s\n' "$file"
  if timeout "$limit" cargo run --quiet --locked -p "$crate" --all-features --example "$name" </dev/null; then
    ran=$((ran + 1))
  else
    printf '%s failed: exit status %d\n' "$file" $? >&2
    failed=$((failed + 1))
  fi
done
printf '%d examples ran, %d failed\n' "$ran" "$failed"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
