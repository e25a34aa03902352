#!/bin/sh
# Install what some tests run for real, where it is not there yet: OpenLDAP's slapd and its tools, the terminal tmux,
# and Prometheus with its promtool.
# Tests that need one are skipped, and say so, where it is missing. Debian and Ubuntu; as root, or with sudo.
set -eu

if command -v slapd >/dev/null 2>&1 && command -v ldapadd >/dev/null 2>&1 && command -v tmux >/dev/null 2>&1 &&
  command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1; then
  echo "slapd, tmux and Prometheus are there"
  exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_test_services: no apt-get here; install OpenLDAP's slapd and ldap-utils, tmux, and prometheus, by hand" >&2
  exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
# The package must not start a server of its own: tests run theirs, on loopback and for their time only.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
  trap '$as_root rm -f "$policy"' EXIT
fi
$as_root apt-get update -q
$as_root apt-get install -y -q --no-install-recommends slapd ldap-utils tmux prometheus
