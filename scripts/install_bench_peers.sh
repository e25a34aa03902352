#!/bin/sh
# Install what `make bench` compares mxgw with, where it is not there yet: NATS, Redis and Mosquitto, from Debian.
# None of them is started as a service: benchmarks run their own, on loopback and for their time only. As root, or with
# sudo. The OPC UA server of the comparison comes with mxgw's extra `opcua`.
set -eu

PATH="$PATH:/usr/sbin"
missing=""
for program in nats-server redis-server mosquitto; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -z "$missing" ]; then
  echo "nats-server, redis-server and mosquitto are there"
  exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_bench_peers: no apt-get here; install$missing by hand. Benchmarks leave out what is missing." >&2
  exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
  trap '$as_root rm -f "$policy"' EXIT
fi
$as_root apt-get update -q
# shellcheck disable=SC2086  # a list of words
$as_root apt-get install -y -q --no-install-recommends $missing
