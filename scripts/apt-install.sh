#!/usr/bin/env bash
# Installs those Debian or Ubuntu packages that are not there yet, as root or by sudo.
#
#   scripts/apt-install.sh [--backports] PACKAGE...      from Debian 12's backports, which become known to apt
set -euo pipefail

release=()
if [ "$1" = --backports ]; then
  shift
  release=(-t bookworm-backports)
fi

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
if [ ${#release[@]} -gt 0 ]; then
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main\n' |
    "${as_root[@]}" tee /etc/apt/sources.list.d/backports.list >/dev/null
fi
for package in "${missing[@]}"; do
  [[ $package != *:* ]] || "${as_root[@]}" dpkg --add-architecture "${package#*:}"
done
# An update that fails says so by its status only when asked to.
get -q -o APT::Update::Error-Mode=any update || printf "the lists of packages could not all be brought up to date\n" >&2
get -qy --no-install-recommends "${release[@]}" install "${missing[@]}"
