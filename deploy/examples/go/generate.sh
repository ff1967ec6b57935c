#!/bin/sh
# Makes the Go package of the API in ./tidegatev1: needs a protoc (the one of grpcio-tools does) and the two plugins.
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.33.0
#   go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.3.0
set -eu
here=$(cd "$(dirname "$0")" && pwd)
protos=${TIDEGATE_PROTO:-$here/../../../proto}
out=${1:-$here}
package=tidegate-example/tidegatev1
mappings=
for proto in "$protos"/tidegate/v1/*.proto; do
    name=tidegate/v1/$(basename "$proto")
    mappings="$mappings --go_opt=M$name=$package --go-grpc_opt=M$name=$package"
done
# shellcheck disable=SC2086 # the mappings are words of their own
${PROTOC:-protoc} -I "$protos" --go_out="$out" --go-grpc_out="$out" \
    --go_opt=module=tidegate-example --go-grpc_opt=module=tidegate-example $mappings "$protos"/tidegate/v1/*.proto
