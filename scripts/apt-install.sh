#!/usr/bin/env bash
# Installs those Debian or Ubuntu packages that are not there yet, as root or by sudo.
#
#   scripts/apt-install.sh PACKAGE...
set -euo pipefail

missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = 'ii ' ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
get() {
  # Where the user _apt cannot run what checks signatures, apt does so as root. The check itself is the same.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@" ||
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o APT::Sandbox::User=root "$@"
}
# An update that fails says so by its status only when asked to.
get -q -o APT::Update::Error-Mode=any update
get -qy --no-install-recommends install "${missing[@]}"
