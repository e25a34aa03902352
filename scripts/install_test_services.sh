#!/bin/sh
# Install what some tests run for real, where it is not there yet: OpenLDAP's slapd and its tools, the terminal tmux,
# Prometheus with its promtool, and Samba, whose domain controller is an Active Directory.
# Tests that need one are skipped, and say so, where it is missing. Debian and Ubuntu; as root, or with sudo.
set -eu

# Servers are not in everybody's path.
PATH="$PATH:/usr/sbin"

there() {
  for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || return 1
  done
}

if there slapd ldapadd tmux prometheus promtool samba samba-tool && [ -d /usr/share/samba/setup ]; then
  echo "slapd, tmux, Prometheus and Samba are there"
  exit 0
fi
if ! there apt-get; then
  echo "install_test_services: no apt-get here; install slapd and ldap-utils, tmux, prometheus, and samba by hand" >&2
  exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
# The packages must not start servers of their own: tests run theirs, on loopback and for their time only.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
  trap '$as_root rm -f "$policy"' EXIT
fi
$as_root apt-get update -q
$as_root apt-get install -y -q --no-install-recommends slapd ldap-utils tmux prometheus
# The largest and the least needed comes last: what is above is there, whatever becomes of it.
there samba samba-tool && [ -d /usr/share/samba/setup ] ||
  $as_root apt-get install -y -q --no-install-recommends samba samba-ad-provision samba-dsdb-modules samba-vfs-modules
