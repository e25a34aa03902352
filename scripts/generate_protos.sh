#!/bin/sh
# Generate the Python code of protos/ with one pinned generator, in a virtual environment of its own:
# code made by grpcio-tools 1.80 imports on protobuf 6.31 to 7 and grpcio >= 1.80, while the generator itself
# wants protobuf 6. With --check nothing is changed; the exit status tells whether the committed code is current.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv-proto
pins="grpcio-tools==1.80.0 mypy-protobuf==5.1.0"

if [ "$(cat $venv/pins 2>/dev/null)" != "$pins" ]; then
  rm -rf $venv
  "$python" -m venv $venv
  # shellcheck disable=SC2086  # the pins are separate words on purpose
  $venv/bin/pip install --quiet --disable-pip-version-check $pins setuptools
  echo "$pins" > $venv/pins
fi

out=$(mktemp -d)
committed=$(mktemp -d)
trap 'rm -rf "$out" "$committed"' EXIT
# shellcheck disable=SC2046  # proto paths hold no spaces
PATH="$PWD/$venv/bin:$PATH" $venv/bin/python -m grpc_tools.protoc -I protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  $(cd protos && find mxgw -name '*.proto' | sort)
# Files without a service get an empty gRPC module: drop those.
for proto in $(cd protos && find mxgw -name '*.proto'); do
  grep -q '^service ' "protos/$proto" || rm -f "$out/${proto%.proto}_pb2_grpc.py" "$out/${proto%.proto}_pb2_grpc.pyi"
done

if [ "${1:-}" = "--check" ]; then
  # Only what a generator made is compared: packages also hold code that people wrote.
  (cd protos && find mxgw -name '*_pb2*.py*' -not -path '*/__pycache__/*' | tar -cf - -T -) | tar -xf - -C "$committed"
  if ! diff -rq "$committed" "$out" >&2; then
    echo "protos/: generated code is out of date; run: make proto" >&2
    exit 1
  fi
  echo "protos/: generated code is current"
else
  find protos -name '*_pb2*.py*' -not -path '*/__pycache__/*' -delete
  cp -r "$out/." protos/
fi
