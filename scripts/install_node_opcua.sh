#!/bin/sh
# Install node-opcua, an OPC UA server that is not the library of mxgw's own backend, where it is not there yet. Tests in
# tests/worker/opcua run against it in a process of its own, and are skipped, and say so, where it is missing.
# It needs Node.js 20 or newer with npm. Nothing is written into this directory: the packages are in the cache of the user,
# about 80 MB, or in the directory that MXGW_NODE_OPCUA names.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
manifest="$here/tests/worker/opcua/node/package.json"
version=$(sed -n 's/.*"node-opcua": "\([0-9.]*\)".*/\1/p' "$manifest")
target=${MXGW_NODE_OPCUA:-${XDG_CACHE_HOME:-$HOME/.cache}/mxgw/node-opcua-$version}

if [ -e "$target/complete" ]; then
  echo "node-opcua $version is there: $target"
  exit 0
fi
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
  echo "install_node_opcua: Node.js with npm is missing. Debian and Ubuntu: apt-get install nodejs npm (if that is Node 20" >&2
  echo "or newer); any other system: install Node.js by hand, so that 'node' and 'npm' are in the PATH. Then run this again." >&2
  exit 1
fi
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
  echo "install_node_opcua: Node.js $(node --version) is too old; node-opcua $version needs 20 or newer" >&2
  exit 1
fi
mkdir -p "$target"
cp "$manifest" "$target/package.json"
# Without scripts of packages, and without a lock file: the manifest names the exact version, and its packages name theirs.
npm install --prefix "$target" --no-package-lock --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund --loglevel=error
: >"$target/complete"
echo "node-opcua $version is installed: $target"
