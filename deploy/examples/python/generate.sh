#!/bin/sh
# Makes the Python modules of the API beside this file: needs what requirements.txt names.
set -eu
here=$(dirname "$0")
protos=${TIDEGATE_PROTO:-$here/../../../proto}
out=${1:-$here}
mkdir -p "$out"
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$protos" --python_out="$out" --grpc_python_out="$out" \
    "$protos"/tidegate/v1/*.proto
